"""T-C7: each port has its own share of the files that a process may hold open, decided from the limit at the start."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.cli import checking_ports
from delegator.config import Settings
from delegator.errors import DelegatorError
from delegator.net import descriptors, lobby
from delegator.net.crowds import Caps


@given(st.integers(520, 1 << 20), st.integers(2, 100), st.integers(1, 100_000))
def test_TC7_all_shares_fit_into_the_limit_and_each_has_one(limit: int, store: int, wanted: int) -> None:
    caps = descriptors.fitted(Caps(connections=wanted), limit, store)
    assert caps.connections + descriptors.others(limit, store) <= limit
    assert 1 <= caps.connections <= wanted
    assert caps.connections < wanted or caps == Caps(connections=wanted), "with room, as the settings say"
    assert caps.connections == wanted or caps.half_open < caps.connections, "strangers alone cannot take all"
    assert descriptors.others(limit, store) >= (
        descriptors.OURS + lobby.MOST + lobby.TURN + store + descriptors.CALLS_LEAST)


@given(st.integers(300, 1 << 16), st.integers(2, 100), st.integers(100, 50_000))
def test_TC7_what_is_told_to_be_needed_is_enough_and_not_a_file_more_than_that(
        limit: int, store: int, wanted: int) -> None:
    told, needed = descriptors.shortage(wanted, limit, store), descriptors.needed(wanted, store)
    assert bool(told) is (descriptors.room(limit, store) < wanted)
    assert descriptors.room(needed, store) >= wanted
    assert needed <= 2 * wanted + descriptors.others(0, store)
    if told:
        assert str(needed) in told
        assert needed > limit


@pytest.mark.parametrize(("soft", "hard", "now"), [(256, 1024, 1024), (512, 512, 512)])
def test_TC7_the_limit_is_raised_as_far_as_one_may(soft: int, hard: int, now: int) -> None:
    program = ("import resource, sys; from delegator.net.descriptors import highest, raised;"
               f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); assert highest() == {now};"
               "print(raised(), resource.getrlimit(resource.RLIMIT_NOFILE)[0])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(now)] * 2


@pytest.mark.parametrize("most", [100, 300])
def test_config_check_says_of_a_low_limit_what_a_start_does_with_it(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(descriptors, "highest", lambda: most)
    with pytest.raises(DelegatorError, match=f"would start with {descriptors.LEAST} connections") as told:
        checking_ports.open_files(Settings())
    wanted = Settings().limits.connections
    assert str(descriptors.needed(wanted, Settings().store.connections)) in told.value.hint
    assert descriptors.fitted(Caps(wanted, 1, 1), most, Settings().store.connections).connections == descriptors.LEAST
