"""A2: an append-only ledger of issued serials, durable before anything it records is visible."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pki import Kind, PkiError
from pki.ledger import Entry, Event, Ledger, TornLine, serial_text

ONE = Entry(Event.ISSUED, "2026-01-01T00:00:00Z", "0a", "device", "ABC1234", "ff", "2046-01-01T00:00:00Z")
TWO = Entry(Event.REVOKED, "2026-01-02T00:00:00Z", "0a", "device", "ABC1234", reason="keyCompromise")


def test_a2_entries_come_back_in_order_one_json_object_a_line(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append([ONE])
    ledger.append([TWO, ONE])
    assert list(ledger) == [ONE, TWO, ONE]
    lines = ledger.path.read_text().splitlines()
    assert json.loads(lines[0])["serial"] == "0a"
    assert "reason" not in lines[0]


def test_a2_appending_never_changes_what_stands_there(tmp_path: Path) -> None:
    """A2: not even a line torn by a crash is mended; the next entry begins on a line of its own."""
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append([ONE])
    with ledger.path.open("ab") as file:
        file.write(b'{"event":"issued","ser')
    before = ledger.path.read_bytes()
    ledger.append([TWO])
    assert ledger.path.read_bytes().startswith(before + b"\n")
    first, torn, last = ledger.lines()
    assert (first, last) == (ONE, TWO)
    assert isinstance(torn, TornLine)
    assert (torn.line, torn.torn) == (2, True)


@pytest.mark.parametrize("line", ["[]", "{}", '{"event":"lost"}', '{"event":"issued","odd":1}', "rubbish", "7"])
def test_a2_a_line_that_is_no_entry_is_reported_not_skipped_silently(tmp_path: Path, line: str) -> None:
    (tmp_path / "ledger.jsonl").write_text(line + "\n")
    (found,) = Ledger(tmp_path / "ledger.jsonl").lines()
    assert isinstance(found, TornLine)
    assert not found.torn


def test_a2_an_append_is_on_the_disk_when_it_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_size))
    ledger = Ledger(tmp_path / "ledger.jsonl")
    ledger.append([ONE])
    assert synced == [ledger.path.stat().st_size]
    assert ledger.path.stat().st_mode & 0o777 == 0o600


def test_a2_a_missing_ledger_is_not_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="restore it") as caught:
        list(Ledger(tmp_path / "ledger.jsonl"))
    assert caught.value.kind is Kind.CONFIGURATION


def test_a2_serials_are_written_as_openssl_prints_them() -> None:
    assert [serial_text(number) for number in (1, 16, 0xABC)] == ["01", "10", "0abc"]
