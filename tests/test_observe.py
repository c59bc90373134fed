"""Log lines: JSON that every terminal and file can take."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from delegator import observe


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
    observe.configure("info", True, stream)
    logging.getLogger("delegator.test").info("customer %s", "Łódź 😀")
    line = raw.getvalue()
    assert line.isascii()
    assert json.loads(line)["event"] == "customer Łódź 😀"


def test_a_text_line_is_ascii_too() -> None:
    raw = io.BytesIO()
    observe.configure("info", False, io.TextIOWrapper(raw, encoding="ascii", errors="strict", line_buffering=True))
    logging.getLogger("delegator.test").info("customer %s", "Łódź")
    assert raw.getvalue().endswith(b"customer \\u0141\\xf3d\\u017a\n")
