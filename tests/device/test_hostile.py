"""Nothing that a server says stops a device for good: strange bytes, sizes, numbers, names and certificates.

Each case ends with a reason of the table, and the next power-on of the same device asks again and becomes ready.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from delegator.device import answers, asking, channel, flow, reasons
from delegator.device.addresses import MOST, parse_delegate_url
from delegator.device.certificate import common_names
from delegator.device.document import Document
from delegator.device.envelope import ALTERNATES, HttpAnswer
from delegator.device.reasons import Failure

from ..thorough import THOROUGH

FEW = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ROOT = Path(__file__).parents[2]
CODES = {reason.exit_code for reason in reasons.REASONS}


def comes_good(lab, say, *more, confirmed_by=None):
    """The next power-on, where all others are well. What was applied already is confirmed by who knows the claim."""
    delegate = lab.delegate()
    delegator = lab.delegator(lab.issued(delegate), say.CONFIRMED)
    assert lab.run(delegator, *more)["outcome"] == "ready", lab.err
    assert delegator.heard or "Deployed" in [heard.value("Result") for heard in confirmed_by.heard]


# --- any bytes ----------------------------------------------------------------------------------------------------


PIECES = st.sampled_from([
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Length: ", b"-1",
    b"Transfer-Encoding: chunked\r\n", b"\r\n\r\n", b"ffffffffffffffff\r\n", b"-1\r\n", b"0\r\n",
    b"Retry-After: ", b"\x00", b"\xff\xfe", b"<s:Envelope",
    b' xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">', b"<s:Body>", b"</s:Body></s:Envelope>",
    b"9" * 5000, b"<!DOCTYPE a>", b"&#0;", "\u202e".encode(), b"<ClaimId>a\nb</ClaimId>"])
ANYTHING = st.one_of(st.binary(max_size=400), st.lists(PIECES, max_size=12).map(b"".join))


@FEW
@given(said=ANYTHING)
def test_any_bytes_of_a_delegator_are_a_reason_and_the_next_one_is_asked(lab, say, said):
    bad, good = lab.delegator(said), lab.delegator(say.answer(), say.CONFIRMED)
    facts = lab.run(f"{bad.address},{good.address}", "--again", "--once")
    assert facts["outcome"] == "ready" or facts["exit_code"] in CODES
    assert good.heard or bad.heard
    assert len(lab.err.splitlines()) <= 4


@FEW
@given(said=ANYTHING)
def test_any_bytes_of_an_owners_server_are_a_reason_and_the_next_power_on_asks(lab, say, said):
    delegator = lab.delegator(lab.issued(lab.delegate(said)), say.CONFIRMED)
    assert lab.run(delegator, "--again", "--once")["exit_code"] in CODES
    comes_good(lab, say)


@pytest.mark.parametrize("anchor", [
    "", "\u00e9", "-----BEGIN CERTIFICATE-----\n\u00e9\n-----END CERTIFICATE-----",
    "-----BEGIN CERTIFICATE-----" * 9000])
def test_an_anchor_that_is_none_is_a_reason(lab, say, anchor):
    delegate = lab.delegate()
    facts = lab.run(lab.delegator(say.answer(url=f"https://{delegate.address}/", anchor=anchor or " ")), "--once")
    assert facts["reason"] in ("delegate-not-trusted", "answer-not-understood")
    comes_good(lab, say)


def test_words_in_any_language_beside_an_anchor_do_no_harm(lab, say):
    delegate = lab.delegate()
    anchor = f"Autorit\u00e9 de l'usine \u5de5\u5382\n{lab.pki.owner.pem}"
    delegator = lab.delegator(say.answer(url=f"https://{delegate.address}/", anchor=anchor), say.CONFIRMED)
    assert lab.run(delegator)["outcome"] == "ready"


# --- certificates -------------------------------------------------------------------------------------------------


def test_a_strange_name_beside_the_right_one_keeps_nobody(lab, say, monkeypatch):
    """An alternative name that is not UTF-8, which Python's ssl module cannot tell of."""
    names = x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME,
                                       b"\x30\x0f\x82\x02\xff\xfe\x82\x09localhost")
    monkeypatch.setattr(x509, "SubjectAlternativeName", lambda _names: names)
    leaf = lab.pki.factory.leaf("strange", server=True)
    assert lab.run(lab.delegator(say.answer(), say.CONFIRMED, leaf=leaf))["outcome"] == "ready"


def test_a_certificate_that_does_not_say_what_it_is_for_is_not_a_delegators(lab, say, monkeypatch):
    """OpenSSL takes it for anything; a device's would do to play the delegator."""
    anything = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    monkeypatch.setattr(x509, "ExtendedKeyUsage", lambda _purposes: anything)
    leaf = lab.pki.factory.leaf("unsaid", server=True)
    rogue = lab.delegator(say.answer(), leaf=leaf)
    assert "for servers" in lab.fails(rogue, "server-not-trusted")["detail"]
    assert not rogue.heard


