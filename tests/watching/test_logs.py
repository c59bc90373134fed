"""Log lines: JSON that every terminal and file can take."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from delegator.trail import Step, Trail
from delegator.watching import logs


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_json_line_is_ascii_whatever_it_tells_of(encoding: str) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding, errors="strict", line_buffering=True)
    logs.configure("info", True, stream)
    logging.getLogger("delegator.test").info("customer %s", "Łódź 😀")
    line = raw.getvalue()
    assert line.isascii()
    assert json.loads(line)["event"] == "customer Łódź 😀"


def test_a_text_line_is_ascii_too() -> None:
    raw = io.BytesIO()
    logs.configure("info", False, io.TextIOWrapper(raw, encoding="ascii", errors="strict", line_buffering=True))
    logging.getLogger("delegator.test").info("customer %s", "Łódź")
    assert raw.getvalue().endswith(b"customer \\u0141\\xf3d\\u017a\n")


@pytest.mark.parametrize("part", [0, 999_400_000, 999_500_000, 999_999_999])
def test_the_time_of_a_line_is_never_ahead_of_its_trail(part: int) -> None:
    trail = Trail("c1", "192.0.2.1")
    trail.mark(Step.CONNECTED, part)
    line = json.loads(logs._JsonLines().line(trail, logging.INFO, logs._at(trail, 1000.0)))
    assert line["time"] == f"1970-01-01T00:16:40.{part // 1_000_000:03}+00:00"


def test_who_else_takes_lines_is_given_the_trail_itself() -> None:
    trail = Trail("c1", "192.0.2.1")
    assert vars(logs._made(trail, logging.INFO, 1000.0))["trail"] is trail
