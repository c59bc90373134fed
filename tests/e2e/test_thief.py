"""The thief: a stolen but genuine shared key, and every service tag known (CVE-2024-47575; R-shared, R-alike,
R-contested, A6).

It gets what the rules give to a shared certificate and nothing else, and learns neither from an answer nor from its
time which tags exist, which are claimed, and why it was refused.
"""

from __future__ import annotations

import json
import random
import sqlite3
import ssl
import statistics
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from delegator import config
from delegator.model import (
    Customer,
    Delegate,
    HostedCallback,
    IdentityRule,
    Notice,
    NotificationKind,
    Policy,
    Registration,
    Rule,
    Secret,
)
from delegator.model.audited import Act
from delegator.model.hours import opening
from pki import Folder

from ..clock import today
from .conftest import World, envelope
from .test_enrolment import Device, configure, replace_in, until_refused

THIEF = "the-thiefs-transaction-1"
EITHER = IdentityRule.EITHER
WITHIN = 0.001
"""Seconds between the medians of any two tags, beside what noise alone explains."""
NOISE = 4.0
"""Standard errors that the medians of some twenty equal samples lie apart: their expected range."""
ROUNDS, BATCHES = 50, 4
"""Samples of each tag in a batch, and how many batches are taken until noise has averaged out, which takes one on a
machine that is quiet; a difference that is there stays, however many are taken."""


@dataclass(frozen=True)
class Case:
    """One tag the thief knows, its owner's policy, and what became of it before."""

    tag: str
    policy: Policy
    before: str = ""


def later(**duration: float) -> datetime:
    return datetime.now(UTC) + timedelta(**duration)


CASES = (
    Case("THFOWN01", Policy("own-only")),
    Case("THFEND01", Policy("ended", identity=EITHER, valid_until=later(days=-1))),
    Case("THFNOT01", Policy("not-yet", identity=EITHER, valid_from=later(days=1))),
    Case("THFNET01", Policy("elsewhere", identity=EITHER, networks=("192.0.2.0/24",))),
    Case("THFHRS01", Policy("closed-now", identity=EITHER, hours=(opening(
        f"{later(days=2):%a} 00:00-00:01 UTC"),))),
    Case("THFAPP01", Policy("approved", identity=EITHER, approved_only=True)),
    Case("THFCUS01", Policy("customer-off", identity=EITHER), "customer disabled"),
    Case("THFDEL01", Policy("delegate-off", identity=EITHER), "delegate disabled"),
    Case("THFOPS01", Policy("no-custom", identity=EITHER, custom_operations=False)),
    Case("THFFUL01", Policy("full", identity=EITHER, max_devices=0)),
    Case("THFTRY01", Policy("no-attempt", identity=EITHER, attempts=0)),
    Case("THFPAC01", Policy("slow", identity=EITHER, claims_per_hour=1), "hour used up"),
    Case("THFCLM01", Policy("claimed", identity=EITHER), "claimed"),
    Case("THFKEY01", Policy("claimed-own", identity=EITHER), "claimed by its own"),
    Case("THFDON01", Policy("confirmed", identity=EITHER), "confirmed"),
    Case("THFENR01", Policy("enrolled", identity=EITHER), "enrolled"),
    Case("THFREL01", Policy("released", identity=EITHER), "enrolled and released"),
    Case("THFREV01", Policy("revoked", identity=EITHER), "enrolled and revoked"),
    Case("THFSTK01", Policy("in-stock", identity=EITHER), "in stock"),
)
UNKNOWN = ("THFXXX01", "THFXXX02", "THFXXX03")
GIVEN = Case("THFYES01", Policy("given", identity=EITHER))


@pytest.fixture
def street(world: World, factory: Folder, shared: tuple[Path, Path]) -> World:
    """Every case registered to a customer of its own, and whatever happened to it has happened."""
    limits = config.Limits(requests_per_connection=10**6)
    world.settings = replace_in(world.settings, limits=limits, ops=config.OpsSettings(enabled=True, port=0))
    configure(world, enabled=True, certificate=str(factory.ca_path), key=str(factory.key_path))
    world.store(_people)
    said = world.start()
    world.ops = said["ops"]  # type: ignore[attr-defined]
    for case in (*CASES, GIVEN):
        if case.before.startswith(("claimed", "confirmed", "enrolled")):
            _happen(world, shared, case)
        if case.before == "hour used up":
            assert world.ask("THFPAC99", shown=shared).status == 200
    world.store(_afterwards)
    return world


