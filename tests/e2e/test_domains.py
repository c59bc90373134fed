"""Devices that nobody registered find their owner by reverse DNS, over real connections and real DNS (A5, T-B4)."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from delegator import config
from delegator.cli import main
from delegator.model import Customer, IdentityRule, Policy, Registration
from delegator.store import Store
from pki import Folder

from ..clock import today
from ..net.name_servers import LABEL, PretendDns, bind, pretend
from .conftest import TRANSACTION, PretendDelegate, Reply, World, confirmation, envelope

HOST = f"{LABEL}.customer.test"
Enable = Callable[..., World]


@pytest.fixture(scope="session")
def signed_by_factory(factory: Folder) -> Folder:
    factory.issue("delegate-server", HOST, names=("127.0.0.1",))
    return factory


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with bind(tmp_path_factory.mktemp("named")) as address:
        yield address


@pytest.fixture
def dns() -> Iterator[PretendDns]:
    made = pretend()
    yield made
    made.close()


@pytest.fixture
def owner(signed_by_factory: Folder) -> Iterator[PretendDelegate]:
    """The delegate of customer.test, at its very name, with a certificate of the factory's."""
    made = PretendDelegate(signed_by_factory, signed_by_factory, HOST)
    yield made
    made.close()


@pytest.fixture
def enable(world: World, owner: PretendDelegate) -> Enable:
    """Start the delegator with domain association, for devices on loopback."""
    def start(nameserver: str, **more: Any) -> World:
        said = {"enabled": True, "nameservers": (nameserver,), "private_networks": ("127.0.0.0/8",),
                "callback_port": owner.port, **more}
        world.settings = msgspec.structs.replace(world.settings, domains=config.Domains(**said))
        (world.root / "delegator.toml").write_text(config.as_toml(world.settings))
        world.start()
        return world
    return start


def ask(world: World, tag: str, source: str, *, shown: tuple[Path, Path] | None = None, body: bytes = b"",
        transaction: str = TRANSACTION) -> Reply:
    """A device calls from an address of its own."""
    context = world.tls(*(shown or world.paths(tag)))
    client = http.client.HTTPSConnection("127.0.0.1", world.port, timeout=15, context=context,
                                         source_address=(source, 0))
    try:
        client.request("POST", "/", body or envelope(tag, transaction), {"Content-Type": "text/xml; charset=utf-8"})
        response = client.getresponse()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
    finally:
        client.close()


