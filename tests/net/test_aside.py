"""Work that may never end is waited for no longer than its limit, and keeps nobody from anything. B."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.net import aside as module
from delegator.net.aside import MOST, aside


async def test_what_it_gives_and_what_it_raises_comes_back() -> None:
    assert await aside(lambda: 42, "counting") == 42
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0, "dividing")
    with pytest.raises(TimeoutError, match="its own"):
        await aside(lambda: _raise(TimeoutError("its own")), "raising")


def _raise(error: Exception) -> None:
    raise error


async def test_b_it_is_done_beside_the_loop() -> None:
    assert await aside(threading.get_ident, "looking") != threading.get_ident()


async def test_b_what_hangs_costs_its_limit_and_the_next_begins_at_once() -> None:
    free = threading.Event()
    try:
        began = time.monotonic()
        with pytest.raises(DelegatorError, match=r"reading a key did not end within 0\.1 s") as caught:
            await aside(free.wait, "reading a key", 0.1)
        assert caught.value.kind is Kind.UNAVAILABLE
        assert await aside(lambda: 1, "the next") == 1
        assert time.monotonic() - began < 5
    finally:
        free.set()


async def test_b_only_so_many_hang_and_then_it_is_said_at_once() -> None:
    free = threading.Event()
    waiting = [asyncio.ensure_future(aside(free.wait, "hanging", 30)) for _ in range(MOST)]
    await asyncio.sleep(0)
    try:
        with pytest.raises(DelegatorError, match=f"cannot begin: {MOST} others"):
            await aside(lambda: 1, "one more")
    finally:
        free.set()
    assert await asyncio.gather(*waiting) == [True] * MOST
    for _ in range(100):
        if module._places._value == MOST:
            break
        await asyncio.sleep(0.01)
    assert await aside(lambda: 1, "and again") == 1


def test_b_a_thread_that_hangs_does_not_keep_the_program_from_ending() -> None:
    program = ("import asyncio, threading\nfrom delegator.net.aside import aside\nfrom delegator.errors import *\n"
               "async def main():\n    try:\n        await aside(threading.Event().wait, 'x', 0.1)\n"
               "    except DelegatorError:\n        print('ended')\n"
               "asyncio.run(main())\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "ended\n"