async def _people(store: Any) -> None:
    hook = HostedCallback("root", Secret("{random}"), webhook_url="https://127.0.0.1:1/x",
                          webhook_secret=Secret("a secret of webhooks"))
    for case in (*CASES, GIVEN):
        name = case.policy.name
        await store.add_policy(case.policy, today())
        await store.add_customer(Customer(name, name.title(), policy=name), today())
        await store.add_delegate(Delegate(name, name, hook), today())
        await store.add_devices([Registration(None if case.before == "in stock" else name, case.tag)], today())
    await store.add_devices([Registration("slow", "THFPAC99"), Registration("own-only", "ASIA0001")], today())
    await store.add_rule(Rule("unregistered", "given", tag_prefix="THFXXX02"), today())
    await store.add_rule(Rule("elsewhere", tag_prefix="ASI", delegator="delegator-asia.example:4433", priority=500),
                         today())


def _happen(world: World, shared: tuple[Path, Path], case: Case) -> None:
    """What became of a tag before the thief came."""
    device = Device(world, shared, case.tag)
    if case.before == "claimed by its own":
        assert world.ask(case.tag).status == 200
        return
    reply = device.ask(request="" if case.before.startswith("enrolled") else None)
    assert reply.status == 200
    if case.before == "confirmed":
        assert device.confirm(reply).status == 200
    if case.before.startswith("enrolled"):
        device.keep(reply)
        assert device.confirm(reply, own=True).status == 200


async def _afterwards(store: Any) -> None:
    now = datetime.now(UTC)
    await store.add_customer(Customer("customer-off", "Off", enabled=False, policy="customer-off"), today(),
                             replace=True)
    await store.add_delegate(Delegate("delegate-off", "delegate-off", HostedCallback("root", Secret("x")),
                                      enabled=False), today(), replace=True)
    await store.ownership.release("THFREL01", now)
    await store.enrolments.revoke("THFREV01", "keyCompromise", now, store.by)


@contextmanager
def line(world: World, shared: tuple[Path, Path]) -> Iterator[ssl.SSLSocket]:
    with world.connection(*shared) as sock:
        yield sock


def exchange(sock: ssl.SSLSocket, tag: str, transaction: str = THIEF) -> tuple[bytes, float]:
    """The whole answer, head and body, and how long it took."""
    body = envelope(tag, transaction)
    head = (b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/xml; charset=utf-8\r\nContent-Length: %d\r\n\r\n"
            % len(body))
    began = time.perf_counter()
    sock.sendall(head + body)
    answer = sock.recv(65536)
    while (end := answer.find(b"\r\n\r\n")) < 0 or len(answer) < end + 4 + _length(answer[:end]):
        answer += sock.recv(65536)
    return answer, time.perf_counter() - began


def _length(head: bytes) -> int:
    found = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    return int(found.partition(b":")[2])


@pytest.mark.counterpart("openssl")
def test_R_alike_the_thief_is_told_the_same_to_the_byte_whatever_stands_in_its_way(
        street: World, shared: tuple[Path, Path]) -> None:
    """Registered or not, closed, elsewhere, full, claimed, confirmed, enrolled, disabled: head and body are equal."""
    with line(street, shared) as sock:
        answers = {tag: exchange(sock, tag)[0] for tag in [case.tag for case in CASES] + list(UNKNOWN)}
        assert len(set(answers.values())) == 1, {tag: answer[-300:] for tag, answer in answers.items()}
        assert b"<d:Code>NotEntitled</d:Code>" in answers["THFXXX01"]
        sent_on = {exchange(sock, tag)[0] for tag in ("ASIA0001", "ASIA0002")}
        assert len(sent_on) == 1, "whom a rule sends elsewhere is told so, registered here or not"
        assert b"delegator-asia.example:4433" in sent_on.pop()
        again = {exchange(sock, case.tag)[0] for case in CASES}
        assert again == set(answers.values()), "nor does asking twice show a difference"
    for case in CASES:
        reasons = " ".join(street.trails(case.tag)[-1]["reasons"])
        assert reasons, "the operator sees why"
    claims = street.store(lambda store: store.claims())
    assert {claim.service_tag for claim in claims} == {
        case.tag for case in CASES if case.before.startswith(("claimed", "confirmed", "enrolled"))} | {"THFPAC99"}


@pytest.mark.counterpart("openssl")
def test_R_contested_what_the_rules_give_the_first_who_asks_gets_and_nobody_else(
        street: World, shared: tuple[Path, Path]) -> None:
    """The shared certificate is enough where the owner says so; the first claim binds."""
    honest, thief = (Device(street, shared, GIVEN.tag) for _ in range(2))
    reply = honest.ask()
    assert reply.credential[1]
    for request in ("", None):
        stolen = thief.ask(transaction=THIEF, request=request)
        assert (stolen.fault, stolen.credential, stolen.text("HandshakeCertificate")) == ("NotEntitled", (None, None),
                                                                                          None)
    assert thief.confirm(reply, transaction=THIEF).fault == "NotEntitled"
    assert honest.ask().body == reply.body
    honest.keep(reply)
    assert honest.confirm(reply, own=True).status == 200


