"""Do the quick tests see it? `make mutants [ARGS="--module policy --all"]`: faults are put in, and must be seen.

A fixed seed chooses among all faults of the modules in `sites.MODULES`; each is run against the quick tests that
reach its line, the likeliest first, until one fails. The faults of faults.toml have names and are always run. Ends
with 0 where at least 95 in 100 were seen, each survivor has its reason in survivors.toml, and all named ones were seen.
The invariant: without a fault every test passes, which is tried before and between.
Must not live here: what the faults are (operators, sql), how they are run (pool, inside).
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import json
import marshal
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from types import CodeType
from typing import Any

from scripts.mutants import ledger, pool, sites
from scripts.mutants.inside import Job, Outcome, exchanges
from scripts.mutants.ledger import HUNG, KILLED, SURVIVED, UNREACHED, Fault, Ledger, Result
from scripts.mutants.reaching import Reach, Test
from scripts.mutants.sites import MODULES, ROOT, Mutation, Place, path_of

SEED, COUNT, WANTED = 20260101, 1000, 0.95
CONTROLS = 10
"""Runs without any fault between the others: all must pass."""
FIRST, MORE = 10, 60
"""How many tests a cold process is given at first, and until then."""
PLACE = ROOT / ".mutants"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# --- one fault ----------------------------------------------------------------------------------------------------


class Runner:
    """Runs faults on one warm and one cold worker; `seen` counts which tests saw faults of which function."""

    def __init__(self, warm: pool.Worker, cold: pool.Worker, seen: Counter[tuple[str, str]]) -> None:
        self._warm, self._cold, self._seen = warm, cold, seen

    def run(self, module: str, function: str, after: CodeType, tests: Sequence[Test],
            most: int | None = None) -> Outcome:
        """The tests that saw most in that function first, then the laboratory's and those that are written about the
        module, then the quickest; `most` of them, where that is said."""
        about = f"/test_{module.rpartition('.')[2]}"
        order = sorted(tests, key=lambda one: (-self._seen[function, one.name], about not in one.file and
                                               not one.file.startswith("tests/lab/"), one.seconds))[:most]
        before = compile(path_of(module).read_text(encoding="utf-8"), str(path_of(module)), "exec")
        job = Job(module, marshal.dumps(before), marshal.dumps(after),
                  tuple((one.name, one.seconds) for one in order), "")
        outcome = self._anew(job) if exchanges(before, after) is None else self._warm.do(job)
        outcome = self._anew(job) if outcome.unplaced else outcome
        if outcome.by is not None:
            self._seen[function, outcome.by] += 1
        return outcome

    def _anew(self, job: Job) -> Outcome:
        """In a process that collects for itself: the likeliest tests by themselves, as to collect all files of a module
        takes 15 s (measured)."""
        outcome, seconds = Outcome(None), 0.0
        for tests in filter(None, (job.tests[:FIRST], job.tests[FIRST:MORE], job.tests[MORE:])):
            outcome = self._cold.do(replace(job, tests=tests))
            seconds += outcome.seconds
            if outcome.by is not None:
                break
        return replace(outcome, seconds=seconds)

    def remember(self, function: str, test: str) -> None:
        """A test that saw a fault of a function in a run before; all runners know it."""
        self._seen[function, test] += 1

    def control(self, tests: Sequence[Test]) -> Outcome:
        """The same without a fault."""
        return self._warm.do(Job("", b"", b"", tuple((one.name, one.seconds) for one in tests), ""))

    def record(self, names: Sequence[str], files: dict[str, str]) -> Outcome:
        return self._warm.do(Job("", b"", b"", tuple((name, 0.0) for name in names), "", record=files))


def mutant(runner: Runner, mutation: Mutation, tests: Sequence[Test], most: int | None = None) -> Result:
    holds = ledger.holds(mutation.module, ledger.files_of(tests))
    if not tests:
        return Result(UNREACHED, "", 0, 0, holds)
    try:
        after = compile(mutation.tree(), str(path_of(mutation.module)), "exec")
    except SyntaxError as error:
        return Result(KILLED, f"no Python: {error.msg}", 0, 0, ledger.holds(mutation.module, []))
    outcome = runner.run(mutation.module, mutation.place.function, after, tests, most)
    if outcome.by is None:
        return Result(SURVIVED, "", outcome.seconds, len(tests), holds)
    holds = ledger.holds(mutation.module, [outcome.by.partition("::")[0]])
    return Result(HUNG if outcome.hung else KILLED, outcome.by, outcome.seconds, len(tests), holds)


def named(runner: Runner, fault: Fault, reach: Reach) -> Result:
    source, path = fault.source(), path_of(fault.module)
    after = compile(source, str(path), "exec")
    before = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    place = Place(fault.name, *fault.lines, at_import=exchanges(before, after) is None)
    tests = reach.reaching(fault.module, place)
    if not tests:
        return Result(UNREACHED, "", 0, 0, "")
    outcome = runner.run(fault.module, fault.name, after, tests)
    return Result(SURVIVED if outcome.by is None else HUNG if outcome.hung else KILLED, outcome.by or "",
                  outcome.seconds, len(tests), "")


# --- all of them --------------------------------------------------------------------------------------------------


def shared_out(runners: Sequence[Runner], works: Iterable[Callable[[Runner], None]]) -> None:
    """Each runner takes the next piece of work. What one raises is raised here, once all have stopped."""
    waiting: queue.SimpleQueue[Callable[[Runner], None]] = queue.SimpleQueue()
    for work in works:
        waiting.put(work)
    raised: list[BaseException] = []

    def serve(runner: Runner) -> None:
        while not raised:
            try:
                work = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                work(runner)
            except BaseException as error:
                raised.append(error)
    threads = [threading.Thread(target=serve, args=(one,), daemon=True) for one in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


def recorded(runners: Sequence[Runner], names: Sequence[str], modules: Iterable[str]) -> Reach:
    """Which tests run which lines, up to date."""
    files = {module: str(path_of(module)) for module in modules}
    reach = Reach(PLACE / "reach.json", files)
    stale = reach.stale(names)
    lock = threading.Lock()

    def of_file(file: str, tests: list[str]) -> Callable[[Runner], None]:
        def work(runner: Runner) -> None:
            outcome = runner.record(tests, files)
            with lock:
                reach.keep(file, outcome.recorded)
                say(f"recorded {file} ({len(tests)} tests, {outcome.seconds:.1f} s)")
                if outcome.by is not None:
                    say(f"left out, as they fail without any fault: {outcome.by}")
        return work
    shared_out(runners, [of_file(*one) for one in stale.items()])
    reach.read()
    return reach


def chosen(arguments: argparse.Namespace) -> list[Mutation]:
    """All faults of the modules, or so many of all modules' by the seed; of those only the ones of `--module`."""
    found = [one for module in MODULES for one in sites.mutations(module, vars(importlib.import_module(module)))]
    say(f"{len(found)} faults can be made in {len(MODULES)} modules")
    if not arguments.all:
        found = sorted(found, key=lambda one: hashlib.sha256(f"{arguments.seed} {one.key}".encode()).digest())
        found = found[:arguments.count]
    return [one for one in found if not arguments.module or any(
        one.module.endswith("." + name) for name in arguments.module)]