@pytest.mark.timeout(60)
def test_reading_certificates_takes_time_that_grows_with_their_size():
    assert common_names("-----BEGIN CERTIFICATE-----\n" * 90_000) == []


# --- sizes --------------------------------------------------------------------------------------------------------


def endless(first: bytes, piece: bytes, count: int = 4000) -> bytes:
    return first + piece * count


HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
FLOODS = {
    "chunk of -1": endless(CHUNKED + b"-1\r\n", b"x" * 1024),
    "a chunk larger than all": endless(CHUNKED + b"fffffffffff\r\n", b"x" * 1024),
    "continues": endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 100_000),
    "trailers": endless(CHUNKED + b"0\r\n", b"A: " + b"x" * 1000 + b"\r\n"),
    "headers": HEAD + (b"A: " + b"x" * 65_000 + b"\r\n") * 60,
    "no length": endless(HEAD + b"\r\n", b"x" * 1024),
    "elements": HEAD + b"Content-Length: 240000\r\n\r\n" + b"<a>" + b"<a/>" * 59_998 + b"</a>    "[:5],
}


@pytest.mark.parametrize("flood", FLOODS)
def test_what_a_delegator_sends_is_bounded_where_it_comes_in(lab, monkeypatch, flood):
    """No more is taken from the network than the head's or a piece's share, whatever was said to be coming."""
    taken = []
    take = channel.Channel._take
    monkeypatch.setattr(channel.Channel, "_take", lambda self: (take(self), taken.append(self._allowed))[0])
    lab.fails(lab.delegator(FLOODS[flood]), "answer-not-understood")
    assert len(taken) * 16 * 1024 < 2 * 2**20


@pytest.mark.parametrize("document", [
    b"<a/>" * 500_000, b"".join(b"<a%d/>" % n for n in range(200_000)), b"<a>" * 300,
    b"<a b='" + b"x" * 600_000 + b"'/>",
    b"<a " + b" ".join(b"b%d=''" % n for n in range(20_000)) + b"/>", b"<!-- " + b"x" * 600_000,
    b"<a " + b" ".join(b"xmlns:p%d='u'" % n for n in range(600)) + b"/>"],
    ids=["elements", "names", "depth", "attribute", "attributes", "comment", "prefixes"])
def test_a_document_that_would_become_forty_times_its_size_is_not_held(document):
    """Equal elements cost nothing, as nothing is kept of them; what expat keeps is counted."""
    read = Document()
    whole = b'<Provisioning xmlns="urn:delegator:provisioning:1">' + document
    if document.startswith(b"<a/>"):
        read.feed(whole + b"</Provisioning>")
        read.close()
    else:
        with pytest.raises(ValueError, match=r"more than|different names"):
            read.feed(whole)


RESIDENT = """
from delegator.device import main
main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""
LARGE = {
    "a document of 15 MB": b"<a/>" * 3_900_000,
    "names": b"".join(b"<a%07d/>" % n for n in range(1_400_000)),
    "text": b"x" * 15_000_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*FLOODS, *LARGE])
def test_nothing_a_server_does_takes_more_than_32_mib(lab, say, kind):
    """Measured as the kernel does, in a process of its own; a bare start takes some 20."""
    if kind in FLOODS:
        delegator = lab.delegator(FLOODS[kind])
    else:
        body = b'<Provisioning xmlns="urn:delegator:provisioning:1">' + LARGE[kind] + b"</Provisioning>"
        delegator = lab.delegator(lab.issued(lab.delegate(say.http(body))), say.CONFIRMED)
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{RESIDENT}"
    words = lab.words(delegator, "--once", "--timeout", "60")
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, *words], capture_output=True, text=True,
                          check=False, timeout=120)
    print(f"\nresident: {done.stderr.splitlines()[-1]} KiB for {kind}")
    assert int(done.stderr.splitlines()[-1]) < 32 * 1024, done.stderr


def test_records_without_data_end_with_the_allowance(lab):
    """A peer that sends and sends, and never what is wanted, is given up (RFC 8446 section 4.6.3)."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"x" * 4096)
        pipe = channel.Channel(ours, ssl.create_default_context(), "localhost", time.monotonic() + 60)
        pipe.allow(4096)
        pipe._take()
        with pytest.raises(Failure) as caught:
            pipe._take()
    assert caught.value.reason is reasons.ANSWER_NOT_UNDERSTOOD


# --- numbers and lists --------------------------------------------------------------------------------------------


def test_a_retry_after_of_nothing_is_not_asked_more_often_for(lab, say):
    lab.run(lab.delegator(say.fault("TryLater", 0)), "--for", "3600")
    assert min(lab.time.slept) >= 45


