"""`make isolation`: every mode, with 1 and 16 calls at a time, on both loops. It says at the start how long that takes.

Results are kept in a file as they come: a run that was broken off goes on where it was, as long as the sources are the
same (`--fresh` begins anew). Ends with 0 where no limit is broken, with 1 where one is.
The invariant: whichever way it ends, no process of its own is left.
Must not live here: modes, limits.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import resource
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.isolation import judged
from benchmarks.isolation.attacker import ports
from benchmarks.isolation.layers import LAYERS, MODES, Kind, Layer
from benchmarks.isolation.modes import Mode
from benchmarks.isolation.stage import LOOPS, Served, Size, Stage, minted, serving
from benchmarks.isolation.window import MOST, RATE, Result, measured, of_data, warm
from benchmarks.servers import ROOT, ServerError
from pki import signals

AT_ONCE = (1, 16)
SECONDS = 0.9
TRIES = 3
"""Of a mode that breaks a limit: a machine has moods, a mode that breaks one has none."""
OVERHEAD = 0.9
"""Seconds of a mode beside its two stretches: calls that end with their budget, processes."""
DESCRIPTORS = 8192


def main(words: Sequence[str]) -> int:
    arguments = _arguments(words)
    if arguments.list:
        for mode in MODES:
            print(f"{mode}: {mode.does}")
        return 0
    if arguments.draw:
        judged.PAGE.write_text(judged.drawn(judged.PAGE.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, DESCRIPTORS), hard), hard))
    run = Run(arguments)
    try:
        with signals.first(KeyboardInterrupt()):
            results = run.run()
    except KeyboardInterrupt:
        return 130
    except (ServerError, OSError) as error:
        say(f"it could not be measured: {error}")
        return 2
    print(json.dumps(judged.told(results)) if arguments.json else "\n".join(judged.lines(results)))
    if arguments.write:
        judged.written(results, datetime.now(UTC).strftime("%Y-%m-%d"))
    return 1 if any(map(judged.broken, results)) else 0


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolation", description=(
        "Put one hostile peer of each kind beside other customers' devices, and say what those notice."))
    parser.add_argument("--layer", action="append", choices=list(LAYERS), help="only this one; can be repeated")
    parser.add_argument("--mode", action="append", metavar="NAME", help="only such, as 'key updates'")
    parser.add_argument("--at-once", action="append", type=int, metavar="N", help="calls at a time (1 and 16)")
    parser.add_argument("--loop", action="append", choices=LOOPS, help="only this one")
    parser.add_argument("--seconds", type=float, default=SECONDS, metavar="S", help=f"of each attack ({SECONDS:g})")
    parser.add_argument("--sample", type=int, metavar="N", help="one mode of each layer: the Nth, counted round")
    parser.add_argument("--tries", type=int, default=TRIES, metavar="N", help=f"of what breaks a limit ({TRIES})")
    parser.add_argument("--fresh", action="store_true", help="run again what is known")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    parser.add_argument("--write", action="store_true", help="write the figures into docs/security.md")
    parser.add_argument("--draw", action="store_true", help="draw the table of modes in docs/security.md, run nothing")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument("--dir", type=Path, default=ROOT / "var" / "isolation", metavar="DIR",
                        help="where certificates and results are kept (var/isolation)")
    return parser.parse_args(words)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def sources() -> str:
    """What the results are about."""
    digest = hashlib.sha256()
    for room in ("delegator", "pki", "benchmarks/isolation"):
        for path in sorted((ROOT / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


class Run:
    """All that is asked for, layer by layer and loop by loop."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._place: Path = arguments.dir.resolve()
        self._place.mkdir(parents=True, exist_ok=True)
        self._file = self._place / "results.jsonl"
        self._about = f"{sources()} {arguments.seconds:g}"
        self._known = {} if arguments.fresh else dict(self._kept())
        self._ports = ports()

    def _kept(self) -> Iterator[tuple[tuple[str, str, int, str], Result]]:
        if not self._file.exists():
            return
        for line in self._file.read_text().splitlines():
            data = json.loads(line)
            if data.pop("about") == self._about:
                one = of_data(data)
                yield (one.layer, one.name, one.lanes, one.loop), one

    def _keep(self, one: Result) -> None:
        with self._file.open("a") as file:
            file.write(json.dumps({"about": self._about, **one.data()}) + "\n")

    def _chosen(self) -> list[Mode]:
        arguments = self._arguments
        found = [one for one in MODES if (not arguments.layer or one.layer in arguments.layer)
                 and (not arguments.mode or one.name in arguments.mode)]
        if arguments.sample is not None:
            by_layer = {name: [one for one in found if one.layer == name] for name in LAYERS}
            found = [modes[arguments.sample % len(modes)] for modes in by_layer.values() if modes]
        return found

    def run(self) -> list[Result]:
        modes, at_once = self._chosen(), self._arguments.at_once or list(AT_ONCE)
        loops = self._arguments.loop or [loop for loop in LOOPS if importlib.util.find_spec(loop)]
        whole = [(mode, lanes, loop) for loop in loops for mode in modes for lanes in at_once]
        left = [one for one in whole if (one[0].layer, one[0].name, one[1], one[2]) not in self._known]
        seconds = len(left) * (self._arguments.seconds * 5 / 3 + OVERHEAD) + 5 * len({(m.layer, o) for m, _, o in left})
        say(f"{len(modes)} modes, {len(whole)} runs, {len(whole) - len(left)} known: about {seconds / 60:.0f} minutes")
        for loop in loops:
            for layer in LAYERS.values():
                some = [(mode, lanes) for mode, lanes, on in left if mode.layer == layer.name and on == loop]
                if some:
                    self._layer(layer, loop, some)
        return [self._known[mode.layer, mode.name, lanes, loop] for mode, lanes, loop in whole]

    def _layer(self, layer: Layer, loop: str, some: Sequence[tuple[Mode, int]]) -> None:
        seconds, stretch = self._arguments.seconds, int(self._arguments.seconds * RATE) + 1
        windows = [lanes for _, lanes in some for _ in range(self._arguments.tries)]
        most = len(windows)
        well = most * (int(seconds * MOST) + 1) + 8 if layer.kind is Kind.DELEGATE else 0
        size = Size(windows, most * 2 * stretch + stretch, well)
        stage = Stage(self._place, layer, size, self._ports)
        minted(stage)
        stage.register()
        with serving(stage, loop) as served:
            warm(stage, served, min(1.0, seconds))
            for number, (mode, lanes) in enumerate(some):
                self._mode(stage, served, mode, lanes, number * self._arguments.tries, loop)

    def _mode(self, stage: Stage, served: Served, mode: Mode, lanes: int, window: int, loop: str) -> None:
        best: Result | None = None
        for number in range(self._arguments.tries):
            one = measured(stage, served, mode, lanes, window + number, self._arguments.seconds, loop)
            best = one if best is None else judged.better(best, one)
            if not judged.broken(best):
                break
        assert best is not None
        say(list(judged.lines([best]))[1])
        self._known[mode.layer, mode.name, lanes, loop] = best
        self._keep(best)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
