"""`python -m fuzz`: all targets, each for its share of the time; ends with 1 when a law was broken.

Usage: python -m fuzz [--seconds 60] [--target NAME]... [--engine both|atheris|hypothesis] [--list | --keep]
"""

from __future__ import annotations

import argparse
import sys
import time

from fuzz import engines
from fuzz.engines import Broken
from fuzz.keeping import keep
from fuzz.table import TARGETS
from fuzz.target import Target

SHORT = 3.0
"""Seconds for a target below which atheris, which takes one to start, is left away."""


def main() -> int:
    words = argparse.ArgumentParser(prog="python -m fuzz", description="Look for bytes that break a law.",
                                    epilog="example: python -m fuzz --seconds 600 --target xml")
    words.add_argument("--seconds", type=float, default=60.0, help="for all targets together (60)")
    words.add_argument("--target", action="append", choices=sorted(TARGETS), help="these alone")
    words.add_argument("--engine", choices=("both", "atheris", "hypothesis"), default="both")
    words.add_argument("--seed", type=int, default=int(time.time()), help="to repeat a run; else the clock's")
    words.add_argument("--list", action="store_true", help="say what each target promises")
    words.add_argument("--keep", action="store_true", help="add to the corpus what atheris learned in earlier runs")
    said = words.parse_args()
    wanted = [TARGETS[name] for name in said.target or TARGETS]
    if said.list:
        print("\n".join(f"{target.name:<12} {target.law}" for target in wanted))
        return 0
    if said.keep:
        print("\n".join(f"{target.name:<12} {keep(target)} more are kept" for target in wanted))
        return 0
    return 1 if broken(wanted, said.seconds / len(wanted), said.engine, said.seed) else 0


def broken(targets: list[Target], seconds: float, engine: str, seed: int) -> int:
    """How many laws were broken; each is told on standard error."""
    follow = engine != "hypothesis" and engines.has_atheris() and (seconds >= SHORT or engine == "atheris")
    if engine != "hypothesis" and not follow:
        why = "is left away in so short a run" if engines.has_atheris() else "is not installed: make tools"
        print(f"atheris {why}; hypothesis and chance alone", file=sys.stderr)
    found = 0
    for target in targets:
        try:
            print(f"{target.name:<12} {looked_at(target, seconds, follow, engine, seed)}", file=sys.stderr)
        except Broken as error:
            found += 1
            print(f"BROKEN {error}\n  next: mend it, then keep the bytes in fuzz/corpus/{target.name}/ (seed {seed})",
                  file=sys.stderr)
    return found


def looked_at(target: Target, seconds: float, follow: bool, engine: str, seed: int) -> str:
    """What was done, in words. Raises Broken."""
    for data in target.inputs():
        target.check(data)
    told = [f"{len(target.inputs())} kept"]
    if engine != "atheris":
        share = seconds / (4 if follow else 2)
        told.append(f"{engines.by_hypothesis(target, share, seed)} by hypothesis")
        told.append(f"{engines.by_chance(target, share, seed)} by chance")
    if follow:
        stats = engines.by_atheris(target, seconds / (1 if engine == "atheris" else 2), seed)
        told.append(f"{stats.rpartition(' ')[2] or 'some'} by atheris")
    return ", ".join(told)


if __name__ == "__main__":
    sys.exit(main())