def test_the_longest_pause_that_any_delegator_asks_for_counts(lab, say):
    first, second = lab.delegator(say.fault("Unavailable", 900)), lab.delegator(say.fault("Unavailable", 100))
    lab.run(f"{first.address},{second.address}", "--for", "2000")
    assert lab.time.slept[0] >= 900


def alternates(*names: str) -> str:
    return "".join(f"<AlternateDelegator>{name}</AlternateDelegator>" for name in names)


def test_one_odd_alternate_spoils_neither_the_others_nor_the_credential(lab, say):
    other = lab.delegator(say.CONFIRMED)
    delegator = lab.delegator(say.answer(more=alternates("a b", "h:0", "", other.address, "x<!-- -->")), None)
    assert lab.run(delegator)["outcome"] == "ready"
    assert lab.saved()["alternates"][1:] == [["localhost", other.port], ["x", 4433]]


def test_of_three_thousand_alternates_a_few_are_remembered_and_dialled(lab, say, monkeypatch):
    dialled = []
    connected = asking.exchange

    def exchange(peer, *more):
        dialled.append(peer.address)
        if peer.address.host != "localhost":
            raise Failure(reasons.NO_ROUTE)
        return connected(peer, *more)
    monkeypatch.setattr(asking, "exchange", exchange)
    many = alternates(*(f"10.0.{n >> 8}.{n & 255}" for n in range(3000)))
    away = say.fault("Unavailable").replace(b"</Code>", b"</Code>" + many.encode())
    delegator = lab.delegator(say.answer(more=many), away.replace(b"Content-Length: ", b"X: "))
    lab.run(delegator, "--once")
    assert len(lab.saved()["alternates"]) == 1 + ALTERNATES
    assert len(dialled) <= 2 * MOST


def test_a_name_with_forty_silent_addresses_takes_one_time_out_and_no_more(monkeypatch):
    tried = []

    def silent(self, where):
        tried.append((where, self.gettimeout()))
        raise TimeoutError("timed out")
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{n}", 4433)) for n in range(20)]
    found += [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"2001:db8::{n}", 4433, 0, 0)) for n in range(20)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_a, **_k: found)
    monkeypatch.setattr(socket.socket, "connect", silent)
    monkeypatch.setattr(channel.time, "monotonic", lambda: 0.0)
    with pytest.raises(TimeoutError):
        channel._first_that_answers(asking.Address("many.example", 4433), 30.0)
    assert len(tried) == channel.DIALLED
    assert {where[0][:4] for where, _ in tried} == {"192.", "2001"}
    assert tried[0][1] == 30.0 / channel.DIALLED


def test_one_attempt_has_one_budget_and_none_after_the_window(lab, monkeypatch):
    """However many delegators hang, and whatever they name."""
    seconds = []

    def hanging(_peer, _context, _request, limit, *_more):
        seconds.append(limit.seconds)
        monkeypatch.setattr(asking.time, "monotonic", lambda: sum(seconds))
        raise Failure(reasons.NO_ANSWER)
    monkeypatch.setattr(asking.time, "monotonic", lambda: 0.0)
    monkeypatch.setattr(asking, "exchange", hanging)
    lab.run(",".join(f"10.0.0.{n}" for n in range(1, 9)), "--once", "--for", "12", "--timeout", "5")
    assert sum(seconds) <= 12


@pytest.mark.parametrize("text", ["https://host:0/", "https://host:65536/", "https://h/" + "x" * 2100, "https://[::1"])
def test_a_url_that_nobody_can_dial_is_none(text):
    with pytest.raises(ValueError):
        parse_delegate_url(text)


def test_eight_delegators_are_the_most(lab):
    with pytest.raises(SystemExit):
        flow_options(lab, ",".join(f"10.0.0.{n}" for n in range(1, 10)))


def flow_options(lab, addresses):
    from delegator.device import options
    return options.parser().parse_args(lab.words(addresses))


def test_the_name_asked_of_the_configured_delegator_is_not_asked_of_a_learned_one(lab, say):
    """--server-name is for --delegator; an alternate proves the name that it was told by."""
    named = lab.pki.factory.leaf("delegator.test", server=True, names=("delegator.test",))
    other = lab.delegator(say.CONFIRMED)
    first = lab.delegator(say.answer(more=alternates(other.address)), None, leaf=named)
    facts = lab.run(first, "--server-name", "delegator.test")
    assert (facts["outcome"], len(other.heard)) == ("ready", 1)


# --- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("claim", ["a\nb", "a b", "x" * 250_000, "\u202eabc", "caf\u00e9"])
def test_a_claim_id_is_judged_when_it_comes(say, claim):
    body = say.answer().replace(say.CLAIM.encode(), claim.encode()).partition(b"\r\n\r\n")[2]
    with pytest.raises(Failure) as caught:
        answers.read_answer(HttpAnswer(200, None, body))
    assert "ClaimId" in caught.value.detail


