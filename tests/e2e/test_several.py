"""A10: several delegators for one product, several delegates for one customer; isolation of one from another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from delegator.model import Delegate, Rule
from pki import Folder

from ..clock import today
from .conftest import ROOT, PretendDelegate, World


@pytest.fixture
def second(delegate_authority: Folder, factory: Folder) -> Iterator[PretendDelegate]:
    delegate = PretendDelegate(delegate_authority, factory)
    yield delegate
    delegate.close()


def registered(world: World, *delegates: Delegate) -> None:
    for delegate in delegates:
        world.store(lambda store, one=delegate: store.add_delegate(one, today(), replace=True))


class TestSeveralDelegates:
    def test_when_one_is_down_the_next_answers(self, world: World, second: PretendDelegate,
                                               delegate_authority: Folder) -> None:
        """Failover by priority; the answer and its address are of the one that answered, and stay so."""
        registered(world, Delegate("acme-second", "acme", world.reach(second, delegate_authority), priority=200))
        world.own("TWO0001", "TWO0002")
        world.start()
        assert world.ask("TWO0001").credential[1] in world.delegate.given.values()
        world.delegate.mode = "fault"
        first = world.ask("TWO0002")
        assert first.credential[1] in second.given.values()
        assert first.text("URL") == f"https://localhost:{second.port}/provisioning"
        world.delegate.mode = "good"
        assert world.ask("TWO0002").body == first.body
        taken = world.store(lambda store: store.taken("acme", "acme-second"))
        assert taken == {"customer/acme": 2, "delegate/acme-second": 1}

    def test_after_some_failures_it_is_left_alone_for_a_while(self, world: World, second: PretendDelegate,
                                                              delegate_authority: Folder) -> None:
        """The breaker: later devices do not wait for a delegate that is known to be down."""
        registered(world, Delegate("acme-second", "acme", world.reach(second, delegate_authority), priority=200))
        tags = [f"DOWN{n:03}" for n in range(8)]
        world.own(*tags)
        world.start()
        world.delegate.mode = "nonsense"
        assert all(world.ask(tag).status == 200 for tag in tags)
        assert len(world.delegate.calls) == 5

    def test_weight_shares_devices_out(self, world: World, second: PretendDelegate,
                                       delegate_authority: Folder) -> None:
        registered(world, Delegate("acme-second", "acme", world.reach(second, delegate_authority), weight=3))
        tags = [f"PART{n:03}" for n in range(24)]
        world.own(*tags)
        world.start()
        assert all(world.ask(tag).status == 200 for tag in tags)
        assert len(world.delegate.given) + len(second.given) == 24
        assert len(second.given) > len(world.delegate.given) > 0

    def test_the_customer_chooses_by_rule(self, world: World, second: PretendDelegate,
                                          delegate_authority: Folder) -> None:
        registered(world, Delegate("acme-second", "acme", world.reach(second, delegate_authority), priority=200))
        world.store(lambda store: store.add_rule(Rule("racks", "acme-second", model="R760"), today()))
        world.own("RULE001", "RULE002")
        world.start()
        world.ask("RULE001", extra="<Model>R760</Model>")
        world.ask("RULE002", extra="<Model>other</Model>")
        assert (len(second.given), len(world.delegate.given)) == (1, 1)


class TestSeveralDelegators:
    @staticmethod
    def activate(world: World, tag: str, state: Path) -> tuple[int, dict[str, object], str]:
        certificate, key = world.paths(tag)
        done = subprocess.run(
            [sys.executable, "-m", "delegator.device", "activate", "--once", "--json", "--tag", tag, "--delegator",
             f"localhost:{world.port}", "--certificate", certificate, "--key", key, "--ca", world.factory.ca_path,
             "--state", state], capture_output=True, text=True, check=False,
            env={**os.environ, "PYTHONPATH": str(ROOT)})
        return done.returncode, json.loads(done.stdout), done.stderr

    @staticmethod
    def send_on(world: World, *to: World) -> None:
        for number, there in enumerate(to):
            rule = Rule(f"there-{number}", delegator=f"localhost:{there.port}")
            world.store(lambda store, rule=rule: store.add_rule(rule, today(), replace=True))

    def test_a_device_follows_to_the_delegator_that_serves_it(self, make_world: Callable[[str], World],
                                                              tmp_path: Path) -> None:
        """Asked here, sent there, answered there, and confirmed there."""
        here, there = make_world("here"), make_world("there")
        there.host("HOPS001")
        for world in (here, there):
            world.start()
        self.send_on(here, there)
        code, facts, words = self.activate(here, "HOPS001", tmp_path / "device")
        assert code == 0, words
        (claim,) = there.store(lambda store: store.claims())
        assert (claim.claim_id, claim.state.value) == (facts["claim_id"], "confirmed")
        assert here.ask("HOPS001").text("AlternateDelegator") == f"localhost:{there.port}"
        assert here.ask("HOPS001").fault == "NotEntitled"

    def test_not_more_than_three_hops(self, make_world: Callable[[str], World], tmp_path: Path) -> None:
        worlds = [make_world(f"w{number}") for number in range(5)]
        worlds[4].host("HOPS002")
        worlds[3].host("HOPS003")
        for world in worlds:
            world.start()
        for number in range(4):
            self.send_on(worlds[number], worlds[number + 1])
        assert self.activate(worlds[0], "HOPS003", tmp_path / "three")[0] == 0
        code, facts, _ = self.activate(worlds[0], "HOPS002", tmp_path / "four")
        assert (code != 0, facts["reason"]) == (True, "not-entitled")
        assert not worlds[4].trails()

    def test_a_ring_ends(self, make_world: Callable[[str], World], tmp_path: Path) -> None:
        one, two = make_world("one"), make_world("two")
        for world in (one, two):
            world.start()
        self.send_on(one, two)
        self.send_on(two, one)
        assert self.activate(one, "HOPS004", tmp_path / "ring")[1]["reason"] == "not-entitled"
        assert (len(one.trails()), len(two.trails())) == (1, 1)

    def test_other_delegators_are_named_with_the_answer(self, world: World) -> None:
        path = world.root / "delegator.toml"
        path.write_text(path.read_text().replace("alternates = []", 'alternates = ["second.example:4433"]'))
        world.host("ALTS001")
        world.start()
        assert world.ask("ALTS001").text("AlternateDelegator") == "second.example:4433"
