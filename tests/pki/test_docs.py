"""A2: the operator's page of certificates names every profile. Its commands are run by tests/pages/test_makers.py."""

from __future__ import annotations

from pathlib import Path

from pki import PROFILES

PAGE = Path(__file__).parents[2] / "docs" / "pki.md"


def test_a2_the_page_names_every_profile() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in text for name in PROFILES)
