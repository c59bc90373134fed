"""The benchmark runs, measures something, and leaves nothing behind. How long anything takes is no test here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures, machine

ROOT = Path(__file__).resolve().parents[1]
HANDSHAKES = 20
pytestmark = pytest.mark.slow


def run(program: str, *arguments: str, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """A benchmark's JSON document."""
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{program}", "--json", *arguments],
                          cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in codes, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def with_word(word: str) -> list[int]:
    """Processes whose command line holds a word."""
    found = []
    for each in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (each / "cmdline").read_bytes() and int(each.name) != os.getpid():
                found.append(int(each.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates are minted once for all tests here."""
    return tmp_path_factory.mktemp("benchmark")


def small(folder: Path) -> tuple[str, ...]:
    return "--handshakes", str(HANDSHAKES), "--rounds", "1", "--in-flight", "4", "--dir", str(folder)


def handshakes(folder: Path, *more: str) -> dict[str, Any]:
    """The report of `make bench`, however busy this machine is."""
    return run("handshakes", *small(folder), "--anyway", *more, codes=(0, machine.BUSY))


def test_delegator_alone_claims_durably_for_every_device(folder: Path) -> None:
    report = handshakes(folder, "--alone")
    (level,) = report["levels"]
    ours = level["figures"]["delegator"]
    assert ours["cpu_us"]["median"] > 0
    assert 1 <= ours["handshakes_per_commit"]["median"] <= 4
    assert 0 < ours["p50_ms"] <= ours["p99_ms"]
    assert (level["in_flight"], level["ratios"], report["reference"]) == (4, {}, "delegator")
    assert "profile-guided optimisation" in report["machine"]["interpreter"]
    assert "as asked" in report["remarks"][1]
    assert with_word(str(folder)) == []


@pytest.mark.counterpart("nginx", "initdb")
def test_beside_others_there_is_a_ratio(folder: Path) -> None:
    """Each of them gave every device a credential of its own, or the page of nginx."""
    report = handshakes(folder)
    (level,) = report["levels"]
    assert set(level["figures"]) == {
        "delegator", "delegator, 2 workers", "delegator, PostgreSQL", "nginx", "nginx without tickets",
        "nginx without tickets, newer OpenSSL", "uvicorn + Starlette", "aiohttp"}
    assert "OpenSSL 3.0" not in report["servers"]["nginx without tickets, newer OpenSSL"]
    assert report["reference"] == "nginx without tickets"
    assert all(ratio["plain"]["min"] > 0 for ratio in level["ratios"].values())
    assert bool(level["ratios"]) != bool(report["refused"])
    assert set(level["ratios"]) in (set(level["figures"]) - {"nginx without tickets"}, set())
    assert level["figures"]["nginx"]["handshakes_per_commit"] is None
    assert with_word(str(folder)) == []


def test_pieces_have_names_and_costs(folder: Path) -> None:
    pieces = run("pieces", "--devices", "64", "--dir", str(folder))
    assert all(cost >= 0 for cost in pieces.values())
    assert any(name.startswith("TLS") for name in pieces)


def test_a4_an_import_is_measured_beside_devices_that_ask(folder: Path) -> None:
    report = run("importing", "--rows", "2000", "--rounds", "1", "--dir", str(folder / "importing"))
    for kind in ("series", "random"):
        (measured,) = report[kind]
        assert measured["cpu_s"] > 0
        assert 0 < measured["peak_mib"] <= 300
        assert measured["answers_beside"] > 0
    assert with_word(str(folder / "importing")) == []


def test_what_an_idle_peer_holds_is_bounded(folder: Path) -> None:
    (measured,) = run("held", "--count", "1000", "--rounds", "1", "--dir", str(folder / "held"))
    assert 0 < measured["silent_kib"] < 4
    assert 0 < measured["held_kib"] < 60
    assert with_word(str(folder / "held")) == []


def test_cost_is_told_for_few_and_for_many(folder: Path) -> None:
    report = run("flat", "--devices", "2000", "--audit", "1000", "--rounds", "2", "--dir", str(folder / "flat"))
    assert {name for name in report if "÷" in name} == {
        "100000 revoked ÷ nobody", *(f"{kind} ÷ few, {what}" for kind in ("many", "audit")
                                     for what in ("look-up", "claim", "both"))}


def test_every_device_of_a_crowd_ends_somehow(folder: Path) -> None:
    (measured,) = run("overload", "--rounds", "1", "--devices", "700", "--burst", "100", "--seconds", "1",
                      "--dir", str(folder / "crowd"))
    assert sum(measured["burst, outcomes"].values()) == 100
    assert measured["burst, outcomes"]["answered"] == 100
    assert measured["three times, outcomes"].get("other", 0) == 0
    assert with_word(str(folder / "crowd")) == []


@pytest.mark.parametrize("load", [(), ("--rate", "40")], ids=["so many in flight", "so many a second"])
def test_two_workers_are_measured_beside_one(folder: Path, load: tuple[str, ...]) -> None:
    report = run("scaling", *small(folder / "scaling"), *load)
    told = ("one, us", "two, us", "one, a second", "two, a second", "two ÷ one")
    assert all(float(str(report[name]).split()[0]) > 0 for name in told)
    assert with_word(str(folder / "scaling")) == []


def test_two_workers_are_measured_with_as_many_devices_each(folder: Path) -> None:
    report = run("crowds", *small(folder / "crowds"))
    told = {f"{workers}, {many} in flight{what}" for workers, many in (
        ("1 worker", 4), ("1 worker", 2), ("2 workers", 4), ("2 workers", 8)) for what in (", us", " ÷ first")}
    assert report.keys() == told | {"load average"}
    assert with_word(str(folder / "crowds")) == []


def test_a_run_that_is_stopped_ends_its_servers(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "handshakes.py"), "--rounds", "50", "--handshakes", "20",
               "--dir", str(folder / "stopped"), "--alone", "--anyway"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while not (line := process.stderr.readline()).startswith("round"):
            assert line, "ended before its first round"
        process.send_signal(signal.SIGINT)
        words = process.communicate(timeout=30)[1]
    assert process.returncode == 130, words
    assert words.endswith("stopped\n")
    assert with_word(str(folder / "stopped")) == []


def test_a_count_of_nothing_is_refused(folder: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks.handshakes", "--rounds", "0"],
                          cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "at least 1" in done.stderr


def test_a_ratio_is_taken_within_pairs_and_steadied_by_the_client() -> None:
    def one(cpu: float, client: float) -> figures.Round:
        return figures.Round([0.01], 1.0, cpu, client)
    ratio = figures.ratio([one(2, 1), one(6, 3), one(3, 1)], [one(1, 1), one(3, 3), one(1, 1)])
    assert (ratio.plain.min, ratio.plain.median, ratio.plain.max) == (2, 2, 3)
    assert ratio.steadied.median == 2


def test_figures_pool_latencies_and_count_commits() -> None:
    rounds = [figures.Round([0.001, 0.003], 0.5, 0.002, 0.001, 0.05, commits=1),
              figures.Round([0.002, 0.100], 0.25, 0.004, 0.001, 0.0, commits=2)]
    told = figures.figures(rounds, (10, 12))
    assert (told.p50_ms, told.p99_ms) == (3, 100)
    assert told.per_second.median == 6
    assert told.kept_waiting == figures.Spread(0, 0.05, 0.1)
    assert told.handshakes_per_commit == figures.Spread(1, 1.5, 2)


def test_a_soak_samples_a_delegator_among_faults_and_says_whether_it_stayed_as_it_was(folder: Path) -> None:
    """Whether it is flat in a few seconds says nothing; that all faults ended as they should does."""
    done = subprocess.run([sys.executable, "-m", "benchmarks.soak", "--json", "--devices", "60",
                           "--dir", str(folder / "soak")],
                          cwd=ROOT, capture_output=True, text=True, timeout=200, check=False,
                          env={**os.environ, "SOAK_SECONDS": "6"})
    assert done.returncode in (0, 5), done.stderr
    report = json.loads(done.stdout)
    assert report["wrong"] == []
    assert {"be slow", "be nobody", "be noise", "be stranger", "ask absent"} <= set(report["troubles"])
    assert len(report["samples"]) == 60
    assert all(sample["answered"] and sample["resident"] and sample["descriptors"] for sample in report["samples"])
    assert with_word(str(folder / "soak")) == []


@pytest.mark.counterpart("nginx")
def test_a_whole_device_is_measured_in_each_way(folder: Path) -> None:
    """Each device was served, confirmed and told of; on one connection it costs less than on two."""
    table = run("whole_device", "--devices", "20", "--rounds", "1", "--in-flight", "4", "--dir", str(folder))
    assert set(table) == {f"{kind} {how}" for kind in ("hosted", "by SOAP", "nginx")
                          for how in ("one connection", "two connections")}
    assert all(row["cpu_us"]["min"] > 0 for row in table.values())
    assert table["nginx two connections"]["ratio"]["median"] == 1
    assert 0 < table["hosted one connection"]["commits"]["median"] <= 2
    assert table["nginx one connection"]["commits"] is None
    assert with_word(str(folder)) == []


def test_of_a_busy_machine_no_ratio_is_stated(folder: Path) -> None:
    """Told before anything is measured, with what to do, and by a code of its own."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            done = subprocess.run([sys.executable, "-m", "benchmarks.handshakes", *small(folder)],
                                  cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        finally:
            busy.kill()
    assert (done.returncode, done.stdout) == (75, "")
    assert "no ratio is stated: other programs took" in done.stderr
    assert "--anyway" in done.stderr
