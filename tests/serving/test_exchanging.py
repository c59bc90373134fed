"""A reload that is not in order as a whole: each file that is in order by itself counts, the others stay. A10."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from delegator.config import Settings, Store
from delegator.errors import DelegatorError
from delegator.model import Customer, Notification, NotificationKind, NotificationState, Target
from delegator.net.stamps import HANGS, stamp_of
from delegator.serving import exchanging, parts
from delegator.serving.app import App
from delegator.serving.exchanging import salvaged
from delegator.serving.parts import Parts, prepare, watched, withdrawing
from pki import Folder, Refusal
from pki import disk as pki_disk
from pki.ledger import serial_text
from pki.pair import Pair
from pki.revocation import Reason, build_list

from ..test_unattended import READ, World


def now() -> datetime:
    return datetime.now(UTC)


class Shop(World):
    """A delegator that serves, and whose files change."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.factory, self.online = Folder.open(place / "pki"), Folder.open(place / "online")
        self.device = self.factory.issue("device", "ABC1234").certificate
        self.parts = prepare(self.settings, now)

    def revoke(self) -> None:
        self.factory.revoke([serial_text(self.device.serial_number)], Reason.KEY_COMPROMISE,
                            self.factory.authority())
        self.lists()

    def lists(self) -> None:
        (self.place / "lists.pem").write_bytes(self.factory.crl_path.read_bytes() + self.online.crl_path.read_bytes())

    def spoil(self, section: str, key: str) -> None:
        path = self.file(section, key)
        path.write_bytes(path.read_bytes()[:-30])

    async def salvage(self) -> tuple[Parts, tuple[str, ...]]:
        found = await salvaged(self.parts, frozenset(), now)
        return (self.parts, ()) if found is None else (found.parts, found.taken)

    def refuses(self, made: Parts) -> bool:
        return made.trust.refuse(self.device.serial_number, now()) is Refusal.REVOKED


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


OTHERS = [("server", "key"), ("server", "certificate"), ("server", "ca"), ("server", "issuers"), ("callbacks", "key"),
          ("callbacks", "certificate"), ("enrolment", "key"), ("enrolment", "certificate"), ("sealing", "key_file")]


@pytest.mark.parametrize("spoilt", OTHERS, ids="-".join)
async def test_b_a_revocation_counts_whatever_other_file_is_not_in_order(shop: Shop, spoilt: tuple[str, str]) -> None:
    shop.revoke()
    shop.spoil(*spoilt)
    made, taken = await shop.salvage()
    assert shop.refuses(made)
    assert not shop.refuses(shop.parts)
    assert taken == ("anchors and revocation lists",)
    assert made.settings is shop.parts.settings
    assert (made.shown, made.called_with, made.key.known) == (shop.parts.shown, shop.parts.called_with,
                                                              shop.parts.key.known)


@pytest.mark.parametrize("spoilt", OTHERS, ids="-".join)
async def test_b_what_is_not_in_order_stays_and_nothing_is_new_where_nothing_changed(
        shop: Shop, spoilt: tuple[str, str]) -> None:
    shop.spoil(*spoilt)
    assert await salvaged(shop.parts, frozenset(), now) is None


async def test_b_a_renewed_certificate_is_shown_although_the_lists_are_cut_off(shop: Shop) -> None:
    shop.factory.issue("delegator-server", "delegator", renew=True)
    shop.factory.issue("delegate-client", "delegator.test", renew=True)
    shop.spoil("server", "crl")
    made, taken = await shop.salvage()
    assert made.shown.leaf != shop.parts.shown.leaf
    assert isinstance(made.called_with, Pair)
    assert made.trust.revocation == shop.parts.trust.revocation
    assert taken == ("the server's certificate", "the certificate for delegates")


async def test_b_of_a_file_of_lists_that_is_cut_off_the_whole_ones_count(shop: Shop) -> None:
    shop.revoke()
    shop.spoil("server", "crl")  # the online authority's, which stands last
    made, _ = await shop.salvage()
    assert shop.refuses(made)


async def test_b_a_list_that_nobody_trusted_signed_withdraws_nobody(shop: Shop, tmp_path: Path) -> None:
    stranger = Folder.create(tmp_path / "stranger", common_name="Factory")
    stranger.ledger.append([])
    forged = build_list(stranger.authority(), [])
    (shop.place / "lists.pem").write_bytes(forged.public_bytes(Encoding.PEM))
    assert await salvaged(shop.parts, frozenset(), now) is None


async def test_b_who_was_withdrawn_stays_withdrawn(shop: Shop) -> None:
    before = withdrawing(shop.parts, frozenset({shop.device.serial_number}), now)
    assert shop.refuses(before)
    found = await salvaged(shop.parts, frozenset({shop.device.serial_number}), now)
    assert found is not None
    assert shop.refuses(found.parts)


async def test_b_anchors_that_do_not_believe_who_signs_online_are_not_taken_and_its_list_is(shop: Shop) -> None:
    shop.revoke()
    (shop.place / "anchors.pem").write_bytes(shop.factory.ca_path.read_bytes())
    made, _ = await shop.salvage()
    assert len(made.trust.anchors) == 2
    assert made.enrolment is not None
    assert shop.refuses(made)


