"""Each reason of the table, provoked by a server that really does it (mission A1, A12); and the table itself."""

from __future__ import annotations

import ssl
import threading
import time
from pathlib import Path

import pytest

from delegator.device import built, main, reasons
from delegator.device.certificate import Facts

DOCUMENT = Path(__file__).parents[2] / "docs" / "device-makers.md"
TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def test_the_table_is_whole_and_distinct():
    """Numbers in order, names and exit codes distinct and apart from those of the product's family."""
    assert [reason.number for reason in reasons.REASONS] == list(range(1, len(reasons.REASONS) + 1))
    assert len({reason.name for reason in reasons.REASONS}) == len(reasons.REASONS)
    codes = {reason.exit_code for reason in reasons.REASONS}
    assert len(codes) == len(reasons.REASONS)
    assert not codes & {0, 1, 2, 3, 4, 5, 6, 75}
    defined = [value for value in vars(reasons).values() if isinstance(value, reasons.Reason)]
    assert sorted(defined) == sorted(reasons.REASONS)


def test_the_documentation_prints_the_table(capsys):
    """docs/device-makers.md and `reasons` show what the code does."""
    assert reasons.table() in DOCUMENT.read_text(encoding="utf-8")
    assert main(["reasons"]) == 0
    assert capsys.readouterr().out.strip() == reasons.table()


# --- 1 to 4: the way to the delegator -----------------------------------------------------------------------------


def test_name_not_found(lab):
    lab.fails("no-such-host.invalid", "name-not-found")


def test_no_route(lab):
    """A broadcast address: the kernel itself says that there is no way."""
    lab.fails("255.255.255.255:4433", "no-route")


def test_no_route_when_nobody_answers_in_time(lab, monkeypatch):
    def silent(*_args, **_kw):
        raise TimeoutError("timed out")
    monkeypatch.setattr("socket.socket.connect", silent)
    lab.fails("localhost:4433", "no-route")


def test_nothing_listening(lab):
    lab.fails("localhost:1", "nothing-listening")


def test_tls_refused(lab):
    """Accepts and hangs up at the hello."""
    lab.fails(lab.serve(None), "tls-refused")


def test_tls_failed_not_tls_at_all(lab):
    lab.fails(lab.serve(None, at_once=b"HTTP/1.1 400 Bad Request\r\n\r\n"), "tls-failed")


def test_tls_failed_no_common_version(lab, say):
    """The alert's name is in the log."""
    context = say.server_context(lab.pki.delegator, lab.pki.factory.file, TLS12)
    context.set_ciphers("AES128-SHA:@SECLEVEL=0")
    facts = lab.fails(lab.serve(context), "tls-failed")
    assert "handshake_failure" in facts["detail"]


# --- 6 to 8: the delegator must prove itself (block 207) ----------------------------------------------------------


def test_a1_server_not_trusted(lab):
    """A1, block 207: a certificate of another authority; the question is never sent."""
    rogue = lab.delegator(leaf=lab.pki.owner.leaf("delegator", server=True))
    facts = lab.fails(rogue, "server-not-trusted")
    assert facts["exit_code"] == 27
    assert rogue.heard == []


def test_a1_server_not_trusted_when_expired(lab, say):
    old = lab.pki.factory.leaf("delegator", server=True, start=-9 * say.DAY, end=-say.DAY)
    assert "expired" in lab.fails(lab.delegator(leaf=old), "server-not-trusted")["detail"]


def test_a1_a_device_certificate_is_not_a_delegator(lab):
    """Another device of the same factory cannot play the delegator: its certificate is for clients only."""
    lab.fails(lab.delegator(leaf=lab.pki.device), "server-not-trusted", "--server-name", "ABC1234")


def test_a1_server_name_mismatch(lab, say):
    """By name, by address, and with --server-name, which changes the name and not the check."""
    other = lab.pki.factory.leaf("d", server=True, names=("delegator.example",))
    server = lab.delegator(say.answer(), say.CONFIRMED, leaf=other)
    lab.fails(server, "server-name-mismatch")
    lab.fails(f"127.0.0.1:{server.port}", "server-name-mismatch")
    lab.fails(server, "server-name-mismatch", "--server-name", "evil-delegator.example")
    assert lab.run(server, "--server-name", "delegator.example")["outcome"] == "ready"


def test_clock_not_set(lab, say):
    early = lab.pki.factory.leaf("delegator", server=True, start=say.DAY)
    facts = lab.fails(lab.delegator(leaf=early), "clock-not-set")
    assert facts["exit_code"] == 26


