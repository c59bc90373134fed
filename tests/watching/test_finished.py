"""Finished handshakes are told a moment later and together, and nobody who looks or ends sees a gap."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
import time
from collections.abc import Iterator

import pytest

from delegator.trail import CONNECTION, Step, Trail
from delegator.watching import finished, logs
from delegator.watching.finished import MOST, Finished
from delegator.watching.metrics import Metrics

log = logging.getLogger("delegator.somebody")


class Paper(io.StringIO):
    """A stream that counts how often it is written to; `torn` takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.writes, self.torn = 0, False

    def write(self, text: str) -> int:
        if self.torn:
            raise OSError("no space left")
        self.writes += 1
        return super().write(text)

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    @property
    def said(self) -> list[object]:
        """The outcomes of handshakes, and the words of all else, in order."""
        return [line.get("outcome", line["event"]) for line in self.lines]


@pytest.fixture
def paper() -> Iterator[Paper]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    paper = Paper()
    logs.configure("info", True, paper)
    yield paper
    root.handlers[:] = handlers
    root.setLevel(level)


def ended(outcome: str = "Answered", at: int = 0) -> Trail:
    trail = Trail("c1", "192.0.2.7", facts={"outcome": outcome})
    trail.mark(Step.CONNECTED, at)
    trail.mark(Step.ANSWERED, at + 2_000_000)
    return trail


def nothing(_: Trail) -> None:
    pass


async def test_those_of_a_moment_leave_by_one_write_in_the_order_in_which_they_finished(paper: Paper) -> None:
    done = Finished(nothing, {})
    for number in range(5):
        done.add(ended(str(number)), logging.INFO)
    assert paper.writes == 0
    await asyncio.sleep(2 * finished.MOMENT)
    assert (paper.writes, paper.said) == (1, ["0", "1", "2", "3", "4"])
    done.add(ended("next"), logging.INFO)
    await asyncio.sleep(2 * finished.MOMENT)
    assert (paper.writes, paper.said[-1]) == (2, "next")


async def test_a_crowd_is_told_at_once(paper: Paper) -> None:
    done = Finished(nothing, {})
    for number in range(MOST):
        done.add(ended(str(number)), logging.INFO)
    assert len(paper.lines) == MOST


async def test_a_line_has_the_time_of_its_handshake(paper: Paper) -> None:
    done = Finished(nothing, {})
    done.add(ended(at=time.monotonic_ns() - 3_602_000_000_000), logging.INFO)
    done.tell()
    (line,) = paper.lines
    when = time.time() - 3_600
    assert str(line["time"])[:16] in {
        time.strftime("%Y-%m-%dT%H:%M", time.gmtime(when + shift)) for shift in (-1, 0, 1)}


async def test_whatever_is_logged_next_comes_after_them(paper: Paper) -> None:
    done = Finished(nothing, {})
    done.add(ended(), logging.INFO)
    log.warning("after it")
    assert paper.said == ["Answered", "after it"]


async def test_another_threads_line_does_not_touch_what_is_the_loops(paper: Paper) -> None:
    done = Finished(nothing, {})
    done.add(ended(), logging.INFO)
    other = threading.Thread(target=lambda: log.warning("from beside"))
    other.start()
    other.join()
    assert paper.said == ["from beside"]
    done.tell()
    assert paper.said == ["from beside", "Answered"]


async def test_who_reads_metrics_misses_nothing(paper: Paper) -> None:
    metrics = Metrics()
    done = Finished(nothing, {"the metrics": metrics.handshake})
    metrics.first = done.tell
    done.add(ended(), logging.INFO)
    assert b'delegator_handshakes_total{outcome="Answered"} 1.0' in metrics.text()
    assert paper.said == ["Answered"]


async def test_A4_the_audit_is_told_at_once(paper: Paper) -> None:
    audited: list[Trail] = []
    done = Finished(audited.append, {})
    done.add(trail := ended(), logging.INFO)
    assert audited == [trail]
    assert paper.lines == []


async def test_at_the_end_all_is_told_and_what_still_comes_is_told_at_once(paper: Paper) -> None:
    done = Finished(nothing, {})
    done.add(ended("before"), logging.INFO)
    done.end()
    assert paper.said == ["before"]
    done.add(ended("after"), logging.INFO)
    assert paper.said == ["before", "after"]


async def test_one_who_cannot_be_told_is_said_once_and_the_others_hear_all(paper: Paper) -> None:
    heard: list[Trail] = []

    def deaf(_: Trail) -> None:
        raise RuntimeError("broken")

    done = Finished(nothing, {"the deaf": deaf, "the good": heard.append})
    for _ in range(3):
        done.add(ended(), logging.INFO)
    done.tell()
    assert len(heard) == 3
    said = paper.lines[-1]
    assert said["event"] == "3 finished handshakes could not be told to the deaf: a fault of ours"
    assert "RuntimeError: broken" in str(said["traceback"])
    done.add(ended("still served"), logging.INFO)
    done.tell()
    assert len(heard) == 4


async def test_an_audit_that_raises_is_said_and_the_handshake_is_told_all_the_same(paper: Paper) -> None:
    def deaf(_: Trail) -> None:
        raise RuntimeError("broken")

    done = Finished(deaf, {})
    done.add(ended(), logging.INFO)
    done.tell()
    assert paper.said == ["1 finished handshakes could not be told to the audit: a fault of ours", "Answered"]


async def test_a_log_that_takes_nothing_is_said_elsewhere_and_metrics_count_on(
        paper: Paper, capsys: pytest.CaptureFixture[str]) -> None:
    heard: list[Trail] = []
    done = Finished(nothing, {"the good": heard.append})
    paper.torn = True
    done.add(ended(), logging.INFO)
    done.tell()
    assert "no space left" in capsys.readouterr().err
    assert len(heard) == 1
    paper.torn = False
    done.add(ended("again"), logging.INFO)
    done.tell()
    assert paper.said == ["again"]


async def test_what_is_logged_by_the_telling_belongs_to_no_connection(paper: Paper) -> None:
    """It is begun by one connection's request and tells of many."""
    def deaf(_: Trail) -> None:
        raise RuntimeError("broken")

    done = Finished(nothing, {"the deaf": deaf})
    token = CONNECTION.set("c7")
    done.add(ended(), logging.INFO)
    CONNECTION.reset(token)
    await asyncio.sleep(2 * finished.MOMENT)
    assert "connection" not in paper.lines[-1]


async def test_a_level_that_nobody_wants_writes_nothing(paper: Paper) -> None:
    logs.configure("warning", True, paper)
    done = Finished(nothing, {})
    done.add(ended(), logging.INFO)
    done.add(ended("TryLater"), logging.WARNING)
    done.tell()
    assert paper.said == ["TryLater"]
