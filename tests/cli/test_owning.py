"""Commands for whose a device is: release, return, transfer with real signatures, repair with real certificates
(A4, A8)."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.model import Answer
from delegator.store.transaction import Query, Transaction
from pki import Folder

from .conftest import Console

OPENSSL = pytest.mark.counterpart("openssl")


@pytest.fixture
def globex(acme: Console) -> Console:
    """Acme owns ABC1234 with a hosted delegate; globex is there to buy it."""
    acme.ok("customers", "add", "globex", "--title", "Globex")
    acme.ok("delegates", "add", "globex-small", "--customer", "globex", "--hosted", "globex-admin")
    return acme


def openssl(*words: object) -> bytes:
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=30).stdout


def key_of(name: str, algorithm: tuple[str, ...] = ("ed25519",)) -> tuple[Path, Path]:
    """A private and a public key as a customer makes them."""
    private, public = Path(f"{name}.key"), Path(f"{name}.pub")
    openssl("genpkey", "-algorithm", *algorithm, "-out", private)
    private.chmod(0o600)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    return private, public


def user(answer: Answer | DelegatorError) -> str:
    assert isinstance(answer, Answer), answer
    return answer.credential.user_name


def refused(answer: Answer | DelegatorError, words: str) -> None:
    assert isinstance(answer, DelegatorError)
    assert answer.kind is Kind.NOT_ENTITLED
    assert words in answer.detail


def forged(row: str) -> Transaction[int]:
    """What somebody with the database file, but without its sealing key, makes of a signed row: the other customer's
    act, with a signature that is good, of something else."""
    chain, _, number = row.rpartition(":")
    rows = yield Query("UPDATE audit SET detail = replace(detail, '\"offered_to\":\"globex\"', "
                       "'\"offered_to\":\"umbra\"') WHERE chain = $1 AND number = $2 RETURNING number",
                       (chain or "main", int(number)))
    return len(rows)


# --- transfers ----------------------------------------------------------------------------------------------------


def test_A8_two_steps_and_the_device_is_the_other_customers(globex: Console) -> None:
    assert user(globex.serve("ABC1234")) != "globex-admin"
    (offered,) = globex.ok("transfers", "offer", "ABC1234", "--to", "globex", "--because", "sold")
    assert (offered["offered_by"], offered["offered_to"], offered["state"]) == ("acme", "globex", "offered")
    assert globex.ok("devices", "show", "ABC1234")["offered_to"] == "globex"
    assert user(globex.serve("ABC1234")) != "globex-admin", "until it is accepted the old owner stays"
    assert globex.ok("transfers", "list", "--customer", "globex", "--state", "offered") == [offered]
    (done,) = globex.ok("transfers", "accept", offered["transfer_id"], "--as", "globex", "--delegate", "globex-small")
    assert done["state"] == "accepted"
    shown = globex.ok("devices", "show", "ABC1234")
    assert (shown["customer"], shown["delegate"], "offered_to" in shown) == ("globex", "globex-small", False)
    assert user(globex.serve("ABC1234")) == "globex-admin"
    steps = globex.ok("transfers", "show", offered["transfer_id"])["steps"]
    assert [(one["step"], one["customer"], one["signature"]) for one in steps] == [
        ("transfer.offered", "acme", None), ("transfer.accepted", "globex", None)]
    assert all(one["actor"].startswith("operator ") and one["peer"] == "local" for one in steps)
    lines = globex.run("transfers", "show", offered["transfer_id"]).out
    assert "transfer.accepted" in lines


def test_A4_declined_or_withdrawn_it_stays_where_it_was(globex: Console) -> None:
    for step, whose in (("decline", "globex"), ("withdraw", "acme")):
        globex.ok("transfers", "offer", "ABC1234", "--to", "globex")
        assert "is offered to globex already" in globex.refused(6, "transfers", "offer", "ABC1234", "--to", "globex")
        globex.refused(5, "transfers", step, "ABC1234", "--as", "acme" if whose == "globex" else "globex")
        globex.ok("transfers", step, "ABC1234", "--as", whose)
        globex.refused(1, "transfers", "accept", "ABC1234", "--as", "globex")
    assert globex.ok("devices", "show", "ABC1234")["customer"] == "acme"


def test_A4_many_devices_by_file_and_by_order(globex: Console) -> None:
    for number in range(3):
        globex.ok("devices", "add", f"ORD000{number}", "--customer", "acme", "--order", "4712")
    Path("some").write_text("ORD0000\n# a comment\n\nORD0001\nORD0000\n")
    assert len(globex.ok("transfers", "offer", "--devices", "some", "--to", "globex")) == 2
    assert "ORD0000 is offered" in globex.refused(6, "transfers", "offer", "--order", "4712", "--as", "acme", "--to",
                                                  "globex")
    assert len(globex.ok("transfers", "list", "--state", "offered")) == 2, "all or none"
    assert len(globex.ok("transfers", "withdraw", "--order", "4712", "--as", "acme")) == 2
    assert len(globex.ok("transfers", "offer", "--order", "4712", "--as", "acme", "--to", "globex")) == 3
    assert len(globex.ok("transfers", "accept", "--order", "4712", "--as", "globex")) == 3
    assert {globex.ok("devices", "show", f"ORD000{number}")["customer"] for number in range(3)} == {"globex"}
    for words in (("offer", "--to", "globex"),
                  ("offer", "ABC1234", "--order", "4712", "--as", "acme", "--to", "globex"),
                  ("offer", "--order", "4712", "--to", "globex"), ("accept", "--as", "globex"),
                  ("offer", "ABC1234", "--to", "globex", "--until", "2020-01-01")):
        globex.refused(2, "transfers", *words)
    Path("many").write_text("service_tag\n" + "".join(f"MANY{number:04}\n" for number in range(2001)))
    assert "split -l 2000" in globex.refused(2, "transfers", "offer", "--devices", "many", "--to", "globex")


# --- signed -------------------------------------------------------------------------------------------------------


@OPENSSL
@pytest.mark.parametrize("algorithm", [("ed25519",), ("EC", "-pkeyopt", "ec_paramgen_curve:P-256")],
                         ids=["ed25519", "p256"])
def test_A4_a_customer_signs_with_openssl_and_its_key_stays_at_home(
        globex: Console, algorithm: tuple[str, ...]) -> None:
    private, public = key_of("globex", algorithm)
    globex.ok("customers", "change", "globex", "--signing-key", public)
    globex.ok("customers", "change", "globex", "--title", "Globex Inc.")
    shown = globex.ok("customers", "show", "globex")
    assert len(shown["signing_key"]) == 64, "a change of the title leaves the key alone"
    (offered,) = globex.ok("transfers", "offer", "ABC1234", "--to", "globex")
    assert "globex signs what it does" in globex.refused(5, "transfers", "accept", "ABC1234", "--as", "globex")
    text = globex.run("transfers", "statement", "accept", "ABC1234").out
    assert json.loads(text)["transfer"] == offered["transfer_id"]
    Path("statement").write_text(text)
    openssl("pkeyutl", "-sign", "-rawin", "-inkey", private, *(["-digest", "sha256"] if algorithm[0] == "EC" else []),
            "-in", "statement", "-out", "signature")
    openssl("base64", "-in", "signature", "-out", "signature.b64")
    stranger, _ = key_of("stranger")
    globex.refused(5, "transfers", "accept", "ABC1234", "--as", "globex", "--sign-with", stranger)
    globex.ok("transfers", "accept", "ABC1234", "--as", "globex", "--signature",
              "signature" if algorithm[0] == "EC" else "signature.b64")
    (_, accepted) = globex.ok("transfers", "show", offered["transfer_id"])["steps"]
    assert (accepted["signature"], accepted["statement"]) == ("holds", text)
    assert shown["signing_key"].startswith(accepted["key"])
    (row,) = globex.ok("audit", "list", "--act", "transfer.accepted")
    assert globex.ok("audit", "show", row["row"])["signed"] == {
        "signature": "holds", "statement": text, "key": accepted["key"]}
    tampered = globex.store(lambda store: store._driver.run(lambda: forged(row["row"])))
    assert tampered == 1
    assert globex.ok("audit", "show", row["row"])["signed"]["signature"] == "does not hold"
    assert globex.run("audit", "verify").code == 5


@OPENSSL
def test_A4_with_the_key_at_hand_a_step_is_signed_as_it_is_taken(globex: Console) -> None:
    private, public = key_of("acme")
    globex.ok("customers", "change", "acme", "--signing-key", public)
    private.chmod(0o644)
    assert "can be read by others" in globex.refused(3, "transfers", "offer", "ABC1234", "--to", "globex",
                                                     "--sign-with", private)
    private.chmod(0o600)
    (offered,) = globex.ok("transfers", "offer", "ABC1234", "--to", "globex", "--until", "2099-01-01", "--sign-with",
                           private)
    said = globex.ok("transfers", "show", offered["transfer_id"])["steps"][0]["statement"]
    globex.ok("transfers", "withdraw", "ABC1234", "--as", "acme", "--sign-with", private)
    assert globex.run("transfers", "statement", "offer", "ABC1234", "--to", "globex", "--until",
                      "2099-01-01").out == said
    assert "was made before" in globex.refused(6, "transfers", "offer", "ABC1234", "--to", "globex", "--until",
                                               "2099-01-01", "--sign-with", private)
    globex.ok("customers", "change", "acme", "--signing-key", "none")
    globex.ok("transfers", "offer", "ABC1234", "--to", "globex")
    assert private.read_text().splitlines()[1] not in globex.said


@OPENSSL
def test_A4_what_is_no_key_is_refused_with_what_to_do(globex: Console) -> None:
    private, _ = key_of("acme")
    openssl("genpkey", "-algorithm", "RSA", "-out", "rsa.key")
    openssl("pkey", "-in", "rsa.key", "-pubout", "-out", "rsa.pub")
    Path("empty").write_text("")
    for file, words in ((private, "private key"), ("rsa.pub", "Ed25519"), ("empty", "it is empty")):
        assert words in globex.refused(3, "customers", "change", "acme", "--signing-key",
                                       file)
    assert globex.ok("customers", "show", "acme")["signing_key"] is None
    Path("rsa.key").chmod(0o600)
    Path("empty").chmod(0o600)
    for file in ("rsa.key", "empty"):
        globex.refused(3, "transfers", "offer", "ABC1234", "--to", "globex", "--sign-with", file)
    globex.refused(2, "transfers", "offer", "ABC1234", "--to", "globex", "--sign-with", private, "--signature", "empty")


# --- back to stock, repaired --------------------------------------------------------------------------------------


def test_A4_a_returned_device_gets_nothing_until_it_is_sold(globex: Console) -> None:
    globex.serve("ABC1234")
    globex.ok("transfers", "offer", "ABC1234", "--to", "globex")
    (returned,) = globex.ok("devices", "return", "ABC1234", "--because", "RMA 77")
    assert (returned["customer"], returned["order"], returned["returned_by"]) == (None, "returned", "acme")
    refused(globex.serve("ABC1234"), "ABC1234")
    assert globex.ok("claims", "list", "--tag", "ABC1234")[0]["state"] == "released"
    assert globex.ok("transfers", "list")[0]["state"] == "withdrawn"
    globex.refused(6, "devices", "return", "ABC1234")
    globex.refused(6, "transfers", "offer", "ABC1234", "--to", "globex")
    globex.ok("devices", "change", "ABC1234", "--customer", "globex")
    assert user(globex.serve("ABC1234")) == "globex-admin"


def test_A8_after_a_factory_reset_the_operator_lets_it_in_again(globex: Console) -> None:
    first = globex.serve("ABC1234")
    assert isinstance(first, Answer)
    refused(globex.serve("ABC1234", device="2"), "taken by another")
    assert globex.ok("claims", "release", "ABC1234", "--because", "factory reset") == {
        "service_tag": "ABC1234", "released": 1}
    second = globex.serve("ABC1234")
    assert isinstance(second, Answer)
    assert second.claim_id != first.claim_id


@OPENSSL
def test_A8_a_repair_takes_the_new_boards_certificate(globex: Console, factory: Folder) -> None:
    globex.ok("devices", "add", "REPAIR1", "--customer", "acme")
    globex.serve("REPAIR1")
    old = globex.store(lambda store: store.claims(service_tag="REPAIR1"))[0].binding
    certificate = factory.issue("device", "REPAIR1").certificate_path
    shown = globex.ok("devices", "repair", "REPAIR1", "--certificate", certificate, "--because", "ticket 4711")
    assert {one["standing"] for one in shown["keys"]} == {"refused", "approved"}
    approved = next(one["key"] for one in shown["keys"] if one["standing"] == "approved")
    Path("public").write_bytes(openssl("x509", "-in", certificate, "-noout", "-pubkey"))
    der = openssl("pkey", "-pubin", "-in", "public", "-outform", "DER")
    assert approved == hashlib.sha256(der).hexdigest()
    refused(globex.serve("REPAIR1"), "that was replaced")
    refused(globex.serve("REPAIR1", device="3"), "not the one that was approved")
    data = globex.ok("devices", "show", "REPAIR1")
    assert (data["approved_key"], data["refused_keys"]) == (approved, [old.removeprefix("key:")])
    other = factory.issue("device", "OTHER42").certificate_path
    assert "is of OTHER42, not of REPAIR1" in globex.refused(
        3, "devices", "repair", "REPAIR1", "--certificate", other, "--because", "x")


def test_A8_a_repair_without_a_certificate_lets_the_next_board_in_once(globex: Console) -> None:
    globex.serve("ABC1234")
    globex.refused(2, "devices", "repair", "ABC1234")
    globex.refused(2, "devices", "repair", "ABC1234", "--key-fingerprint", "abc", "--because", "x")
    globex.refused(1, "devices", "repair", "NOBODY1", "--because", "x")
    globex.ok("devices", "repair", "ABC1234", "--within", "3d", "--because", "ticket 4712")
    assert globex.ok("devices", "show", "ABC1234")["approved_key"] == "any"
    refused(globex.serve("ABC1234"), "that was replaced")
    assert isinstance(globex.serve("ABC1234", device="2"), Answer)
    refused(globex.serve("ABC1234", device="3"), "taken by another")
    assert "approved_key" not in globex.ok("devices", "show", "ABC1234")


def test_A8_explain_tells_what_a_repair_means(globex: Console) -> None:
    globex.serve("ABC1234")
    globex.ok("devices", "repair", "ABC1234", "--within", "3d", "--because", "ticket")
    assert "with a key that is not of a board that was replaced" in globex.run("explain", "ABC1234").out
    late = globex.run("explain", "ABC1234", "--at", "2099-01-01")
    assert (late.code, "approval of its repair ended" in late.out + late.err) == (5, True)
    globex.ok("devices", "repair", "ABC1234", "--key-fingerprint", "AB:" * 31 + "AB", "--because", "ticket")
    assert f"with a key {'ab' * 32}, approved with its repair" in globex.run("explain", "ABC1234").out