def test_a_clock_before_the_build_is_judged_by_the_build(lab, say, monkeypatch):
    """A device at 1970: not-yet-valid is no argument then, and the words say what was done."""
    early = lab.pki.factory.leaf("delegator", server=True, start=say.DAY)
    monkeypatch.setattr(built, "BUILD_TIME", 4_000_000_000)
    monkeypatch.setattr("delegator.device.tls.facts", lambda _der: Facts((), 4_000_000_001, True))
    assert lab.run(lab.delegator(say.answer(), say.CONFIRMED, leaf=early))["outcome"] == "ready"
    assert "clock of this device is not set" in lab.err


def test_a_clock_before_the_build_does_not_revive_old_certificates(lab, monkeypatch):
    """The build time is the lower bound: what ended before it has ended for certain."""
    monkeypatch.setattr(built, "BUILD_TIME", 4_000_000_000)
    rogue = lab.delegator()
    assert "ended on" in lab.fails(rogue, "server-not-trusted")["detail"]
    assert rogue.heard == []


# --- 9, 10: the device must prove itself (blocks 208-211) ---------------------------------------------------------


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a1_client_refused_unknown_authority(lab, version):
    """A1: TLS 1.2 says it in the handshake, TLS 1.3 at the first read; the device tells both the same way."""
    server = lab.delegator(client_ca=lab.pki.owner.file, version=version)
    facts = lab.fails(server, "client-refused")
    assert (facts["exit_code"], facts["detail"]) == (29, "TLS alert unknown_ca")


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_a1_client_refused_expired(lab, say, version):
    old = lab.pki.factory.leaf("OLD1234", start=-9 * say.DAY, end=-say.DAY)
    facts = lab.fails(lab.delegator(version=version), "client-refused", leaf=old)
    assert facts["detail"] == "TLS alert certificate_expired"


def test_client_refused_without_an_alert(lab):
    """TLS 1.3, closed before any answer: that is how a refusal looks through some proxies."""
    assert "without an alert" in lab.fails(lab.delegator(None, version=TLS13), "client-refused")["detail"]


def test_no_answer(lab):
    """TLS 1.2 settles identity inside the handshake: closing later is not a refusal."""
    lab.fails(lab.delegator(None, version=TLS12), "no-answer")


def test_no_answer_in_time(lab, say):
    release = threading.Event()
    server = lab.delegator(lambda _heard: release.wait(5) and None)
    lab.fails(server, "no-answer", "--timeout", "0.3")
    release.set()


def test_an_answer_that_drips_is_cut_at_the_deadline(lab, say):
    """One byte at a time keeps every single read alive, but not the exchange."""
    server = lab.serve(say.server_context(lab.pki.delegator, lab.pki.factory.file))

    def drip(secured):
        for byte in say.answer():
            secured.sendall(bytes([byte]))  # the server notes the error when the device hangs up
            time.sleep(0.02)
    server._answer = drip
    lab.fails(server, "no-answer", "--timeout", "0.4")


def test_an_answer_cut_at_any_byte_is_never_taken_for_whole(lab, say):
    """Cut in the status line, the headers and the body: never a credential."""
    whole = say.answer()
    for cut in [1, 12, 15, 40, *range(80, len(whole) - 1, 97), len(whole) - 1]:
        facts = lab.run(lab.delegator(whole[:cut]), "--once")
        assert facts["reason"] in ("no-answer", "answer-not-understood"), cut
        assert not (lab.state / "credential.json").exists()


# --- 11 to 16: what the delegator says ----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [
    b"", b"nonsense", b"HTTP/1.1 200 OK\r\n\r\nnot xml", b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"])
def test_answer_not_understood(lab, body):
    lab.fails(lab.delegator(body or b"\r\n\r\n", version=TLS12), "answer-not-understood")


def test_answer_too_large(lab, say):
    lab.fails(lab.delegator(say.http(b"<" * 300_000)), "answer-not-understood")


@pytest.mark.parametrize(("code", "reason"), [
    ("Unavailable", "unavailable"), ("MalformedRequest", "malformed-request"),
    ("IdentityRejected", "identity-rejected"), ("NotEntitled", "not-entitled"), ("TryLater", "try-later"),
    ("Surprise", "answer-not-understood")])
def test_each_fault(lab, say, code, reason):
    lab.fails(lab.delegator(say.fault(code, 5)), reason)


@pytest.mark.parametrize(("status", "reason"), [("503 Busy", "unavailable"), ("429 Too Many", "try-later")])
def test_statuses_without_a_fault(lab, say, status, reason):
    lab.fails(lab.delegator(say.http("", status, "Retry-After: 7")), reason)


# --- 17, 18: the credential ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("credential", ["", "<Credential/>", "<Credential><UserName>u</UserName></Credential>",
                                        "<Credential><UserName/><Password>p</Password></Credential>"])
