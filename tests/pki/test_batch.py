"""A2: a list of tags becomes a folder of certificates, a line at a time, resumable, duplicates and faults told."""

from __future__ import annotations

import contextlib
import gc
import io
import itertools
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from pki import DEVICE, Folder, PkiError, disk
from pki.batch import GROUP, Line, Row, RowFault, Tally, rows
from pki.tables import LONGEST_LINE

ROOT = Path(__file__).parents[2]


def read(text: str) -> list[Row | RowFault]:
    return list(rows(io.BytesIO(text.encode())))


def tags(text: str) -> list[tuple[int, str]]:
    return [(row.line, row.tag) for row in read(text) if isinstance(row, Row)]


@pytest.mark.parametrize(
    "text",
    ["ABC1234\nXYZ9999\n", "service_tag\nABC1234\nXYZ9999",
     "model,service_tag,mac\nR7,ABC1234,00:11\nR7,XYZ9999,00:12\n",
     '"Service_Tag";"model"\r\n"ABC1234";"R7"\r\n"XYZ9999";"a;b"\r\n',
     "\ufeffservice_tag\nABC1234\n\n\n  XYZ9999  \n",
     "\ufeffABC1234\nXYZ9999\n", "service_tag\tmodel\nABC1234\tR7\nXYZ9999\tR8\n"],
)  # fmt: skip
def test_a2_tags_are_read_from_a_column_or_one_a_line(text: str) -> None:
    assert [tag for _, tag in tags(text)] == ["ABC1234", "XYZ9999"]


def test_a2_a_bad_line_is_told_with_its_number_and_spoils_no_other() -> None:
    text = 'service_tag,model\nABC1234,R7\nabc,R7\nun"closed,R7\nR7\n,R7\nXYZ9999,R7\n'
    found = read(text)
    assert tags(text) == [(2, "ABC1234"), (7, "XYZ9999")]
    assert [row.line for row in found if isinstance(row, RowFault)] == [3, 4, 5, 6]
    assert str(found[1]).startswith("line 3: 'abc' is not a valid service tag")


def test_a2_columns_without_a_heading_are_not_guessed() -> None:
    """A2: the first of two nameless columns might be the model, and be minted ten thousand times."""
    with pytest.raises(PkiError, match="line 1: no header with a column service_tag"):
        read("POWER1,ABC1234\nPOWER1,XYZ9999\n")


def test_a2_an_endless_line_ends_it_and_costs_no_memory() -> None:
    with pytest.raises(PkiError, match="line 1 is longer than"):
        read("A" * (2 * LONGEST_LINE) + "\nABC1234\n")


@pytest.mark.parametrize("text", ["\ufffd\ufffd\n", "ABC 1234\n", '"ABC1234\n', "\x01\n"])
def test_a2_rubbish_is_a_fault(text: str) -> None:
    (found,) = read(text)
    assert isinstance(found, RowFault)
    assert str(found).isascii()


@pytest.fixture
def line(folder: Folder) -> Callable[..., Line]:
    place = disk.make_folder(folder.directory(DEVICE))
    return lambda **options: Line(folder, folder.authority(), place, **options)


def numbered(count: int, start: int = 0) -> Iterator[Row]:
    return (Row(number + 1, f"TAG{number:05}") for number in range(start, start + count))


def serials(folder: Folder) -> list[str]:
    return [entry.serial for entry in folder.ledger if entry.profile == "device"]


def test_a2_every_tag_gets_a_pair_and_a_ledger_line(folder: Folder, line: Callable[..., Line]) -> None:
    count = GROUP + 3
    assert line().run(numbered(count)) == Tally(minted=count)
    place = folder.directory(DEVICE)
    assert len(list(place.glob("*.crt"))) == len(list(place.glob("*.key"))) == count
    made = {f"{x509.load_pem_x509_certificate(path.read_bytes()).serial_number:040x}" for path in place.glob("*.crt")}
    assert made == {serial.zfill(40) for serial in serials(folder)}
    assert len(serials(folder)) == count


def test_a2_a_second_run_skips_what_is_there(folder: Folder, line: Callable[..., Line]) -> None:
    line().run(numbered(10))
    before = {path: path.read_bytes() for path in folder.directory(DEVICE).iterdir()}
    assert line().run(numbered(15)) == Tally(minted=5, skipped=10)
    assert {path: path.read_bytes() for path in before} == before
    assert len(serials(folder)) == 15