def test_what_others_say_stays_on_one_line(lab, say):
    """A log is read by lines, and standard output by scripts."""
    element = "outcome:\u2028ready\u202e"
    odd = say.http(f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><{"x" * 90}/></s:Body>'
                   f"</s:Envelope>{element}")
    lab.fails(lab.delegator(odd), "answer-not-understood")
    assert reasons.shown("a\nready: yes\x1b[2J\u202e") == "a\\nready: yes\\x1b[2J\\u202e"
    assert len(reasons.shown("x" * 10**6)) < 500


def test_lengths_are_bytes_as_accounts_hold_them(lab, say):
    facts = lab.fails(lab.delegator(say.answer(user="\u20ac" * 6)), "unusable-credential", "--max-user", "16")
    assert "bytes" in facts["detail"]


# --- any exception ------------------------------------------------------------------------------------------------


WEIRD = [TypeError("no"), RuntimeError("changed size"), MemoryError(), RecursionError(),
         OSError(errno.ENOSPC, "No space"), UnicodeEncodeError("ascii", "\xe9", 0, 1, "ordinal not in range"),
         KeyError("x"), ZeroDivisionError()]
PLACES = ["delegator.device.asking.exchange", "delegator.device.steps.fetch", "delegator.device.hook.apply",
          "delegator.device.state.Folder.save", "delegator.device.state.Folder.load", "delegator.device.messages.ask",
          "delegator.device.state.Folder.save_credential", "delegator.device.tls.delegator_context",
          "delegator.device.steps.read_answer", "delegator.device.hook.end_left_over",
          "delegator.device.messages.confirm", "delegator.device.replacing.os.fsync",
          "delegator.device.enrolling.is_usable"]


def each_once(first: list, second: list) -> list:
    """One pair for each of the longer list is a quick test; the others are slow ones, a third of them without THOROUGH
    in the environment."""
    diagonals = [(one, other, (at - number) % len(second))
                 for at, one in enumerate(first) for number, other in enumerate(second)]
    return [pytest.param(one, other, marks=() if number == 0 else pytest.mark.slow)
            for one, other, number in diagonals if THOROUGH or number % 3 == 0]


@pytest.mark.parametrize(("place", "error"), each_once(PLACES, WEIRD),
                         ids=lambda one: one if isinstance(one, str) else type(one).__name__)
def test_an_exception_of_any_class_at_any_call_is_a_reason_and_the_next_power_on_asks(
        lab, say, monkeypatch, place, error):
    def fails(*_args, **_kw):
        raise error
    delegate = lab.delegate()
    delegator = lab.delegator(lab.issued(delegate), say.CONFIRMED)
    more = ("--hook", lab.hook(), "--own", str(lab.folder / "own"))
    with monkeypatch.context() as patch:
        patch.setattr(place, fails)
        facts = lab.run(delegator, "--once", *more)
    assert facts["exit_code"] in CODES, facts
    assert "Traceback" not in lab.err
    comes_good(lab, say, *more, confirmed_by=delegator)


FILES = ["state.json", "credential.json", "delegate-ca.pem", "provisioning.xml", "lock", "status.json",
         ".state.json.new"]
CONTENTS = [
    b"", b"\x00" * 70, b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[]", b'"x"', b"1" * 5000, "\u00e9".encode(),
    json.dumps({"transaction_id": "x", "service_tag": "ABC1234", "started_at": 1e400, "phase": "fetched",
                "claim_id": "\n", "delegate_url": "https://h/", "alternates": [["h", -1]], "own": []}).encode(),
    json.dumps({"transaction_id": "x" * 32, "service_tag": "ABC1234", "started_at": 1, "phase": "issued",
                "claim_id": "c", "delegate_url": "https://127.0.0.1:1/", "alternates": [], "own": False}).encode(),
    json.dumps({"user_name": "a\nb", "password": ["x"], "not_after": {}}).encode()]


@pytest.mark.parametrize(("content", "name"), each_once(CONTENTS, FILES),
                         ids=lambda one: one if isinstance(one, str) else str(CONTENTS.index(one)))
def test_any_file_of_the_folder_may_hold_anything(lab, say, name, content):
    """Flash ages, and others write into folders."""
    delegate = lab.delegate(b"")
    issued = lab.issued(delegate)
    lab.run(lab.delegator(issued), "--once")
    flow.Folder(lab.state).write(name, content) if name != "lock" else (lab.state / name).write_bytes(content)
    facts = lab.run(lab.delegator(issued), "--once")
    assert facts["exit_code"] in CODES, facts
    comes_good(lab, say)
