"""What a benchmark says of its machine: quiet or busy, and how its Python was built."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import command, machine
from benchmarks.machine import QUIET, Moment, built, interpreter, others, refusal


def test_what_is_ours_is_not_others() -> None:
    before = Moment(10.0, 100.0, 5.0)
    assert others(before, Moment(20.0, 115.0, 19.0)) == pytest.approx(0.1)
    assert others(before, Moment(20.0, 115.0, 21.0)) == 0, "ticks are coarse"


def test_whom_we_started_is_ours() -> None:
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as busy:
        try:
            before, begin = machine.now(), time.monotonic()
            time.sleep(0.3)
            after = machine.now()
        finally:
            busy.kill()
    took = (after.ours - before.ours) / (time.monotonic() - begin)
    assert 0 < took < 2, "of a core, or less where others have it"


@pytest.mark.parametrize("cores", [0.0, QUIET])
def test_a_quiet_machine_has_ratios(cores: float) -> None:
    assert refusal(cores) is None


def test_a_busy_one_is_told_why_and_what_to_do() -> None:
    words = refusal(QUIET + 0.01)
    assert words is not None
    assert "other programs took 0.11 of a core" in words
    assert "run it again" in words


@pytest.mark.parametrize(("arguments", "words"), [
    ("'--enable-optimizations' '--with-lto'", "built with profile-guided optimisation and with link-time optimisation"),
    ("'--prefix=/x'", "built WITHOUT profile-guided optimisation and without link-time optimisation"),
    ("'--enable-optimizations' '--without-lto'",
     "built with profile-guided optimisation and without link-time optimisation")])
def test_how_a_python_was_built(arguments: str, words: str) -> None:
    assert built(arguments) == words


def test_debians_own_is_optimised_although_its_configure_was_not_told() -> None:
    assert "with profile-guided and link-time" in built("'--enable-shared' '--prefix=/usr'", debian=True)


@pytest.mark.skipif(not Path("/usr/bin/python3.11").exists(), reason="no Python of Debian's here")
def test_debians_own_is_told_as_debians() -> None:
    done = subprocess.run(["/usr/bin/python3.11", "-c", "from benchmarks import machine; print(machine.interpreter())"],
                          cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True)
    assert "as Debian builds it" in done.stdout


def test_this_one_is_named() -> None:
    assert sys.executable in interpreter()
    assert "profile-guided" in interpreter()


def test_an_allocator_that_is_not_there_is_not_measured_under_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command._arguments(["--preload", "libnone.so.9"])
    assert "libnone.so.9" in capsys.readouterr().err
