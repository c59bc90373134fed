"""What the pages' tests share with those of whole worlds: a factory, a delegator as a process, a pretend delegate."""

from __future__ import annotations

from ..e2e.conftest import delegate_authority, make_world, world

__all__ = ["delegate_authority", "make_world", "world"]
