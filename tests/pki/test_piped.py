"""A2: what comes through a pipe is read to its end before any of it is minted, as a file is."""

from __future__ import annotations

import errno
import io
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

from pki import DEVICE, Folder, PkiError, piped
from pki.batch import GROUP
from pki.console import Passphrase, Values
from pki.errors import Kind
from pki.minting import mint
from pki.tables import LONGEST_LINE

GOOD = "".join(f"TAG{number:05}\n" for number in range(GROUP + 3)).encode()
WRONG = {
    "a byte that is no text": GOOD + b"ABC\xff\n", "a NUL": GOOD + b"ABC\0\n",
    "a bare CR": GOOD + b"ABC1234\rABC1235\r", "a line without end": GOOD + b"A" * (LONGEST_LINE + 1),
    "a quote that stays open": b"service_tag\n" + GOOD + b'"ABC',
    "a heading of another kind on top": b"MODELX\n" + GOOD}  # fmt: skip


class Pipe(io.RawIOBase):
    """Comes in pieces, and once; `given` counts bytes."""

    def __init__(self, content: bytes, endless: bool = False) -> None:
        self._content, self._endless, self.given = io.BytesIO(content), endless, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._content.read(min(len(buffer), 1000))
        if not piece and self._endless:
            self._content.seek(0)
            return self.readinto(buffer)
        buffer[: len(piece)] = piece
        self.given += len(piece)
        return len(piece)


@pytest.fixture
def line(folder: Folder) -> Callable[[io.RawIOBase | io.BytesIO], Values]:
    def run(source: io.RawIOBase | io.BytesIO) -> Values:
        opened = source if isinstance(source, io.BytesIO) else io.BufferedReader(source)
        return mint(opened, None, place=folder.path, key_type="ec", csr=None, days=None, renew=False,
                    passphrase=Passphrase(None, False))  # fmt: skip
    return run


def minted(folder: Folder) -> int:
    assert (folder.path / "ledger.jsonl").read_text().count('"device"') == len(
        list(folder.directory(DEVICE).glob("*.crt")))  # fmt: skip
    return len(list(folder.directory(DEVICE).glob("*")))


@pytest.mark.parametrize("way", [io.BytesIO, Pipe])
@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_a2_of_a_list_that_is_wrong_at_its_end_nothing_is_minted(
    folder: Folder, line: Callable[[Any], Values], way: Callable[[bytes], Any], content: bytes
) -> None:
    with pytest.raises(PkiError) as caught:
        line(way(content))
    assert caught.value.kind is Kind.REFUSED
    assert minted(folder) == 0


@pytest.mark.parametrize("way", [io.BytesIO, Pipe])
def test_a2_a_good_list_is_minted_alike_however_it_comes(
    folder: Folder, line: Callable[[Any], Values], way: Callable[[bytes], Any]
) -> None:
    done = line(way(GOOD + b"bad tag\n"))
    assert (done["minted"], done["faults"], done["errors"][0]["line"]) == (GROUP + 3, 1, GROUP + 4)
    assert minted(folder) == 2 * (GROUP + 3)


def test_a2_a_pipe_without_end_is_refused_and_keeps_no_more_than_the_limit(
    folder: Folder, line: Callable[[Any], Values], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(piped, "LONGEST", 1 << 19)
    pipe = Pipe(GOOD, endless=True)
    with pytest.raises(PkiError, match=r"longer than 524288 bytes"):
        line(pipe)
    assert pipe.given < 2 * piped.LONGEST
    assert minted(folder) == 0


def test_a2_a_pipe_that_is_wrong_from_its_beginning_is_not_waited_for(line: Callable[[Any], Values]) -> None:
    pipe = Pipe(bytes(1 << 16), endless=True)
    with pytest.raises(PkiError, match="nothing but NUL bytes"):
        line(pipe)
    assert pipe.given <= 2 * LONGEST_LINE


def test_a2_where_a_pipe_cannot_be_kept_it_is_told_where_room_is_wanted(
    folder: Folder, line: Callable[[Any], Values], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with pytest.raises(PkiError) as caught:
        line(Pipe(GOOD))
    assert (caught.value.kind, "No space left" in caught.value.detail, "TMPDIR" in caught.value.hint) == (
        Kind.CONFIGURATION, True, True)  # fmt: skip
    assert minted(folder) == 0
