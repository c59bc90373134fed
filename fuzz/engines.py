"""Three ways to look for bytes that break a law: hypothesis, which shrinks what it finds; chance, which tries a hundred
times as many; and atheris, which follows the code that an input reaches.

Invariant: each ends within their time, give or take one input; all leave what they found in a file, and say which.
Must not live here: laws (the targets).
"""

from __future__ import annotations

import hashlib
import importlib.util
import random
import subprocess
import sys
import time
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fuzz.target import MOST, Target

FOUND = Path("var") / "fuzz"
"""Where bytes that broke a law are written, and what atheris learns between runs."""
SLOW = 5
"""Seconds for one input; the worst that is known takes 0.02."""
_ROUND = 50


class Broken(Exception):
    """A law was broken; the text says by which bytes, and where they were written."""


def inputs_for(target: Target) -> st.SearchStrategy[bytes]:
    """Noise, sentences from the grammar's words, and known inputs with a few bytes changed."""
    known = target.inputs()
    words = st.sampled_from(target.words) | st.binary(max_size=4)
    sentence = st.lists(words, max_size=24).map(b"".join)

    def bent(whole: bytes, at: int, cut: int, put: bytes) -> bytes:
        at %= len(whole) + 1
        return (whole[:at] + put + whole[at + cut:])[:MOST]
    place, width = st.integers(0, MOST), st.integers(0, 12)
    once = st.builds(bent, st.sampled_from(known), place, width, sentence)
    return st.one_of(once, st.builds(bent, once, place, width, sentence), sentence, st.binary(max_size=64))


def by_hypothesis(target: Target, seconds: float, start: int) -> int:
    """How many inputs were tried. Raises Broken."""
    until, tried = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        tried += _round(target, start + tried)
    return tried


def _round(target: Target, number: int) -> int:
    smallest = [b""]

    @seed(number)
    @settings(max_examples=_ROUND, deadline=SLOW * 1000, database=None, phases=(Phase.generate, Phase.shrink),
              suppress_health_check=list(HealthCheck))
    @given(inputs_for(target))
    def law(data: bytes) -> None:
        smallest[0] = data
        target.check(data)
    try:
        law()
    except Exception as error:  # whatever it is, no law allows it
        raise Broken(_told(target, smallest[0], error)) from error
    return _ROUND


def by_chance(target: Target, seconds: float, start: int) -> int:
    """How many inputs were tried. Raises Broken."""
    until, tried, chance, known = time.monotonic() + seconds, 0, random.Random(start), target.inputs()  # noqa: S311
    while time.monotonic() < until:
        tried += 1
        data = bytearray(chance.choice(known))
        for _ in range(chance.randint(1, 6)):
            at, width = chance.randrange(len(data) + 1), chance.randint(0, 12)
            data[at:at + width] = chance.choice((b"", chance.randbytes(width), chance.choice(target.words),
                                                 bytes(data[at:at + width]) * 2, bytes(data[:width])))
        try:
            target.check(bytes(data[:MOST]))
        except Exception as error:  # whatever it is, no law allows it
            raise Broken(_told(target, bytes(data[:MOST]), error)) from error
    return tried


def _told(target: Target, data: bytes, error: Exception) -> str:
    FOUND.mkdir(parents=True, exist_ok=True)
    path = FOUND / f"{target.name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    return f"{target.name}: {type(error).__name__}: {str(error)[:300]}; bytes {data[:60]!r}, all of them in {path}"


def has_atheris() -> bool:
    return importlib.util.find_spec("atheris") is not None


def by_atheris(target: Target, seconds: float, start: int) -> str:
    """libFuzzer's last word. Raises Broken. A process of its own: it never returns, and instruments what is loaded."""
    learned = FOUND / "learned" / target.name
    learned.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.coverage", target.name, str(learned), str(target.corpus),
         f"-max_total_time={max(1, round(seconds))}", f"-seed={start + 1}", f"-max_len={MOST}", f"-timeout={SLOW}",
         "-rss_limit_mb=1024", "-print_final_stats=1", f"-artifact_prefix={FOUND}/{target.name}-"],
        capture_output=True, text=True, errors="replace", check=False, timeout=seconds + 120)
    if done.returncode:
        raise Broken(f"{target.name}: atheris ended with {done.returncode}: {_last_words(done.stdout + done.stderr)}")
    return next((line for line in done.stderr.splitlines() if "number_of_executed_units" in line), "")


def _last_words(said: str) -> str:
    telling = [line for line in said.splitlines() if "Error" in line or "Exception" in line or "written to" in line]
    return "; ".join(telling[-4:]) or said[-500:]
