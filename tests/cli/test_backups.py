"""`delegator backup`, `delegator restore`: copies that open, refusals that help, nothing written over."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from delegator import config
from delegator.errors import DelegatorError
from delegator.sealing import create_key_file
from delegator.serving.parts import open_store_to_serve
from delegator.store import Store

from .conftest import Console

DATABASE, COPY = Path("var/delegator.db"), Path("copy.db")


def claims(console: Console) -> list[tuple[str, str]]:
    return [(one["service_tag"], one["state"]) for one in console.ok("claims", "list")]


def test_a_copy_is_private_whole_and_says_what_it_holds(acme: Console) -> None:
    acme.serve("ABC1234")
    made = acme.ok("backup", COPY)
    assert {key: made[key] for key in ("file", "claims", "devices")} == {"file": "copy.db", "claims": 1, "devices": 1}
    assert len(made["sealing_keys"]) == 1
    assert COPY.stat().st_mode & 0o777 == 0o600
    assert made["bytes"] == COPY.stat().st_size
    assert not list(Path().glob("copy.db-*")), "one plain file"
    assert not list(Path().glob(".copy*")), "and nothing left over"
    key = Path("var/sealing.key").read_bytes().strip()
    assert key not in COPY.read_bytes()


def test_restored_it_answers_the_same_and_what_was_there_is_kept(acme: Console) -> None:
    """A3: the credential that a device was given before is the one that it gets after."""
    before = acme.serve("ABC1234")
    acme.ok("backup", COPY)
    acme.ok("devices", "add", "LATER01", "--customer", "acme")
    done = acme.ok("restore", COPY, "--replace")
    assert acme.serve("ABC1234") == before
    assert [one["service_tag"] for one in acme.ok("devices", "list")] == ["ABC1234"]
    kept = Path(done["kept"])
    assert kept.name.startswith("delegator.db.replaced-")
    with sqlite3.connect(kept) as old:
        assert old.execute("SELECT count(*) FROM devices").fetchone() == (2,)
    old.close()
    assert DATABASE.stat().st_mode & 0o777 == 0o600


def test_on_another_machine_with_the_key_from_elsewhere_it_is_as_before(acme: Console) -> None:
    before = acme.serve("ABC1234")
    acme.ok("backup", COPY)
    shutil.move("var/sealing.key", "kept.key")
    shutil.rmtree("var")
    Path("var").mkdir()
    shutil.move("kept.key", "var/sealing.key")
    assert acme.ok("restore", COPY)["kept"] is None
    assert acme.serve("ABC1234") == before


def test_only_examined(acme: Console) -> None:
    acme.serve("ABC1234")
    acme.ok("backup", COPY)
    before = DATABASE.read_bytes()
    assert acme.ok("restore", COPY, "--check")["claims"] == 1
    assert DATABASE.read_bytes() == before


class TestRefusals:
    def test_nothing_is_written_over(self, acme: Console) -> None:
        COPY.write_text("mine")
        assert "nothing is ever written over" in acme.refused(6, "backup", COPY)
        assert COPY.read_text() == "mine"
        COPY.unlink()
        acme.ok("backup", COPY)
        assert "--replace" in acme.refused(6, "restore", COPY)

    def test_no_database_no_copy(self, console: Console) -> None:
        Path("var/delegator.db").unlink()
        console.refused(3, "backup", COPY)
        assert not COPY.exists()

    @pytest.mark.parametrize("words", [("customers", "add", "other", "--title", "Other"), ("customers", "list")],
                             ids=["writes", "reads"])
    def test_no_empty_database_beside_one_that_was_saved(self, acme: Console, words: tuple[str, ...]) -> None:
        acme.serve("ABC1234")
        saved = DATABASE.rename(f"{DATABASE}.saved-20300101T000000Z")
        assert _way_back(saved) in acme.refused(3, *words)
        assert _way_back(saved) in _start_refused()
        assert _way_back(saved) in acme.run("config", "check").err
        assert not DATABASE.exists()
        acme.ok("restore", saved, "--replace")
        assert len(claims(acme)) == 1

    def test_a_start_on_another_database_beside_one_that_was_saved_says_so(
            self, acme: Console, caplog: pytest.LogCaptureFixture) -> None:
        saved = Path(f"{DATABASE}.saved-20300101T000000Z")
        for lies, told in ((False, False), (True, True)):
            if lies:
                shutil.copy(DATABASE, saved)
            asyncio.run(_started())
            assert (_way_back(saved) in caplog.text) == told
            assert (_way_back(saved) in acme.run("config", "check").out) == told

    def test_while_somebody_has_it_open_it_is_not_replaced(self, acme: Console) -> None:
        """A delegator that does nothing at the moment is found as well."""
        acme.ok("backup", COPY)

        async def restored(store: Store) -> str:
            await store.customers()
            import asyncio

            return await asyncio.to_thread(acme.refused, 6, "restore", COPY, "--replace")
        words = acme.store(restored)
        assert "is in use" in words
        assert "systemctl stop" in words
        assert not list(Path("var").glob("*.replaced-*"))
        assert not list(Path("var").glob(".*.part*"))

    def test_a_copy_that_the_audit_cannot_be_told_of_is_told_all_the_same(self, acme: Console) -> None:
        """Whoever lost the sealing key needs a copy most; and a file that is there is not passed over in silence."""
        create_key_file(Path("other.key"))
        Path("delegator.toml").write_text('[sealing]\nkey_file = "other.key"\n')
        done = acme.run("backup", COPY)
        assert done.code == 3
        assert COPY.exists()
        assert done.out.strip() == str(COPY)
        assert "that is done, but the audit has no row of it" in done.err
        assert "delegator sealing status" in done.err

    def test_another_key(self, acme: Console) -> None:
        acme.serve("ABC1234")
        acme.ok("backup", COPY)
        Path("var/sealing.key").unlink()
        create_key_file(Path("var/sealing.key"))
        words = acme.refused(3, "restore", COPY, "--replace")
        assert "unknown key" in words
        assert "older_key_files" in words

    @pytest.mark.parametrize("damage", ["cut", "flipped", "text", "foreign"])
    def test_what_is_no_sound_copy(self, acme: Console, damage: str) -> None:
        acme.ok("backup", COPY)
        whole = COPY.read_bytes()
        if damage == "cut":
            COPY.write_bytes(whole[:len(whole) // 2])
        elif damage == "flipped":
            COPY.write_bytes(whole[:5000] + bytes(255 - byte for byte in whole[5000:9000]) + whole[9000:])
        elif damage == "text":
            COPY.write_text("no database at all\n" * 100)
        else:
            COPY.unlink()
            with sqlite3.connect(COPY) as other:
                other.execute("CREATE TABLE x (y)")
            other.close()
        before = DATABASE.read_bytes()
        acme.refused(3, "restore", COPY, "--replace")
        assert DATABASE.read_bytes() == before

    def test_a_copy_of_a_newer_release(self, acme: Console) -> None:
        acme.ok("backup", COPY)
        with sqlite3.connect(COPY) as newer:
            newer.execute("INSERT INTO schema_files (number, name, checksum) VALUES (9999, 'later', 'x')")
        newer.close()
        assert "newer than this program" in acme.refused(3, "restore", COPY, "--replace")


def test_a_damaged_database_is_put_aside_whole(acme: Console) -> None:
    """With its log: one that is left beside the restored database would be read into it."""
    acme.serve("ABC1234")
    acme.ok("backup", COPY)
    DATABASE.write_bytes(b"what the disk made of it" * 100)
    Path("var/delegator.db-wal").write_bytes(b"a log of it")
    kept = Path(acme.ok("restore", COPY, "--replace")["kept"])
    assert kept.read_bytes().startswith(b"what the disk")
    assert Path(f"{kept}-wal").read_bytes() == b"a log of it"
    assert claims(acme) == [("ABC1234", "issued")]


def test_a_copy_shows_one_moment_whatever_is_written_meanwhile(acme: Console) -> None:
    """The view is held from the begin on: what comes while pages are copied is not in it, not even in part."""
    from delegator.store.engines.sqlite import backup

    acme.serve("ABC1234")
    writer = sqlite3.connect(DATABASE, isolation_level=None)
    seen = []

    def meanwhile(done: int, total: int) -> None:
        writer.execute("INSERT INTO customers (name, title) VALUES (?1, 'x')", (f"c{len(seen)}",))
        seen.append((done, total))

    pages, backup.PAGES = backup.PAGES, 4
    try:
        backup.make(DATABASE, COPY, meanwhile)
    finally:
        backup.PAGES = pages
        writer.close()
    assert len(seen) > 5
    with sqlite3.connect(COPY) as copy:
        assert copy.execute("SELECT name FROM customers").fetchall() == [("acme",)]
    copy.close()


def _way_back(saved: Path) -> str:
    return f"delegator restore {saved} --replace"


async def _started() -> None:
    await (await open_store_to_serve(config.load(None))).close()


def _start_refused() -> str:
    """What `serve` says of its database."""
    with pytest.raises(DelegatorError) as refused:
        asyncio.run(open_store_to_serve(config.load(None)))
    return refused.value.hint


def _closed(console: Console) -> None:
    console.ok("customers", "disable", "acme")
    console.ok("policies", "change", "p", "--max-devices", "3")
    console.ok("policies", "disapprove", "p", "AAA1111")
    console.ok("devices", "remove", "BBB2222")


def test_a_restore_says_what_it_lets_in_that_was_closed_since(acme: Console) -> None:
    acme.ok("policies", "add", "p", "--approved-only", "--max-devices", "9")
    acme.ok("policies", "approve", "p", "AAA1111")
    acme.ok("devices", "add", "BBB2222", "--customer", "acme")
    acme.ok("backup", COPY)
    assert not acme.ok("restore", COPY, "--check").get("lets_in"), "the same lets nobody in"
    _closed(acme)
    checked = acme.run("restore", COPY, "--check", "--json")
    done = acme.run("restore", COPY, "--replace", "--json")
    for one in (checked, done):
        told = "\n".join(one.json["lets_in"])
        assert "WARNING: this lets in" in one.err
        for words in ("customer acme was disabled", "policy p: devices at once: 3 -> 9",
                      "policy p: 1 more devices are on its list", "1 identifiers of devices"):
            assert words in told
    assert not acme.ok("restore", COPY, "--check").get("lets_in")


@pytest.mark.parametrize(("since", "words"), [
    (("devices", "return", "BBB2222"), "customer acme owns 1 devices that it does not own now (returned"),
    (("transfers", "accept", "BBB2222", "--as", "globex"), "such as BBB2222"),
    (("orders", "remove", "4711"), "customer acme owns 1 devices that it does not own now"),
    (("orders", "change", "4711", "--delegate", "acme-small"), "customer acme: 1 devices go to another delegate"),
    (("devices", "change", "BBB2222", "--delegate", "acme-small"), "customer acme: 1 devices go to another delegate"),
    (("devices", "repair", "BBB2222", "--key-fingerprint", "ab" * 32, "--because", "x"), "one key alone may claim it")],
    ids=lambda one: " ".join(one[:2]) if isinstance(one, tuple) else "")
def test_a_device_that_changed_hands_since_is_told(acme: Console, since: tuple[str, ...], words: str) -> None:
    """The copy makes its old owner the owner again, and the device, which got nothing, is answered."""
    acme.ok("customers", "add", "globex", "--title", "Globex")
    acme.ok("devices", "add", "BBB2222", "--customer", "acme")
    acme.ok("orders", "add", "4711", "--customer", "acme")
    acme.ok("devices", "add", "CCC3333", "--order", "4711")
    acme.ok("transfers", "offer", "BBB2222", "--to", "globex")
    acme.ok("backup", COPY)
    acme.ok(*since)
    assert words in "\n".join(acme.ok("restore", COPY, "--check")["lets_in"])


def test_a_deployed_device_that_the_copy_does_not_know_as_deployed_is_told(acme: Console) -> None:
    acme.serve("ABC1234")
    acme.ok("backup", COPY)
    with sqlite3.connect(DATABASE) as database:
        database.execute("UPDATE claims SET state = 'confirmed', sealed = NULL, ended_at = 1")
    database.close()
    (told,) = acme.ok("restore", COPY, "--check")["lets_in"]
    assert told.startswith("1 devices that are deployed now")


@pytest.mark.parametrize(("statement", "words"), [
    ("INSERT INTO customer_keys VALUES ('acme', 'PEM', 1)", "transfers: what customer acme does had to be signed"),
    ("INSERT INTO boards VALUES ('ABC1234', 'key/1', 'refused', 1, NULL)", "the key of a main board was refused"),
    ("INSERT INTO enrolled VALUES ('1f', 'ABC1234', 'k', 'c', 'b', 'PEM', 1, 2, NULL, 1, 'stolen', NULL)",
     "its certificate 1f was revoked"),
    ("DROP TABLE enrolled", "cannot be compared"), ("DELETE FROM delegates", "delegate acme-small is there again")])
def test_of_each_kind_what_a_copy_does_not_know_is_told(acme: Console, statement: str, words: str) -> None:
    from delegator.sealing import SealingKey, read_key_file
    from delegator.store import receding

    acme.ok("backup", COPY)
    with sqlite3.connect(DATABASE) as database:
        database.execute(statement)
    database.close()
    key = SealingKey(read_key_file(Path("var/sealing.key")))
    assert words in "\n".join(receding.let_in(DATABASE, COPY, key, by_domain=False))


_ENROLLED = "INSERT INTO enrolled VALUES ('{0}', 'ABC1234', 'k{0}', 'c', 'b', 'PEM', 1, 2, NULL, {1})"
_STANDS, _FORGOTTEN = "NULL, NULL, NULL", "9, 'lost', 9"
_FORGET = "UPDATE enrolled SET revoked_at = 9, reason = 'lost', forgotten_at = 9"
_REVOKED = ["device ABC1234: its certificate 1f was revoked, now it is not"]
_REFUSED = ["device ABC1234: the shared certificate was refused for it, now it is not"]


@pytest.mark.parametrize(("copied", "since", "told"), [
    ([], [_ENROLLED.format("1f", _STANDS)], _REFUSED),
    ([_ENROLLED.format("1f", _FORGOTTEN)], [_ENROLLED.format("2f", _STANDS)], _REFUSED),
    ([_ENROLLED.format("1f", _STANDS)], [_FORGET], _REVOKED),
    ([_ENROLLED.format("1f", _STANDS)], [_FORGET, _ENROLLED.format("2f", _STANDS)], _REVOKED),
    (["INSERT INTO orders VALUES ('4711', 'acme', NULL)"], ["DELETE FROM orders"],
     ["order 4711 belongs to customer acme, whose it is not now"]),
    (["INSERT INTO orders VALUES ('4711', 'acme', NULL)"], ["UPDATE orders SET customer = 'umbra'"],
     ["order 4711 belongs to customer acme, whose it is not now"]),
    (["INSERT INTO orders VALUES ('4711', 'acme', NULL)"], ["UPDATE orders SET delegate = 'acme-small'"], []),
    ([], ["INSERT INTO orders VALUES ('4711', 'acme', NULL)"], [])],
    ids=["enrolled since", "forgotten and enrolled again since", "forgotten since", "enrolled anew since",
         "order removed since", "order of another since", "order's delegate since", "order added since"])
def test_a_restore_behind_an_enrolment_or_an_order_says_so_and_nothing_where_less_is_let_in(
        acme: Console, copied: list[str], since: list[str], told: list[str]) -> None:
    from delegator.sealing import SealingKey, read_key_file
    from delegator.store import receding

    acme.ok("customers", "add", "umbra", "--title", "Umbra")
    key = SealingKey(read_key_file(Path("var/sealing.key")))
    _run(*copied)
    acme.ok("backup", COPY)
    _run(*since)
    assert list(receding.let_in(DATABASE, COPY, key, by_domain=False)) == told


def _run(*statements: str) -> None:
    with sqlite3.connect(DATABASE) as database:
        for statement in statements:
            database.execute(statement)
    database.close()
