"""The table of all targets, by name."""

from __future__ import annotations

from fuzz import certificates, files, messages
from fuzz.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (
    *messages.TARGETS, *certificates.TARGETS, *files.TARGETS)}
