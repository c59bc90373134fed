"""What every way to reach a delegate answers, so that nobody has to ask which way it is.

The invariant: what a way does not say of itself is what holds for most of them.
Must not live here: any way's own (a file each beside this one), calling (callbacks, a file of the same name).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec

from delegator.model.notified import NotificationKind, Target
from delegator.model.word import Word

Fields = dict[str, Any]


class CallbackWay(Word):
    """How the delegator reaches a delegate. (A kind is what a delegate joins as, or what an error is.)"""

    SOAP = "soap"
    SSH = "ssh"
    HOSTED = "hosted"
    LOCAL = "local"


class Said(msgspec.Struct, frozen=True):
    """An option by which people say something of a callback. `form` names the form of what they give, and where it is
    read from, such as "certificate file": those who ask people know the forms by these names. It sets one `field`; or
    it names the way, and `fill` makes of what was given the fields that it fills. Of those that set the same field one
    can be given. With `unset` it can be taken back, and the field is as if it was never said."""

    option: str
    form: str
    help: str
    metavar: str | None = None
    field: str = ""
    fill: Callable[[Any], Fields] | None = None
    unset: bool = False


class Reached(msgspec.Struct, frozen=True):
    """The settings of a callback."""

    way: ClassVar[CallbackWay]
    said: ClassVar[tuple[Said, ...]]
    forms: ClassVar[Mapping[str, str]]
    """The form of each field, by which pages and interfaces take it: known by name to the desk."""
    together: ClassVar[Mapping[str, str]] = {}
    """Fields that are no use without another one."""
    shown: ClassVar[str]
    """What a list shows of it: fields by name, and `where`, host and port."""
    unsaid: ClassVar[Mapping[str, object]] = {}
    """Fields that must be there and need not be said."""
    hears: ClassVar[bool] = False
    """Whether there is somebody who can be told how provisioning ended: a server. A command or a program has nobody in
    it once it has answered, and settings kept here never had."""

    @property
    def told_by(self) -> tuple[NotificationKind, ...]:
        """By which carriers its administrator is told of each device: of what is kept here, a delegate of its own knows
        already."""
        return ()

    @property
    def target(self) -> Target | None:
        """Where its administrator is told; None for nowhere."""
        return None

    @property
    def contact(self) -> tuple[str, int] | None:
        """The host and port that the delegator connects to; None where it connects to nobody."""
        return None

    @property
    def next_url(self) -> str | None:
        """Where devices go next, unless the delegate says it."""
        return None

    @property
    def next_anchor(self) -> str | None:
        """Whom devices trust there, unless the delegate says it."""
        return None

    def check(self, said: Mapping[str, Any]) -> None:
        """Refuse what cannot work, or of what was `said` just now what is no use. Raises ValueError."""
