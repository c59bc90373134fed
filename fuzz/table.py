"""The table of all targets, by name."""

from __future__ import annotations

from delegator import engine

engine.load()

from fuzz import certificates, files, messages  # noqa: E402 - OpenSSL must be loaded with our settings first
from fuzz.target import Target  # noqa: E402

TARGETS: dict[str, Target] = {target.name: target for target in (
    *messages.TARGETS, *certificates.TARGETS, *files.TARGETS)}