async def test_b_a_file_on_a_disk_that_does_not_answer_holds_up_no_other(shop: Shop,
                                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    monkeypatch.setattr(exchanging, "BRIEFLY", 0.3)
    monkeypatch.setattr(exchanging, "load_shown", lambda settings: free.wait())
    shop.revoke()
    began = time.monotonic()
    try:
        made, _ = await shop.salvage()
    finally:
        free.set()
    assert time.monotonic() - began < 3
    assert shop.refuses(made)
    assert made.shown is shop.parts.shown


async def test_b_a_withdrawal_reads_no_file(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts within a round also where no file can be read at all."""
    def forbidden(*_: object) -> bytes:
        raise AssertionError("a file was read")
    monkeypatch.setattr(parts, "presented", forbidden)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    made = withdrawing(shop.parts, frozenset({shop.device.serial_number}), now)
    assert shop.refuses(made)
    assert made.callers is shop.parts.callers


def moved(path: Path) -> None:
    """Into its place goes a file of the same time and size, as `cp -p` and `mv` leave it."""
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)


CHANGES: dict[str, Callable[[Path], None]] = {
    "written": lambda path: path.write_bytes(path.read_bytes() + b"\n"), "gone": Path.unlink, "moved": moved}


@pytest.mark.parametrize("how", CHANGES)
async def test_every_file_that_is_read_again_is_watched(shop: Shop, how: str) -> None:
    files = [("server", name) for name in ("certificate", "key", "ca", "crl", "issuers")] + [
        (section, name) for section in ("callbacks", "enrolment") for name in ("certificate", "key")]
    for setting in files:
        before = await stamp_of(watched(shop.settings))
        CHANGES[how](shop.file(*setting))
        assert await stamp_of(watched(shop.settings)) != before, setting


@contextlib.asynccontextmanager
async def serving(shop: Shop) -> AsyncIterator[App]:
    """A whole delegator in this loop, on a port of its own."""
    shop.settings = msgspec.structs.replace(shop.settings, server=msgspec.structs.replace(
        shop.settings.server, host="127.0.0.1", port=0), store=Store(path=str(shop.place / "d.db")))
    app = App(shop.settings)
    await app.start()
    life = asyncio.ensure_future(app.run())
    try:
        yield app
    finally:
        app.stop()
        await life
        gc.unfreeze()


async def test_b_a_reload_that_is_refused_is_told_and_the_revocation_in_it_counts(shop: Shop) -> None:
    async with serving(shop) as app:
        shop.revoke()
        shop.spoil("server", "key")
        assert "delegator.key" in await app.exchange(lambda: shop.settings)
        assert shop.refuses(app._parts)
        assert app._listener.context is app._parts.context
        assert "delegator_reload_successful 0.0" in app.metrics.text().decode()


async def test_a_reload_that_lets_in_what_was_refused_says_so(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(shop) as app:
        older = (shop.place / "lists.pem").read_bytes()
        shop.revoke()
        assert not await app.exchange(lambda: shop.settings)
        assert "lets in" not in caplog.text
        (shop.place / "lists.pem").write_bytes(older)
        assert not await app.exchange(lambda: shop.settings)
        assert "this lets in what was refused before: revoked certificates that are on no list any more: 1" in (
            caplog.text)


async def test_b_settings_that_are_refused_take_nothing_with_them(shop: Shop) -> None:
    """Whole or not at all, where files are judged one by one."""
    async with serving(shop) as app:
        shop.spoil("server", "key")
        wanted = msgspec.structs.replace(shop.settings, limits=msgspec.structs.replace(shop.settings.limits, idle=3.0))
        shop.revoke()
        assert await app.exchange(lambda: wanted)
        assert app._parts.settings.limits.idle == shop.settings.limits.idle
        assert shop.refuses(app._parts)


async def test_b_a_reload_that_hangs_keeps_nobody_from_the_end(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    free = threading.Event()
    began = time.monotonic()
    async with serving(shop) as app:
        monkeypatch.setattr("delegator.serving.app.prepare", lambda *_: free.wait())
        app.reload()
        await asyncio.sleep(0.05)
    free.set()
    assert time.monotonic() - began < 10


OPENED: list[tuple[str, int]] = []


def _note(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open" and str(arguments[0]).endswith(".key"):
        OPENED.append((str(arguments[0]), threading.get_ident()))


async def test_b_no_key_is_read_on_the_event_loop(shop: Shop) -> None:
    """Of a whole delegator: its start, a reload, what is taken of one that was refused, a mail. Every file that is
    opened is told to an audit hook (PEP 578)."""
    OPENED.clear()
    sys.addaudithook(_note)
    async with serving(shop) as app:
        assert await app.exchange(lambda: shop.settings) == ""
        shop.spoil("server", "certificate")
        assert "cut off" in await app.exchange(lambda: shop.settings)
        with contextlib.suppress(DelegatorError):
            await app._notifier._carriers[NotificationKind.MAIL].deliver(*a_mail())
    assert {Path(name) for name, _ in OPENED} >= {shop.file(*setting) for setting in READ}
    assert {name for name, thread in OPENED if thread == threading.get_ident()} == set()


def a_mail() -> tuple[Notification, Customer, Target]:
    at = now()
    body = {"service_tag": "ABC1234", "peer": "192.0.2.7", "delegator": "delegator.example"}
    return (Notification("i1", "provisioned", "d", NotificationKind.MAIL, "0f" * 16, body, at, "acme", number=7,
                         give_up_at=at, attempts=3, state=NotificationState.WAITING), Customer("acme", "Acme"),
            Target("a@b.example"))


class Disk:
    """One that does not answer about some files, for a look, for opening or for both, until it is `well` again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.silent: set[str] = set()
        self.well = threading.Event()
        self.asked = 0
        look, open_it = Path.stat, os.open

        def stat(path: Path, **how: bool) -> os.stat_result:
            self.wait(path)
            return look(path, **how)

        def opened(path: Path, *arguments: Any, **how: Any) -> int:
            self.wait(path)
            return open_it(path, *arguments, **how)
        monkeypatch.setattr(Path, "stat", stat)
        monkeypatch.setattr(os, "open", opened)

    def wait(self, path: object) -> None:
        if str(path) in self.silent:
            self.asked += 1
            self.well.wait()
            self.silent.clear()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    for name in ("delegator.serving.exchanging.BRIEFLY", "delegator.net.stamps.BRIEFLY"):
        monkeypatch.setattr(name, 0.5)
    monkeypatch.setattr("delegator.net.aside.PATIENCE", 1.0)
    monkeypatch.setattr("delegator.serving.app.HOUSEKEEPING", 0.05)
    made = Disk(monkeypatch)
    yield made
    made.well.set()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not holds():
            await asyncio.sleep(0.02)


BESIDE_THE_LIST = [(section, key) for section, key in OTHERS if section != "sealing"]


@pytest.mark.parametrize("hangs", [
    pytest.param(one, marks=() if one == ("server", "key") else pytest.mark.slow) for one in BESIDE_THE_LIST],
    ids="-".join)
async def test_b_a_revocation_counts_whatever_other_file_hangs_and_however_long(
        shop: Shop, disk: Disk, hangs: tuple[str, str]) -> None:
    async with serving(shop) as app:
        threads = threading.active_count()
        disk.silent = {str(shop.file(*hangs))}
        await until(lambda: disk.asked > 0)
        await asyncio.sleep(0.75)  # fifteen rounds of its hanging
        shop.revoke()
        await until(lambda: shop.refuses(app._parts))
        await asyncio.sleep(0.75)
        assert threading.active_count() - threads <= 6, "one for each work that needs the file, however often"
        disk.well.set()
        await until(lambda: app._files.stamp is not None and HANGS not in app._files.stamp.values())
        await until(lambda: "delegator_reload_successful 1.0" in app.metrics.text().decode())


async def test_b_a_signal_takes_what_answers_where_another_file_hangs(shop: Shop, disk: Disk) -> None:
    async with serving(shop) as app:
        disk.silent = {str(shop.file("server", "key"))}
        await until(lambda: disk.asked > 0)
        for _ in range(20):
            assert "does not answer about" in await app.exchange(lambda: shop.settings)
        shop.revoke()
        app.reload()
        await until(lambda: shop.refuses(app._parts))


async def test_b_settings_that_hang_keep_no_revocation_from_counting_and_are_read_once_they_answer(
        shop: Shop, disk: Disk) -> None:
    free = threading.Event()
    wanted: list[Settings] = []

    def reread() -> Settings:
        free.wait()
        return wanted[0]
    async with serving(shop) as app:
        wanted.append(msgspec.structs.replace(shop.settings, limits=msgspec.structs.replace(
            shop.settings.limits, idle=3.0)))
        app._reread = reread
        app.reload()
        shop.revoke()
        await until(lambda: shop.refuses(app._parts))
        await asyncio.sleep(1.1)
        assert app._parts.settings.limits.idle != 3.0
        free.set()
        await until(lambda: app._parts.settings.limits.idle == 3.0)


async def test_b_lists_that_are_read_too_slowly_count_once_they_are_there(shop: Shop, disk: Disk,
                                                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """The look at them is quick; opening them is not, neither for the reload nor for what is taken of it."""
    free, reading = threading.Event(), pki_disk.read_regular
    lists = shop.file("server", "crl")
    monkeypatch.setattr(pki_disk, "read_regular", lambda path, *more: reading(
        path, *more) if path != lists or free.wait() else b"")
    async with contextlib.AsyncExitStack() as life:
        free.set()
        app = await life.enter_async_context(serving(shop))
        free.clear()
        shop.revoke()
        await asyncio.sleep(2)
        assert not shop.refuses(app._parts)
        free.set()
        await until(lambda: shop.refuses(app._parts))
