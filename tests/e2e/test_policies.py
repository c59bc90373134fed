"""What policies say holds over real connections: where from, when, how many an hour, who stands in for whom. A6."""

from __future__ import annotations

import http.client
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from delegator import config
from delegator.model import Customer, Delegate, IdentityRule, Policy
from delegator.model.hours import DAYS, opening
from delegator.store import Store
from pki import Folder

from ..clock import today
from ..net.name_servers import PretendDns, bind, pretend
from .conftest import PretendDelegate, Reply, World, envelope

DAY_AFTER_TOMORROW = DAYS[(datetime.now(UTC) + timedelta(days=2)).weekday()]
"""Not open today, nor when the test is run over midnight."""


def policy(world: World, **said: Any) -> None:
    """Globex, whose credentials are kept here, says this."""
    async def work(store: Store) -> None:
        await store.add_policy(Policy("globex", **said), today(), replace=True)
        await store.add_customer(Customer("globex", "Globex", policy="globex"), today(), replace=True)
    world.store(work)


def ask(world: World, tag: str, source: str, shown: tuple[Path, Path] | None = None, said: str = "") -> Reply:
    """A device calls from an address of its own; `said` is the one that it claims to have."""
    client = http.client.HTTPSConnection("127.0.0.1", world.port, timeout=15,
                                         context=world.tls(*(shown or world.paths(tag))), source_address=(source, 0))
    body = envelope(tag)
    if said:
        body = body.replace(b"<TransactionId>", b"<Location><IPAddress>%s</IPAddress></Location><TransactionId>"
                            % said.encode())
    try:
        client.request("POST", "/", body, {"Content-Type": "text/xml; charset=utf-8"})
        response = client.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        client.close()


def reasons(world: World, tag: str) -> list[str]:
    deadline = time.monotonic() + 15
    while not (trails := world.trails(tag)) and time.monotonic() < deadline:
        time.sleep(0.02)
    found: list[str] = trails[-1]["reasons"]
    return found


def test_a6_the_address_a_device_is_seen_at_decides_and_not_the_one_it_says(world: World) -> None:
    policy(world, networks=("127.0.0.2/32",))
    world.host("NETS001", "NETS002")
    world.start()
    assert ask(world, "NETS001", "127.0.0.3", said="127.0.0.2").fault == "NotEntitled"
    assert reasons(world, "NETS001") == ["policy globex: 127.0.0.3 is in none of its networks, 127.0.0.2/32"]
    assert ask(world, "NETS002", "127.0.0.2", said="127.0.0.3").credential[0] == "root"


def test_a6_outside_its_hours_nothing_is_given_and_all_reasons_are_on_record(world: World) -> None:
    policy(world, hours=(opening(f"{DAY_AFTER_TOMORROW} 00:00-24:00 Pacific/Auckland"),), networks=("192.0.2.0/24",),
           approved_only=True)
    world.host("HOUR001", "HOUR002")
    world.start()
    assert world.ask("HOUR001").fault == "NotEntitled"
    hours, where, listed = reasons(world, "HOUR001")
    said = f"outside its hours, {DAY_AFTER_TOMORROW} 00:00-24:00 Pacific/Auckland"
    assert hours.startswith(f"policy globex: {said}: it is ")
    assert (where.count("in none of its networks"), listed.count("not on the approved list")) == (1, 1)
    policy(world, hours=(opening("daily 00:00-24:00 Pacific/Auckland"),))
    assert world.ask("HOUR002").credential[0] == "root", "changed while it runs"


def test_a6_claims_per_hour_are_exact_when_many_ask_at_once_and_the_others_are_told_when(world: World) -> None:
    policy(world, claims_per_hour=5)
    tags = [f"PACE{number:03}" for number in range(24)]
    world.host(*tags)
    for tag in tags:
        world.paths(tag)
    world.start()
    with ThreadPoolExecutor(24) as crowd:
        replies = dict(zip(tags, crowd.map(world.ask, tags), strict=True))
    assert Counter(reply.fault for reply in replies.values()) == {None: 5, "TryLater": 19}
    waits = {int(reply.headers["retry-after"]) for reply in replies.values() if reply.fault}
    assert all(3500 < wait <= 3660 for wait in waits)
    served = next(tag for tag in tags if replies[tag].fault is None)
    assert world.ask(served).body == replies[served].body, "who has its credential is given it again"


# --- forward-confirmed domains ------------------------------------------------------------------------------------


@pytest.fixture
def dns() -> Iterator[PretendDns]:
    made = pretend()
    yield made
    made.close()


