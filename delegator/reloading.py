"""What a reload changes: the one table of which settings take effect at once, and the settings that result.

At once means from the next connection or request on; whatever stands goes on with what it began with.
The invariant: settings in effect never mix what was not applied with what was: a setting that needs a new start
keeps its old value, and is named.
Must not live here: reading settings (config), making things of them (parts), applying them (app).
"""

from __future__ import annotations

import enum

import msgspec

from delegator.config import Settings


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