def run_all(runners: Sequence[Runner], wanted: Sequence[Mutation], reach: Reach,
            kept: Ledger) -> list[tuple[Mutation, Result]]:
    """Every fault's result, the known ones first; controls in between. What the likeliest tests do not see waits to
    the end for all others, so that a run that is broken off has found what it could."""
    results: list[tuple[Mutation, Result]] = []
    waiting: list[tuple[Mutation, list[Test]]] = []
    for mutation in wanted:
        tests = reach.reaching(mutation.module, mutation.place)
        known = kept.of(mutation, tests)
        if known is None:
            waiting.append((mutation, tests))
        else:
            results.append((mutation, known))
            if known.red:
                runners[0].remember(mutation.place.function, known.by)
    say(f"{len(results)} results are known, {len(waiting)} faults to run")
    lock, began, done = threading.Lock(), time.monotonic(), Counter[str]()
    later: list[tuple[Mutation, list[Test]]] = []

    def of(number: int, mutation: Mutation, tests: list[Test], most: int | None) -> Callable[[Runner], None]:
        def work(runner: Runner) -> None:
            if number % max(1, len(waiting) // CONTROLS) == 0 and tests:
                seen = runner.control(tests[:60]).by
                if seen is not None:
                    raise SystemExit(f"{seen} fails without any fault: nothing can be said")
            result = mutant(runner, mutation, tests, most)
            with lock:
                if result.status == SURVIVED and most is not None and len(tests) > most:
                    later.append((mutation, tests))
                    return
                kept.keep(mutation, result)
                results.append((mutation, result))
                done[result.status] += 1
                if not result.red:
                    say(f"{result.status} ({result.tests} tests, {result.seconds:.1f} s): {mutation.words}"
                        f"  [{mutation.key}]")
                if done.total() % 50 == 0:
                    say(f"{done.total()} of {len(waiting)} in {time.monotonic() - began:.0f} s: {dict(done)}")
        return work
    shared_out(runners, [of(number, *one, MORE) for number, one in enumerate(waiting)])
    say(f"{len(later)} were not seen by the likeliest tests: now all others")
    shared_out(runners, [of(number, *one, None) for number, one in enumerate(later)])
    return results


def run_named(runners: Sequence[Runner], reach: Reach) -> dict[str, Result]:
    results: dict[str, Result] = {}

    def of(fault: Fault) -> Callable[[Runner], None]:
        def work(runner: Runner) -> None:
            results[fault.name] = result = named(runner, fault, reach)
            if not result.red:
                say(f"NOT SEEN ({result.tests} tests): {fault.name}")
        return work
    known = ledger.faults()
    shared_out(runners, [of(fault) for fault in known])
    return {fault.name: results[fault.name] for fault in known}


# --- the report ---------------------------------------------------------------------------------------------------


def report(results: Sequence[tuple[Mutation, Result]], faults: dict[str, Result], complete: bool) -> dict[str, Any]:
    """Everything as plain data. Reasons that nothing needs are told only where all of the sample was run."""
    why = ledger.reasons()
    left = [(mutation, result) for mutation, result in results if not result.red]
    by_module = {module: Counter(result.status for mutation, result in results if mutation.module == module)
                 for module in MODULES}
    red = len(results) - len(left)
    return {
        "faults": len(results), "seen": red, "of_those_hung": sum(one.status == HUNG for _, one in results),
        "rate": round(red / len(results), 4) if results else None,
        "equivalent": sum(one.key in why and why[one.key].equivalent for one, _ in left),
        "modules": {module: dict(counts) for module, counts in by_module.items() if counts},
        "survivors": [{"key": one.key, "what": one.words, "tests": result.tests,
                       "why": why[one.key].why if one.key in why else None} for one, result in left],
        "new_survivors": [one.key for one, _ in left if one.key not in why],
        "needless_reasons": sorted(set(why) - {one.key for one, _ in left}) if complete else [],
        "named": {name: result.status for name, result in faults.items()},
        "named_not_seen": [name for name, result in faults.items() if not result.red]}


def is_good(data: dict[str, Any]) -> bool:
    """Enough was seen, each survivor has a reason, each reason a survivor, and each fault with a name was seen."""
    if data["new_survivors"] or data["needless_reasons"] or data["named_not_seen"]:
        return False
    return data["rate"] is None or data["rate"] >= WANTED


def told(data: dict[str, Any]) -> str:
    lines = [f"{data['seen']} of {data['faults']} faults were seen ({100 * (data['rate'] or 0):.1f} %), "
             f"{len(data['survivors'])} were not: {data['equivalent']} change nothing, {len(data['new_survivors'])} "
             "have no reason yet",
             f"{len(data['named']) - len(data['named_not_seen'])} of {len(data['named'])} named faults were seen"]
    lines += [f"  {module}: {counts}" for module, counts in data["modules"].items()]
    lines += [f'[[survivor]]\nkey = "{one["key"]}"\nwhat = {json.dumps(one["what"])}\nequivalent = false\nwhy = ""'
              for one in data["survivors"] if one["why"] is None]
    lines += [f"not seen: {name}" for name in data["named_not_seen"]]
    lines += [f"a reason for nothing: {key}" for key in data["needless_reasons"]]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.mutants",
                                     description="Put faults in, and see whether the quick tests see them.")
    parser.add_argument("--module", action="append", metavar="NAME", help="only of this one, such as policy")
    parser.add_argument("--seed", type=int, default=SEED, metavar="N", help=f"which faults are chosen ({SEED})")
    parser.add_argument("--count", type=int, default=COUNT, metavar="N", help=f"how many of all modules' ({COUNT})")
    parser.add_argument("--all", action="store_true", help="all there are")
    parser.add_argument("--named", action="store_true", help="only the faults that have a name")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="at once")
    parser.add_argument("--fresh", action="store_true", help="run again what is known")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    arguments = parser.parse_args()
    PLACE.mkdir(exist_ok=True)
    os.chdir(ROOT)
    if arguments.fresh:
        (PLACE / "results.jsonl").unlink(missing_ok=True)
    _load_what_is_not_ours()
    cold = [pool.cold() for _ in range(arguments.workers)]
    warm = pool.warm(arguments.workers)
    say("collecting the quick tests")
    names, *_ = [worker.ready() for worker in (*warm, *cold)]
    if not names:
        raise SystemExit("no test was collected")
    seen: Counter[tuple[str, str]] = Counter()
    runners = [Runner(*pair, seen) for pair in zip(warm, cold, strict=True)]
    modules = dict.fromkeys([*MODULES, *(fault.module for fault in ledger.faults())])
    reach = recorded(runners, names, modules)
    faults = run_named(runners, reach)
    wanted = [] if arguments.named else chosen(arguments)
    results = run_all(runners, wanted, reach, Ledger(PLACE / "results.jsonl"))
    usual = (arguments.seed, arguments.count) == (SEED, COUNT) and not arguments.all
    data = {"seed": arguments.seed, **report(results, faults, usual and not arguments.module and not arguments.named)}
    print(json.dumps(data, indent=1) if arguments.json else told(data))
    return 0 if is_good(data) else 1


def _load_what_is_not_ours() -> None:
    """Once for all processes; nothing of ours but what tells OpenSSL its settings before it is loaded."""
    from delegator import engine

    engine.load()
    sys.dont_write_bytecode = False  # each process of those that import for themselves would compile all of it anew
    for name in ("hypothesis", "pytest_asyncio.plugin", "OpenSSL.SSL", "lxml.etree", "httptools", "prometheus_client",
                 "aiosqlite", "msgspec.json", "click", "dns.asyncresolver", "publicsuffixlist", "service_identity",
                 "cryptography.x509", "asyncssh", "aiosmtplib", "asyncpg", "sqlite3"):
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


if __name__ == "__main__":
    sys.exit(main())