@pytest.mark.counterpart("openssl")
def test_R_alike_the_thief_cannot_tell_tags_apart_by_the_time_they_take(
        street: World, shared: tuple[Path, Path]) -> None:
    """Medians over interleaved samples in random order, all within a millisecond."""
    samples: dict[str, list[float]] = {tag: [] for tag in [case.tag for case in CASES] + list(UNKNOWN)}
    for _ in range(BATCHES):
        measure(street, shared, samples)
        medians = {tag: statistics.median(taken) for tag, taken in samples.items()}
        spread = max(medians.values()) - min(medians.values())
        noise = statistics.median(error_of_median(taken) for taken in samples.values())
        if spread <= WITHIN + NOISE * noise:
            break
    shown = {tag: f"{median * 1e6:.0f}" for tag, median in sorted(medians.items(), key=lambda pair: pair[1])}
    assert spread <= WITHIN + NOISE * noise, f"medians in µs: {shown}, each give or take {noise * 1e6:.0f}"


def error_of_median(taken: list[float]) -> float:
    """Its standard error, from the median absolute deviation: a busy machine's outliers do not reach it."""
    middle = statistics.median(taken)
    deviation: float = 1.4826 * statistics.median(abs(one - middle) for one in taken)
    return 1.2533 * deviation / len(taken) ** 0.5


def measure(world: World, shared: tuple[Path, Path], samples: dict[str, list[float]]) -> None:
    tags, chance = list(samples), random.Random()
    with line(world, shared) as sock:
        for tag in tags:
            exchange(sock, tag)
        for _ in range(ROUNDS):
            chance.shuffle(tags)
            for tag in tags:
                samples[tag].append(exchange(sock, tag)[1])


@pytest.mark.counterpart("openssl", "curl")
def test_R_contested_a_second_claimant_is_an_alarm_once_a_day_and_never_a_flood(street: World,
                                                                                shared: tuple[Path, Path]) -> None:
    """Log, metric, audit and a notice to the owner, whichever certificate was shown; unknown tags raise none."""
    with line(street, shared) as sock:
        for _ in range(25):
            for tag in ("THFCLM01", "THFENR01", "THFREL01", *UNKNOWN):
                exchange(sock, tag)
    street.factory.issue("device", "THFKEY01", renew=True)
    path = street.factory.certificate_path("device", "THFKEY01")
    assert street.ask("THFKEY01", shown=(path, path.with_suffix(".key"))).fault == "NotEntitled"
    assert until(lambda: len(contested(street)) == 4), contested(street)
    found = {one.service_tag: one for one in contested(street)}
    assert set(found) == {"THFCLM01", "THFENR01", "THFREL01", "THFKEY01"}
    assert until(lambda: {one.service_tag: one.times for one in contested(street)}["THFCLM01"] == 25)
    assert found["THFKEY01"].identity.value == "own"
    assert found["THFCLM01"].customer == "claimed"
    assert street.log.count("second claimant: ") == 4
    text = metrics(street)
    assert 'delegator_second_claimants_total{identity="shared"} 75.0' in text
    assert 'delegator_second_claimants_total{identity="own"} 1.0' in text
    assert "THF" not in text
    rows = [one for one in audit(street) if one["act"] == Act.CLAIM_CONTESTED.value]
    assert sorted(one["service_tag"] for one in rows) == sorted(found)
    notices = [one for one in street.store(lambda store: store.outbox.list())
               if one.event == Notice.SECOND_CLAIMANT.value]
    assert sorted(one.body["service_tag"] for one in notices) == sorted(found)
    assert {one.carrier for one in notices} == {NotificationKind.WEBHOOK}


def contested(world: World) -> Any:
    return world.store(lambda store: store.contests.list())


def until(condition: Any, seconds: float = 15) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)
    return bool(condition())


def metrics(world: World) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{world.ops}/metrics") as answer:  # type: ignore[attr-defined]
        text: str = answer.read().decode()
        return text


def audit(world: World) -> list[dict[str, Any]]:
    with sqlite3.connect(world.root / "delegator.db") as connection:
        names = ("act", "service_tag", "detail")
        rows = connection.execute("SELECT act, service_tag, detail FROM audit").fetchall()
    connection.close()
    return [dict(zip(names, row, strict=True)) | {"detail": json.loads(row[2])} for row in rows]


@pytest.mark.counterpart("openssl")
def test_TA11_a_stolen_own_certificate_that_was_revoked_is_refused_at_the_door(street: World,
                                                                               shared: tuple[Path, Path]) -> None:
    """Revoked in the store alone, and by no list: TLS says so."""
    pem = street.store(lambda store: store.enrolments.of_tag("THFREV01"))[0].certificate
    stolen = street.root / "stolen.crt"
    stolen.write_text(pem)
    key = next(path for path in street.root.glob("THFREV01-*.key"))
    until_refused(lambda: street.ask("THFREV01", shown=(stolen, key)))
