"""The machine under a measurement: how its interpreter was built, and whether anybody else uses its cores.

Others on the same caches make everything dearer, and ours more than nginx: the same tree gave 1.22 times nginx on a
quiet machine and 1.57 on a busy one. So a ratio is stated where others took next to nothing, and else not at all.
The invariant: what a run itself used, and every process that it started, is never counted as others'.
Must not live here: handshakes, their figures.
"""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

QUIET = 0.10
"""Cores that others may use, on average: the kernel's own threads and a look by some timer."""
LOOK = 2.0
"""Seconds of a look at a machine on which nothing of ours runs."""
BUSY = 75
"""The exit code: what was asked for was not stated, and can be another time."""
_TICK = os.sysconf("SC_CLK_TCK")


class Moment(NamedTuple):
    """Until a moment: seconds of all cores that were used by anybody, stolen ones too, and those that were ours."""

    at: float
    used: float
    ours: float


def now(kin: Sequence[int] = ()) -> Moment:
    """`kin` are processes of ours that have left us, as a database server does that goes on by itself."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return Moment(time.monotonic(), (user + nice + system + irq + softirq + steal) / _TICK, _ours(kin) / _TICK)


def _ours(kin: Sequence[int]) -> int:
    """Ticks of this process and of all that it started, and they in turn, as long as these live."""
    parents: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        try:
            fields = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        number = int(place.name)
        parents.setdefault(int(fields[1]), []).append(number)
        ticks[number] = int(fields[11]) + int(fields[12])
    found = [os.getpid(), *kin]
    for one in found:
        found += parents.get(one, [])
    return sum(ticks.get(one, 0) for one in found)


def others(before: Moment, after: Moment) -> float:
    """Cores that were used by others than us."""
    used = after.used - before.used - (after.ours - before.ours)
    return max(0.0, used) / max(after.at - before.at, 1e-9)


def look(seconds: float = LOOK) -> float:
    """Cores that others use now."""
    before = now()
    time.sleep(seconds)
    return others(before, now())


def refusal(cores: float) -> str | None:
    """Why no ratio is stated, and what to do; None where it may be."""
    if cores <= QUIET:
        return None
    return (f"no ratio is stated: other programs took {cores:.2f} of a core, where at most {QUIET:.2f} leaves the "
            "caches alone; end them, or wait for a quiet hour, and run it again")


def interpreter() -> str:
    """Which Python this is, and how it was built: what no profile has guided is dearer by 6 % of a handshake."""
    return f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}, " \
           f"{built(str(sysconfig.get_config_var('CONFIG_ARGS') or ''), debian=_is_debians())}"


def _is_debians() -> bool:
    return sys.base_prefix == "/usr" and Path("/etc/debian_version").exists()


def built(arguments: str, *, debian: bool = False) -> str:
    """The words of `configure`, in ours. Debian's rules optimise by themselves, and its `configure` was told nothing of
    it (changelog.Debian of python3.11)."""
    if debian:
        return "as Debian builds it, with profile-guided and link-time optimisation"
    guided = "--enable-optimizations" in arguments
    linked = "--with-lto" in arguments and "--without-lto" not in arguments
    return " ".join(["built", "with" if guided else "WITHOUT", "profile-guided optimisation",
                     "and", "with" if linked else "without", "link-time optimisation"])


def preloaded() -> str:
    """The allocator of servers that inherit our environment."""
    return os.environ.get("LD_PRELOAD") or "the C library's"


def loads(many: Sequence[float] | None = None) -> str:
    return " ".join(f"{one:.1f}" for one in (many or os.getloadavg()))