def test_no_credential(lab, say, credential):
    lab.fails(lab.delegator(say.answer(credential=credential)), "no-credential")


def test_unusable_credential(lab, say):
    """Longer than this device can hold: refused on arrival, nothing stored."""
    lab.fails(lab.delegator(say.answer(user="u" * 17)), "unusable-credential", "--max-user", "16")
    lab.fails(lab.delegator(say.answer(password="p" * 21)), "unusable-credential", "--max-password", "20")
    assert not (lab.state / "credential.json").exists()


def test_unusable_credential_refused_by_the_delegate(lab, say):
    delegate = lab.delegate(say.http("", "401 Unauthorized"))
    facts = lab.fails(lab.delegator(lab.issued(delegate)), "unusable-credential")
    assert "401" in facts["detail"]


# --- 19 to 21: the delegate ---------------------------------------------------------------------------------------


def test_delegate_unreachable(lab, say):
    lab.fails(lab.delegator(say.answer(url="https://localhost:1/", anchor=lab.pki.owner.pem)), "delegate-unreachable")
    lab.fails(lab.delegator(lab.issued(lab.delegate(say.http(say.DATA)[:-9]))), "delegate-unreachable")


def test_delegate_not_trusted(lab, say):
    """Another anchor, another name, no anchor at all; the factory CA is no anchor here. No password is sent."""
    rogue = lab.delegate(leaf=lab.pki.delegator)
    lab.fails(lab.delegator(lab.issued(rogue)), "delegate-not-trusted")
    other = lab.delegate(leaf=lab.pki.owner.leaf("x", server=True, names=("elsewhere.example",)))
    lab.fails(lab.delegator(lab.issued(other)), "delegate-not-trusted")
    fine = lab.delegate()
    lab.fails(lab.delegator(say.answer(url=f"https://{fine.address}/", anchor="no certificate")),
              "delegate-not-trusted")
    assert rogue.heard == other.heard == fine.heard == []


def test_a_delegate_can_be_anchored_by_its_own_certificate(lab, say):
    delegate = lab.delegate()
    pem = Path(lab.pki.delegate.certificate).read_text()
    delegator = lab.delegator(say.answer(url=f"https://{delegate.address}/", anchor=pem), say.CONFIRMED)
    assert lab.run(delegator)["outcome"] == "ready"


@pytest.mark.parametrize(("status", "body"), [
    ("302 Found", b""), ("500 Oops", b""), ("200 OK", b"not xml"), ("200 OK", b"<Provisioning/>"),
    ("200 OK", b'<!DOCTYPE a><Provisioning xmlns="urn:delegator:provisioning:1"/>')])
def test_delegate_failed(lab, say, status, body):
    """Also redirections: the credential goes to the named server and to no other."""
    delegate = lab.delegate(say.http(body, status, "Location: https://elsewhere.example/"))
    lab.fails(lab.delegator(lab.issued(delegate)), "delegate-failed")


def test_a_document_without_its_namespace_is_told_so(lab, say):
    facts = lab.fails(lab.delegator(lab.issued(lab.delegate(say.http(b"<Provisioning/>")))), "delegate-failed")
    assert facts["detail"] == ("the root element is Provisioning in no namespace, and must be Provisioning in the "
                               "namespace urn:delegator:provisioning:1")


@pytest.mark.parametrize("missing", ["--certificate", "--key", "--ca"])
def test_a_file_that_cannot_be_read_is_the_one_that_is_named(lab, missing):
    facts = lab.run("127.0.0.1:1", "--once", missing, "none.pem")
    assert (facts["exit_code"], facts["outcome"]) == (3, "failed")
    assert "none.pem: No such file or directory" in facts["detail"] or "none.pem cannot be used" in facts["detail"]
    assert "[Errno" not in facts["detail"]


# --- 22: the hook -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "limit", "words"), [
    ("raise SystemExit(7)", "9", "ended with 7"), ("import time; time.sleep(60)", "0.3", "took longer than 0.3 s"),
    ("import os; os.kill(os.getpid(), 9)", "9", "ended with -9")])
def test_hook_failed(lab, say, code, limit, words):
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    facts = lab.fails(delegator, "hook-failed", "--hook", lab.hook(code), "--hook-timeout", limit)
    assert (facts["detail"].partition(" ")[2], facts["exit_code"]) == (words, 42)
    assert delegator.heard[1].value("Result") == "Failed"
    assert lab.saved()["phase"] == "asking"  # the next power-on asks


def test_hook_failed_even_if_nobody_can_be_told(lab, say):
    delegator = lab.delegator(say.answer(), say.fault("Unavailable"))
    lab.fails(delegator, "hook-failed", "--hook", lab.hook("raise SystemExit(1)"))
    assert "could not be told" in lab.err
