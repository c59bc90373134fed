"""What the slow tests take of many cases, and which of them run beside others."""

from __future__ import annotations

from pathlib import Path

import pytest

from . import beside, thorough

ROOT = Path(__file__).parent


@pytest.mark.parametrize(("rows", "columns", "share"), [(21, 7, 3), (21, 2, 2), (6, 2, 2), (2, 6, 2), (5, 5, 5)])
def test_a_part_of_a_table_holds_each_row_and_each_column(
        rows: int, columns: int, share: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thorough, "THOROUGH", False)
    part = thorough.crossed(range(rows), range(columns), share)
    assert {row for row, _ in part} == set(range(rows))
    assert {column for _, column in part} == set(range(columns))
    assert len(part) <= -(-rows * columns // share)
    monkeypatch.setattr(thorough, "THOROUGH", True)
    assert len(set(thorough.crossed(range(rows), range(columns), share))) == rows * columns


def test_a_part_without_a_row_is_none() -> None:
    with pytest.raises(AssertionError, match="left out"):
        thorough.crossed("ab", "abcdef", 3)


def test_what_is_said_to_run_beside_others_is_there() -> None:
    """A file that was renamed would run alone, and nobody would notice."""
    assert [name for name in (*beside.BESIDE, *beside.ALONE) if not (ROOT / name).exists()] == []
    assert [name for name in beside.ALONE if not name.startswith(beside.BESIDE)] == []