def test_a2_duplicates_are_minted_once_and_name_both_lines(line: Callable[..., Line]) -> None:
    faults: list[RowFault | None] = []
    source = [Row(2, "ABC1234"), Row(3, "XYZ9999"), Row(9, "ABC1234")]
    tally = line(watch=lambda tally, fault: faults.append(fault)).run(source)
    assert tally == Tally(minted=2, duplicates=1, faults=1)
    assert str(faults[-1]) == "line 9: ABC1234 stands on line 2 already; it was minted once"


def test_a2_stopping_publishes_the_group_in_work(folder: Folder, line: Callable[..., Line]) -> None:
    calls = itertools.count()
    tally = line(stop=lambda: next(calls) >= 7).run(numbered(100))
    assert tally == Tally(minted=7, stopped=True)
    assert len(list(folder.directory(DEVICE).glob("*.crt"))) == 7


@pytest.mark.parametrize("step", ["settle", "publish"])
@pytest.mark.parametrize("call", [1, 2, 5])
def test_a2_a_crash_anywhere_leaves_only_ledgered_files_and_the_rerun_finishes(
    folder: Folder, line: Callable[..., Line], monkeypatch: pytest.MonkeyPatch, step: str, call: int
) -> None:
    real, calls = getattr(disk.Staging, step), itertools.count(1)

    def dying(*arguments: object) -> object:
        if next(calls) == call:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(disk.Staging, step, dying)
        with contextlib.suppress(KeyboardInterrupt):
            line().run(numbered(2 * GROUP))
    place = folder.directory(DEVICE)
    left = {path: path.read_bytes() for path in place.glob("TAG*")}
    tally = line().run(numbered(2 * GROUP))
    assert tally.minted + tally.skipped == 2 * GROUP
    assert {path: path.read_bytes() for path in left} == left
    known = {entry.fingerprint for entry in folder.ledger}
    for path in place.glob("*.crt"):
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        assert certificate.fingerprint(hashes.SHA256()).hex() in known
        assert path.with_suffix(".key").exists()


def test_a2_files_can_go_to_another_private_folder(folder: Folder, tmp_path: Path) -> None:
    place = disk.make_folder(tmp_path / "line-7")
    Line(folder, folder.authority(), place).run(numbered(3))
    assert len(list(place.glob("*.crt"))) == 3
    assert not folder.directory(DEVICE).exists()
    assert len(serials(folder)) == 3


def held() -> int:
    """Bytes that are held for what our code and cryptography made, but for the table of attributes looked up, whose
    4096 slots keep a name each ("utcoffset", made anew for each certificate) by where in memory it lay: that one is why
    the same run held 190 to 360 bytes a device. What other threads of the test run make meanwhile is not counted."""
    getattr(sys, "_clear_internal_caches" if sys.version_info >= (3, 13) else "_clear_type_cache")()
    gc.collect()
    ours = [tracemalloc.Filter(True, str(ROOT / "pki" / "*")), tracemalloc.Filter(True, "*/cryptography/*")]
    return sum(each.size for each in tracemalloc.take_snapshot().filter_traces(ours).statistics("filename"))


def test_a2_memory_does_not_grow_with_the_number_of_devices(line: Callable[..., Line]) -> None:
    """A2: four times the devices may cost only next to nothing, 26 bytes each (measured); a held certificate
    costs 600."""
    few, many = GROUP - 1, 4 * GROUP - 1
    seen: dict[int, int] = {}

    def watch(tally: Tally, fault: RowFault | None) -> None:
        if tally.minted in (few, many):
            seen[tally.minted] = held()

    tracemalloc.start()
    try:
        line(watch=watch).run(numbered(many))
    finally:
        tracemalloc.stop()
    assert (seen[many] - seen[few]) / (many - few) < 150


@pytest.mark.slow
def test_a2_ten_thousand_devices_stream_through_little_memory(folder: Folder) -> None:
    """A2: measured from outside, because the libraries' own memory does not show inside Python."""
    script = (
        "import atexit, resource, sys\n"
        "from pki.__main__ import main\n"
        "peak = lambda: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
        "atexit.register(peak)\n"
        "main(sys.argv[1:])"
    )

    def kibibytes(count: int) -> int:
        tags = "".join(f"TAG{number:05}\n" for number in range(count))
        command = [sys.executable, "-c", script, "device", "--from", "-", "--dir", str(folder.path)]
        done = subprocess.run(command, input=tags, capture_output=True, text=True, check=True, cwd=ROOT)
        return int(done.stderr.splitlines()[-1])

    small = kibibytes(100)
    assert kibibytes(10_000) - small < 8 * 1024
    known = serials(folder)
    assert len(set(known)) == len(known) == 10_000
    assert len(list(folder.directory(DEVICE).glob("*.crt"))) == 10_000