def start_with(world: World, nameserver: str, budget: float = 1.0) -> None:
    world.settings = msgspec.structs.replace(world.settings, domains=config.Domains(
        enabled=True, nameservers=(nameserver,), private_networks=("127.0.0.0/8",), budget=budget))
    (world.root / "delegator.toml").write_text(config.as_toml(world.settings))
    world.start()


@pytest.mark.counterpart("named")
def test_R_shared_a_shared_certificate_is_served_from_a_known_network_or_a_forward_confirmed_domain(
        world: World, shared: tuple[Path, Path], tmp_path: Path) -> None:
    """127.0.0.2 and .3 are in customer.test, .9 is elsewhere, .8 has no name; 127.0.0.7 is a known network. BIND
    answers."""
    policy(world, identity=IdentityRule.EITHER, networks=("127.0.0.7/32",), domains=("customer.test",),
           own_anywhere=True)
    tags = [f"FCDN00{number}" for number in range(5)]
    world.host(*tags)
    (tmp_path / "named").mkdir()
    with bind(tmp_path / "named") as nameserver:
        start_with(world, nameserver)
        assert ask(world, tags[0], "127.0.0.2", shared).credential[0] == "root"
        assert ask(world, tags[1], "127.0.0.7", shared).credential[0] == "root"
        assert ask(world, tags[2], "127.0.0.9", shared).fault == "NotEntitled"
        assert ask(world, tags[3], "127.0.0.8", shared).fault == "NotEntitled"
        assert ask(world, tags[4], "127.0.0.8").credential[0] == "root", "its own certificate is not bound to a place"
    assert "host local9.elsewhere.test, forward-confirmed" in reasons(world, tags[2])[0]
    assert "not confirmed in customer.test: reverse DNS of 127.0.0.8: no host name" in reasons(world, tags[3])[0]


def test_R_shared_dns_that_does_not_answer_is_no_verdict_on_a_device(world: World, dns: PretendDns) -> None:
    policy(world, domains=("customer.test",))
    world.host("LATE001", "LATE002")
    dns.ways[""] = "silent"
    start_with(world, dns.address, budget=0.5)
    late = ask(world, "LATE001", "127.0.0.2")
    assert (late.fault, late.headers["retry-after"]) == ("TryLater", "30")
    dns.ways.clear()
    assert ask(world, "LATE002", "127.0.0.3").credential[0] == "root"


def test_R_shared_a_domain_without_reverse_dns_to_ask_allows_nothing(world: World) -> None:
    policy(world, domains=("customer.test",))
    world.host("NODNS01")
    world.start()
    assert world.ask("NODNS01").fault == "NotEntitled"
    assert "reverse DNS is off, [domains] enabled" in reasons(world, "NODNS01")[0]


# --- who stands in for another ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", ["max_devices", "claims_per_hour"])
def test_a6_a_stand_in_answers_for_no_more_devices_than_its_own_policy_allows(
        world: World, delegate_authority: Folder, factory: Folder, limit: str) -> None:
    """The first delegate is down; of twelve devices at once three get what the second gives, and it is not asked for
    ever more. The others are told to come again."""
    second = PretendDelegate(delegate_authority, factory)
    try:
        async def work(store: Store) -> None:
            await store.add_policy(Policy("three", **{limit: 3}), today())
            await store.add_delegate(Delegate("acme-second", "acme", world.reach(second, delegate_authority),
                                              policy="three", priority=200), today())
        world.store(work)
        tags = [f"STND{number:03}" for number in range(13)]
        world.own(*tags)
        for tag in tags:
            world.paths(tag)
        world.settings = msgspec.structs.replace(world.settings, callbacks=msgspec.structs.replace(
            world.settings.callbacks, budget=10.0))  # a busy machine is no reason to leave the second one alone
        (world.root / "delegator.toml").write_text(config.as_toml(world.settings))
        world.start()
        world.delegate.mode = "fault"
        with ThreadPoolExecutor(12) as crowd:
            replies = list(crowd.map(world.ask, tags[:12]))
        assert Counter(reply.fault for reply in replies) == {None: 3, "TryLater": 9}
        assert {reply.credential[1] for reply in replies if reply.fault is None} <= set(second.given.values())
        asked = len(second.calls)
        assert world.ask(tags[12]).fault == "TryLater"
        assert len(second.calls) == asked, "known to be full: not asked at all"
        assert "delegate acme-second may not stand in: policy three" in " ".join(reasons(world, tags[12]))
        taken = world.store(lambda store: store.taken("acme", "acme-second"))
        assert taken == {"customer/acme": 13, "delegate/acme-second": 3}
    finally:
        second.close()
