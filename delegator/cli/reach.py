"""`delegator delegates test`: whether a delegate can be reached, and what is known of that when it is registered.

The invariants: nothing is asked of a delegate but whether it is there, and nothing is changed: no credential, no claim,
no circuit breaker; it is reached by the very code that calls it for a device.
Must not live here: which option says what (reaching), what can be known without connecting (desk.reach), calling
(callbacks).
"""

from __future__ import annotations

from datetime import UTC, datetime

import click

from delegator.callbacks import calling
from delegator.callbacks.calling import Needs
from delegator.cli import console
from delegator.cli.console import Output
from delegator.cli.parameters import typed
from delegator.cli.session import looking, settings
from delegator.desk import forms, reach
from delegator.errors import DelegatorError
from delegator.model import Callback, Delegate
from delegator.store import Store


@console.command("test", "delegator delegates test acme-berlin")
@click.argument("name", type=typed(forms.name))
@looking
async def test(store: Store, name: str) -> Output:
    """Whether the delegate NAME can be reached from here, as the delegator would reach it for a device.

    Resolves its name, asks [outbound] about the address, connects, shows our certificate or key, and checks its name
    and authority, or its host key. Asks for no credential. What it says to ours it may say only when it is called: a
    status such as 403 is told.
    """
    found = (await store.tables()).directory.delegates.get(name)
    if found is None:
        raise console.missing("delegate", name, "delegates")
    try:
        words = await _reached(found)
    except DelegatorError as error:
        raise DelegatorError(error.kind, error.detail, hint=error.hint or _hint(name, error.detail)) from None
    return Output({"delegate": name, "callback": found.way.value, "reached": True, "words": words},
                  words=(f"delegate {name}: {words}",))


async def _reached(delegate: Delegate) -> str:
    """By what calls it for a device. Raises DelegatorError: UNREACHABLE, or CONFIGURATION for what is wrong here."""
    from delegator.serving.parts import load_called_with, load_outbound, load_trust

    said = settings()
    needs = Needs(said.callbacks, lambda: load_called_with(said), lambda: load_trust(said), lambda: load_outbound(said),
                  lambda: datetime.now(UTC))
    return await calling.way(delegate.way).reach(delegate, needs)


_HINTS = (("[outbound] allow", "add its network to [outbound] allow, if that is where it shall be"),
          ("TLS", "is --callback-ca the authority that signed its certificate, and HOST the name in it? "
                  "delegator delegates change {name} --callback-ca FILE"),
          ("certificate", "is HOST the name in its certificate? delegator delegates change {name} --soap HOST:PORT"))


def _hint(name: str, detail: str) -> str:
    """What to do next, by what is said of it."""
    return next((hint.format(name=name) for part, hint in _HINTS if part in detail),
                f"is that where it is? delegator delegates show {name}")


# --- when it is registered ----------------------------------------------------------------------------------------


def remarks(name: str, callback: Callback) -> tuple[str, ...]:
    """What whoever registers a delegate should know of it."""
    return *calling.way(callback.way).remarks(callback), *forbidden(name, callback)


def forbidden(name: str, callback: Callback) -> tuple[str, ...]:
    """A warning for a delegate that is registered where the delegator will never connect to, as its settings stand."""
    from delegator.serving.parts import load_outbound

    why = reach.refusal(callback, load_outbound(settings()))
    return () if why is None else (
        f"WARNING: no device will be served by it: {why}\n"
        f"  next: set [outbound] allow, or name another address; then: delegator delegates test {name}",)
