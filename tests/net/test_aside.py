"""Work that may never end is waited for no longer than its limit, and keeps nobody from anything. B."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.net import aside as module
from delegator.net.aside import aside


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
    await until(lambda: "reading a key" not in module._under_way)


async def test_b_what_hangs_costs_one_thread_however_often_it_is_tried_and_keeps_nobody_else() -> None:
    free = threading.Event()
    before = threading.active_count()
    try:
        with pytest.raises(DelegatorError, match="did not end"):
            await aside(free.wait, "reading a key", 0.05)
        for _ in range(50):
            with pytest.raises(DelegatorError, match="reading a key has not ended since an earlier try"):
                await aside(free.wait, "reading a key", 30)
        assert threading.active_count() == before + 1
        assert [await aside(lambda number=number: number, f"other {number}") for number in range(50)] == list(range(50))
    finally:
        free.set()
    await until(lambda: "reading a key" not in module._under_way)
    assert await aside(lambda: 1, "reading a key") == 1


async def test_b_many_that_do_the_same_at_once_all_get_what_they_asked_for() -> None:
    asked = [asyncio.ensure_future(aside(lambda number=number: number, "the same")) for number in range(20)]
    assert await asyncio.gather(*asked) == list(range(20))


async def test_b_whoever_gave_up_hears_of_the_end_all_the_same() -> None:
    free, heard = threading.Event(), asyncio.Event()
    with pytest.raises(DelegatorError):
        await aside(free.wait, "reading lists", 0.05, heard.set)
    await asyncio.sleep(0.05)
    assert not heard.is_set()
    free.set()
    await asyncio.wait_for(heard.wait(), 5)
    assert await aside(lambda: 1, "reading lists") == 1


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():
            await asyncio.sleep(0.01)


def test_b_a_thread_that_hangs_does_not_keep_the_program_from_ending() -> None:
    program = ("import asyncio, threading\nfrom delegator.net.aside import aside\nfrom delegator.errors import *\n"
               "async def main():\n    try:\n        await aside(threading.Event().wait, 'x', 0.1)\n"
               "    except DelegatorError:\n        print('ended')\n"
               "asyncio.run(main())\n")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "ended\n"
