"""T-C7: what a crowd took goes back to the system once most of it is gone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from delegator.net import ebb


@pytest.fixture
def tide() -> tuple[list[float], ebb.Ebb]:
    now = [0.0]
    return now, ebb.Ebb(lambda: now[0])


def test_TC7_memory_is_given_back_once_for_each_crowd(tide: tuple[list[float], ebb.Ebb]) -> None:
    now, one = tide
    walk = [0, ebb.CROWD, 4 * ebb.CROWD, ebb.CROWD + 1, ebb.CROWD, 0, 0, 0]
    assert [one.is_out(count) for count in walk] == [False] * 4 + [True] + [False] * 3
    now[0] += ebb.APART
    assert [one.is_out(count) for count in (ebb.CROWD, 1, 1)] == [False, True, False]


def test_TC7_crowds_that_come_and_go_do_not_keep_the_allocator_busy(tide: tuple[list[float], ebb.Ebb]) -> None:
    now, one = tide
    times = 0
    for _ in range(1000):
        now[0] += 0.25
        times += one.is_out(5000) + one.is_out(0)
    assert times == 1 + int(1000 * 0.25 // ebb.APART)


def test_TC7_everyday_numbers_are_left_alone(tide: tuple[list[float], ebb.Ebb]) -> None:
    now, one = tide
    for count in [ebb.CROWD - 1, 0] * 100:
        now[0] += ebb.APART
        assert not one.is_out(count)


def test_TC7_the_allocator_does_give_it_back() -> None:
    """Pieces of the sizes that OpenSSL takes, with one left at the end of the heap."""
    program = """
import ctypes, time
from delegator.net.ebb import give_back
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def resident(): return int(open("/proc/self/statm").read().split()[1]) // 256
before = resident()
pieces = [libc.malloc(17000) for _ in range(3000)]
for one in pieces: ctypes.memset(one, 1, 17000)
last = libc.malloc(1000)
for one in pieces: libc.free(one)
held = resident()
give_back()
until = time.monotonic() + 10
while resident() > before + 8 and time.monotonic() < until: time.sleep(0.01)
print(held - before, resident() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    held, left = map(int, done.stdout.split())
    assert held > 40
    assert left <= 8