def steps(world: World, tag: str) -> dict[str, str]:
    """The last trail of a device: step to note."""
    deadline = time.monotonic() + 15
    while not (trails := world.trails(tag)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return {step["step"]: step["note"] for step in trails[-1]["steps"]}


def explained(world: World, *words: str) -> tuple[dict[str, Any], str]:
    done = CliRunner().invoke(main, ["--config", str(world.root / "delegator.toml"), "explain", *words, "--json"])
    return json.loads(done.stdout), done.stderr


@pytest.mark.counterpart("named")
def test_a5_a_device_nobody_registered_is_served_by_the_delegate_of_the_domain_it_calls_from(
        enable: Enable, named: str, owner: PretendDelegate, factory: Folder) -> None:
    """PTR, forward record, delegate at its very name over mutual TLS; the same answer again; both sides know."""
    world = enable(named)
    reply = ask(world, "NOBODY1", "127.0.0.2")
    assert reply.credential[0] == "temp", reply.body
    assert reply.text("URL") == f"https://{HOST}:{owner.port}/provisioning"
    assert (reply.text("TrustAnchor") or "").strip() == factory.ca_path.read_text().strip()
    assert ask(world, "NOBODY1", "127.0.0.2").body == reply.body
    walked = steps(world, "NOBODY1")
    because = "reverse DNS of 127.0.0.2: host local2.customer.test, forward-confirmed, domain customer.test"
    assert list(walked)[3:6] == ["identified", "looked_up", "routed"]
    assert walked["looked_up"] == because
    assert because in walked["routed"]
    claim = reply.text("ClaimId")
    assert ask(world, "NOBODY1", "127.0.0.2", body=confirmation(claim or "")).status == 200
    deadline = time.monotonic() + 15
    while not owner.deployed and time.monotonic() < deadline:
        time.sleep(0.05)
    assert owner.deployed == [(claim, "Deployed")]
    claims = world.store(lambda store: store.claims(customer="domain:customer.test"))
    assert [(one.claim_id, one.delegate, one.peer) for one in claims] == [(claim, "domain:customer.test", "127.0.0.2")]


@pytest.mark.counterpart("named")
def test_TB4_explain_makes_the_same_look_up_and_says_what_would_happen(enable: Enable, named: str) -> None:
    world = enable(named)
    found, _ = explained(world, "NOBODY2", "--from", "127.0.0.3")
    assert found["allowed"]
    assert found["route"] == {
        "customer": "domain:customer.test", "delegate": "domain:customer.test", "callback": "soap",
        "because": "reverse DNS of 127.0.0.3: host local3.customer.test, forward-confirmed, domain customer.test"}
    refused, _ = explained(world, "NOBODY2", "--from", "192.0.2.3")
    assert "whose own address it is not" in refused["reasons"][0]["text"]
    alone, _ = explained(world, "NOBODY2", "--from", "127.0.0.3", "--identity", "shared")
    assert [one["why"] for one in alone["reasons"]] == ["identity", "domain alone"]
    assert "with --from" in explained(world, "NOBODY2")[1]


def test_TB4_the_delegates_certificate_must_be_for_that_very_name(
        enable: Enable, dns: PretendDns, owner: PretendDelegate) -> None:
    """elsewhere.test names the same server, whose certificate is customer.test's: nothing is asked of it."""
    world = enable(dns.address)
    assert ask(world, "NOBODY3", "127.0.0.9").fault == "TryLater"
    (trail,) = world.trails("NOBODY3")
    assert f"the certificate shown is not for {LABEL}.elsewhere.test" in trail["reasons"][0]
    assert owner.calls == []


def test_TB4_a_delegate_name_that_leads_to_a_forbidden_place_is_not_connected_to(
        enable: Enable, dns: PretendDns, owner: PretendDelegate) -> None:
    """The outbound rule is judged on the very address, whatever the DNS says."""
    dns.records[f"{HOST}.", "A"] = ["169.254.169.254"]
    world = enable(dns.address)
    assert ask(world, "NOBODY4", "127.0.0.2").fault == "TryLater"
    assert "169.254.169.254 is link-local, cloud metadata" in world.trails("NOBODY4")[0]["reasons"][0]


def test_TB4_a_shared_certificate_gets_nothing_by_reverse_dns_alone_unless_policy_says_so(
        enable: Enable, dns: PretendDns, owner: PretendDelegate, shared: tuple[Path, Path]) -> None:
    world = enable(dns.address, policy="by-dns")

    def policy(**said: Any) -> None:
        world.store(lambda store: store.add_policy(Policy("by-dns", **said), today(), replace=True))

    assert ask(world, "NOBODY5", "127.0.0.2", shown=shared).fault == "NotEntitled", "the policy must be there"
    assert "by-dns, which there is not" in world.trails("NOBODY5")[-1]["reasons"][0]
    policy(identity=IdentityRule.EITHER)
    assert ask(world, "NOBODY5", "127.0.0.2", shown=shared).fault == "NotEntitled"
    assert world.trails("NOBODY5")[-1]["reasons"] == [
        "policy by-dns: a shared certificate and reverse DNS are not enough"]
    assert owner.calls == []
    policy(identity=IdentityRule.EITHER, shared_by_domain=True)
    assert ask(world, "NOBODY5", "127.0.0.2", shown=shared).credential[0] == "temp"
    assert ask(world, "NOBODY5", "127.0.0.2", shown=shared, transaction="another-device-00").fault == "NotEntitled"


def test_TB4_silent_dns_delays_only_devices_without_a_route(enable: Enable, dns: PretendDns) -> None:
    """50 unregistered devices wait for a DNS that does not answer; a registered one does not notice."""
    dns.ways[""] = "silent"
    world = enable(dns.address, budget=4.0)
    world.own("ABC1234")
    world.paths("STRANGER")
    with ThreadPoolExecutor(50) as crowd:
        waiting = [crowd.submit(ask, world, "STRANGER", f"127.0.1.{n}") for n in range(1, 51)]
        time.sleep(0.8)
        assert not any(one.done() for one in waiting)
        began = time.monotonic()
        reply = world.ask("ABC1234")
        took, still = time.monotonic() - began, sum(not one.done() for one in waiting)
        refused = [one.result() for one in waiting]
    assert reply.credential[0] == "temp"
    assert took < 3
    assert still > 0, "it was served while they waited"
    assert {one.fault for one in refused} == {"TryLater"}
    assert all(one.headers["retry-after"] == "30" for one in refused)
    assert "no answer within 4 s" in world.trails("STRANGER")[-1]["reasons"][0]
    assert "looked_up" not in steps(world, "ABC1234")
    registered = [name for name, _, _ in dns.asked if name.startswith("1.0.0.127")]
    assert registered == [], "the registered device's address was never asked about"


def test_TB4_a_registered_device_is_never_looked_up_even_if_its_customer_has_no_delegate(
        enable: Enable, dns: PretendDns, owner: PretendDelegate) -> None:
    """Nor does reverse DNS ever take it to somebody else."""
    world = enable(dns.address)

    async def registered(store: Store) -> None:
        await store.add_customer(Customer("empty", "Empty"), today())
        await store.add_devices([Registration("empty", "EMPTY01")], today())

    world.store(registered)
    assert ask(world, "EMPTY01", "127.0.0.2").fault == "NotEntitled"
    assert "which has no delegate" in world.trails("EMPTY01")[0]["reasons"][0]
    assert dns.asked == owner.calls == []


def test_a5_off_by_default_and_then_no_question_is_ever_asked(enable: Enable, dns: PretendDns) -> None:
    assert config.Settings().domains.enabled is False
    world = enable(dns.address, enabled=False)
    assert ask(world, "NOBODY6", "127.0.0.2").fault == "NotEntitled"
    assert "looked_up" not in steps(world, "NOBODY6")
    assert "reverse DNS was not asked, it is off" in explained(world, "NOBODY6", "--from", "127.0.0.2")[1]
    assert dns.asked == []


def test_TB4_private_addresses_are_not_asked_about_unless_configured(enable: Enable, dns: PretendDns) -> None:
    world = enable(dns.address, private_networks=())
    assert ask(world, "NOBODY7", "127.0.0.2").fault == "NotEntitled"
    assert "not asked about" in world.trails("NOBODY7")[0]["reasons"][0]
    assert dns.asked == []
