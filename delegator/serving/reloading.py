"""What a reload changes: the one table of which settings take effect at once, the settings that result, and what they
let in.

At once means from the next connection or request on; whatever stands goes on with what it began with.
The invariants: settings in effect never mix what was not applied with what was: a setting that needs a new start
keeps its old value, and is named; what a reload lets in that was refused before is said.
Must not live here: reading settings (config), making things of them (parts), applying them (app).
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Iterable, Iterator

import msgspec

from delegator.config import Settings
from delegator.model.places import lenient
from pki.trust import TrustStore, shown


class Effect(enum.Enum):
    """When a changed setting takes effect."""

    AT_ONCE = "at once"
    RESTART = "at the next start"


EFFECTS: dict[str, Effect] = {
    "server": Effect.AT_ONCE,
    "server.host": Effect.RESTART,
    "server.port": Effect.RESTART,
    "server.workers": Effect.RESTART,
    "store": Effect.RESTART,
    "sealing": Effect.AT_ONCE,
    "callbacks": Effect.AT_ONCE,
    "outbound": Effect.AT_ONCE,
    "domains": Effect.AT_ONCE,
    "enrolment": Effect.AT_ONCE,
    "mail": Effect.AT_ONCE,
    "limits": Effect.AT_ONCE,
    "ops": Effect.AT_ONCE,
    "audit": Effect.AT_ONCE,
    "billing": Effect.AT_ONCE,
    "log": Effect.AT_ONCE,
}
"""By section, or by `section.key` where one differs."""


def effect(section: str, key: str) -> Effect:
    """When a change of this setting takes effect; RESTART for one that the table does not know."""
    return EFFECTS.get(f"{section}.{key}") or EFFECTS.get(section, Effect.RESTART)


def told(changes: tuple[str, ...], opened: tuple[str, ...], waiting: Iterable[str]) -> Iterator[tuple[int, str]]:
    """What the log says of a reload: levels and lines."""
    yield logging.INFO, ("certificates and revocation lists were reloaded; settings changed: "
                         f"{', '.join(changes) or 'none'}")
    for words in opened:
        yield logging.WARNING, f"this lets in what was refused before: {words}"
    for name in waiting:
        yield logging.WARNING, f"setting {name} was changed, which takes effect at the next start"


def changed(before: Settings, after: Settings) -> tuple[str, ...]:
    """The settings that differ, as `section.key`."""
    old, new = msgspec.to_builtins(before), msgspec.to_builtins(after)
    return tuple(f"{section}.{key}" for section, keys in new.items() for key, value in keys.items()
                 if value != old[section][key])


def in_effect(before: Settings, after: Settings) -> tuple[Settings, tuple[str, ...]]:
    """The settings that a reload leads to, and the names of those that wait for a new start."""
    waiting = tuple(name for name in changed(before, after) if effect(*name.split(".")) is Effect.RESTART)
    kept: dict[str, dict[str, object]] = {}
    for name in waiting:
        section, key = name.split(".")
        kept.setdefault(section, {})[key] = getattr(getattr(before, section), key)
    sections = {section: msgspec.structs.replace(getattr(after, section), **keys) for section, keys in kept.items()}
    return msgspec.structs.replace(after, **sections), waiting


# --- what a reload lets in ----------------------------------------------------------------------------------------


def lets_in(before: tuple[Settings, TrustStore], after: tuple[Settings, TrustStore]) -> tuple[str, ...]:
    """Whom a reload lets in that was refused before, a line for each way; as what a command lets in is told by it.

    Of a list that names fewer the serials are counted, unless an authority went away with its list: nobody of it is
    let in any more. Comparing takes 0.1 s for a million serials, so this is no work for a loop."""
    return (*_by_trust(before[1], after[1]), *_by_settings(before[0], after[0]))


def _by_trust(before: TrustStore, after: TrustStore) -> Iterator[str]:
    for anchor in after.anchors:
        if anchor not in before.anchors:
            yield f"devices of the authority {shown(anchor)}, which is trusted from now on"
    if before.issuers is not None and (after.issuers is None or after.issuers - before.issuers):
        yield "devices whose certificate was signed by an authority that [server] issuers did not name"
    if before.revocation is None:
        return
    if after.revocation is None:
        yield f"revoked certificates, {len(before.revocation.serials)} now and all that come: no list is read any more"
        return
    gone = before.revocation.serials - after.revocation.serials - after.withdrawn
    if gone and set(before.anchors) <= set(after.anchors) and _signers(before) <= _signers(after):
        yield f"revoked certificates that are on no list any more: {len(gone)}, such as serial {min(gone):x}"


def _signers(store: TrustStore) -> frozenset[bytes]:
    return store.issuers or frozenset()


def _by_settings(before: Settings, after: Settings) -> Iterator[str]:
    for section, key, words in (
            ("server", "proxy_from", "whoever calls from there may say which address a device has"),
            ("outbound", "allow", "delegates at these addresses are called"),
            ("domains", "private_networks", "devices at these addresses are looked for in reverse DNS")):
        more = _wider(getattr(getattr(before, section), key), getattr(getattr(after, section), key))
        if more:
            yield f"[{section}] {key} {', '.join(more)}: {words}"
    if after.domains.enabled and not before.domains.enabled:
        yield "devices that nobody registered, where reverse DNS of their address leads to a delegate: [domains] is on"
    elif after.domains.enabled and after.domains.policy != before.domains.policy:
        yield (f"customers that reverse DNS finds are under policy {after.domains.policy or '(the default)'} now, not "
               f"{before.domains.policy or '(the default)'}: compare the two")


def _wider(before: Iterable[str], after: Iterable[str]) -> list[str]:
    """The networks that lie in none of those before."""
    known = [one for one in map(lenient, before) if one is not None]
    return [text for text in after if (one := lenient(text)) is not None and not any(
        one.version == old.version and one.subnet_of(old) for old in known)]  # type: ignore[arg-type]
