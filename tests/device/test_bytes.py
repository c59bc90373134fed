"""The pure rooms: addresses, messages, envelope and answers, retry, the names of alerts, options."""

from __future__ import annotations

import ssl
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from delegator.device import addresses, answers, envelope, main, messages, reasons, retry, tls
from delegator.device.addresses import Address
from delegator.device.answers import Credential, Limits
from delegator.device.envelope import HttpAnswer
from delegator.device.reasons import Failure


@pytest.mark.parametrize(("text", "expected"), [
    ("host", [("host", 4433)]), ("host.domain", [("host.domain", 4433)]), ("1.2.3.4", [("1.2.3.4", 4433)]),
    ("host:1", [("host", 1)]), ("h.d:65535", [("h.d", 65535)]), ("h1:1, h2:2", [("h1", 1), ("h2", 2)]),
    ("[2001:db8::1]:443", [("2001:db8::1", 443)]), ("[::1]", [("::1", 4433)])])
def test_address_grammar(text, expected):
    assert list(addresses.parse_addresses(text)) == [Address(*pair) for pair in expected]


@pytest.mark.parametrize("text", ["", ",", "h,", "h:", "h:0", "h:65536", "h:x", "::1", "-h", "h h", "h/x", "u@h",
                                  "[h]"])
def test_bad_addresses(text):
    with pytest.raises(ValueError):
        addresses.parse_addresses(text)


def test_address_as_text():
    assert [str(Address("h", 1)), str(Address("::1", 2))] == ["h:1", "[::1]:2"]


@pytest.mark.parametrize(("url", "host", "port", "target"), [
    ("https://h/", "h", 443, "/"), ("https://h", "h", 443, "/"), ("https://h:8/a/b?c=d", "h", 8, "/a/b?c=d"),
    ("https://[::1]:9/x", "::1", 9, "/x")])
def test_delegate_urls(url, host, port, target):
    assert addresses.parse_delegate_url(url) == (Address(host, port), target)


@pytest.mark.parametrize("url", ["http://h/", "https:///x", "https://u:p@h/", "https://h/a b", "https://h/\r\nX: y",
                                 "https://h:99999/", "file:///etc/passwd", "https://h/\u00e4"])
def test_bad_delegate_urls(url):
    with pytest.raises(ValueError):
        addresses.parse_delegate_url(url)


def test_a_question_escapes_every_value():
    """Whatever a label on a device says, it stays text."""
    hostile = "<&>\"']]>\r\n"
    identity = messages.Identity(hostile, hostile, (hostile, hostile), hostile, hostile, hostile, hostile)
    root = ET.fromstring(messages.ask(identity, "t" * 16, hostile))
    found = [element.text for element in root.iter() if element.text]
    assert found == [hostile] * 8 + ["t" * 16, hostile]


def test_a_small_question_has_no_empty_elements():
    text = messages.ask(messages.Identity("T"), "x" * 16, None).decode()
    assert "<Device><ServiceTag>T</ServiceTag></Device><TransactionId>" in text
    assert "Location" not in text


def test_a_detail_is_a_sentence():
    text = messages.confirm("c", "Failed", "t", "d" * 1000).decode()
    assert text.count("d" * 200) == 1
    assert "d" * 201 not in text


def test_an_answer_is_read_whole(say):
    """Comments inside a value do not shorten it, escapes come back, spaces in a password stay."""
    body = say.answer(url="https://h/", anchor="PEM", password=" p<!--x-->&amp;q ".replace("&amp;", "&"),
                      more="<AlternateDelegator>a:1</AlternateDelegator><AlternateDelegator>https://b:2/</AlternateDelegator>")
    body = body.replace(b"&lt;!--x--&gt;", b"<!--x-->").partition(b"\r\n\r\n")[2]
    answer = answers.read_answer(HttpAnswer(200, None, body))
    assert answer.credential == Credential("root", " p&q ")
    assert answer.delegate == answers.Delegate("https://h/", "PEM")
    assert answer.alternates == (Address("a", 1), Address("b", 2))
    assert "p&q" not in repr(answer) + str(answer.credential)


@pytest.mark.parametrize("spoil", [
    (b"<s:Envelope", b"<!DOCTYPE x []><s:Envelope"), (b"<ClaimId>", b"<Claim>"), (b"<ClaimId>", b"<ClaimId><a/>"),
    (b"urn:delegator:provisioning:1", b"urn:other"), (b"<s:Body>", b"<s:Body/><s:Body>"),
    (b"xmlsoap.org", b"xmlsoap.example"), (b"0123456789abcdef0123456789abcdef", b""), (b"https://h/", b"http://h/"),
    (b">PEM<", b"><"), (b"<Delegate>", b"<Delegate/><Delegate>"),
    (b"</s:Envelope>", b"</s:Envelope><x/>"), (b"<s:Envelope", b'<?xml version="1.0" encoding="no"?><s:Envelope')])
def test_spoilt_answers(say, spoil):
    body = say.answer(url="https://h/", anchor="PEM", more="<AlternateDelegator>a:1</AlternateDelegator>")
    body = body.partition(b"\r\n\r\n")[2]
    answers.read_answer(HttpAnswer(200, None, body))
    with pytest.raises(Failure) as caught:
        answers.read_answer(HttpAnswer(200, None, body.replace(*spoil)))
    assert caught.value.reason is reasons.ANSWER_NOT_UNDERSTOOD


def test_an_answer_cut_at_every_byte_is_a_failure(say):
    body = say.answer(url="https://h/", anchor="PEM").partition(b"\r\n\r\n")[2]
    for cut in range(len(body)):
        with pytest.raises(Failure):
            answers.read_answer(HttpAnswer(200, None, body[:cut]))


def test_entities_are_not_expanded():
    """Refused at the DOCTYPE, before a single entity is declared."""
    laughs = b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><a>&b;</a>'
    with pytest.raises(Failure, match="DOCTYPE"):
        envelope.parse_xml(laughs, reasons.DELEGATE_FAILED)


@pytest.mark.parametrize(("user", "password", "basic", "usable"), [
    ("u" * 16, "p" * 20, True, True), ("u" * 17, "p", True, False), ("u", "p" * 21, True, False),
    ("a:b", "p", False, True), ("a:b", "p", True, False), ("a\tb", "p", False, False), ("u", "p\x7f", False, False),
    ("\u00fc", "\u20ac<&>", True, True)])
def test_usable_credentials(user, password, basic, usable):
    credential = Credential(user, password)
    if usable:
        answers.check_credential(credential, Limits(16, 20), basic)
        return
    with pytest.raises(Failure) as caught:
        answers.check_credential(credential, Limits(16, 20), basic)
    assert caught.value.reason is reasons.UNUSABLE_CREDENTIAL
    assert len(password) == 1 or password not in str(caught.value)


@pytest.mark.parametrize(("text", "expected"), [
    ("30", 30), (" 5 ", 5), ("0", 0), ("", None), (None, None), ("-1", None), ("1.5", None), ("\u0663", None),
    ("9" * 12, None), ("Fri, 31 Dec 1999 23:59:59 GMT", None)])
def test_retry_after(text, expected):
    assert envelope.seconds(text) == expected


def test_pauses():
    """Around the interval, but never before the moment that the delegator named, nor before the interval's first."""
    low, high = (lambda a, _b: a), (lambda _a, b: b)
    assert [retry.pause(90, None, end) for end in (low, high)] == [45, 135]
    assert [retry.pause(90, 200, end) for end in (low, high)] == [200, 250]
    assert [retry.pause(90, 40, end) for end in (low, high)] == [45, 56.25]
    assert [retry.pause(90, 0, end) for end in (low, high)] == [45, 56.25]
    assert [retry.pause(1, 0, end) for end in (low, high)] == [0.5, 1.5]
    assert retry.worth_waiting(10, 90, 100)
    assert not retry.worth_waiting(10.1, 90, 100)


@pytest.mark.parametrize(("name", "alert"), [
    ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "certificate_expired"), ("TLSV1_ALERT_UNKNOWN_CA", "unknown_ca"),
    ("SSLV3_ALERT_CERTIFICATE_REVOKED", "certificate_revoked"),
    ("TLSV13_ALERT_CERTIFICATE_REQUIRED", "certificate_required"), ("TLSV1_ALERT_ACCESS_DENIED", "access_denied")])
def test_alerts_about_the_device(name, alert):
    """Both in the handshake (TLS 1.2) and at the first read (TLS 1.3)."""
    error = ssl.SSLError(1, f"[SSL: {name}]")
    error.reason = name
    assert tls.alert_in(error) == alert
    for failure in (tls.handshake_failure(error), tls.answer_failure(error, "TLSv1.3", True)):
        assert (failure.reason, failure.detail) == (reasons.CLIENT_REFUSED, f"TLS alert {alert}")


def test_other_ends_of_a_connection():
    reset = ConnectionResetError(104, "reset")
    assert tls.handshake_failure(reset).reason is reasons.TLS_REFUSED
    assert tls.handshake_failure(TimeoutError()).reason is reasons.NO_ROUTE
    assert tls.answer_failure(reset, "TLSv1.3", True).reason is reasons.CLIENT_REFUSED
    assert tls.answer_failure(reset, "TLSv1.3", False).reason is reasons.NO_ANSWER
    assert tls.answer_failure(reset, "TLSv1.2", True).reason is reasons.NO_ANSWER


def test_c_an_anchor_that_is_cut_anywhere_is_none(lab):
    """Of a file that ends within the next certificate, be it in its first dash, the first alone used to be believed."""
    whole = lab.pki.owner.pem.strip() + "\n"
    both = whole + lab.pki.factory.file.read_text(encoding="ascii").strip() + "\n"
    for end in range(len(whole) + 1, len(both) - 1):
        with pytest.raises(Failure) as told:
            tls.delegate_context(both[:end])
        assert told.value.reason is reasons.DELEGATE_NOT_TRUSTED
    tls.delegate_context(both)


def test_no_way_to_turn_checking_off(lab):
    """Both contexts demand chain and name, TLS 1.2 at least, and know no system anchors."""
    device = lab.pki.device
    for context in (tls.delegator_context(device.certificate, device.key, str(lab.pki.factory.file)),
                    tls.delegate_context(lab.pki.owner.pem)):
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.cert_store_stats()["x509"] == 1


# --- the command line ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [
    ["--tag", ""], ["--tag", "a\nb"], ["--mac", "nonsense"], ["--interval", "0"], ["--for", "x"], ["--max-user", "0"],
    ["--hook", ""], ["--hook", "'"], ["--delegator", "h:0"], ["--request-key", "k"], ["--insecure"],
    ["--server-name", ""], ["--server-name", "no..name"], ["--server-name", "a" * 64]])
def test_usage_errors(lab, capsys, more):
    """Exit code 2 and a sentence; there is no option that turns checking off."""
    assert main([*lab.words("h"), *more]) == 2
    assert "error:" in capsys.readouterr().err


def test_help_and_no_command(capsys):
    assert main(["activate", "--help"]) == 0
    assert main([]) == 2
    assert "factory CA" in capsys.readouterr().out


@pytest.mark.parametrize(("option", "value"), [
    ("--ca", "/nowhere"), ("--certificate", "/nowhere"), ("--key", "/nowhere"), ("--hook", "/nowhere/hook"),
    ("--state", "/dev/null/x"), ("--state", "/")])
def test_configuration_errors(lab, option, value):
    """Exit code 3, at once and without retrying."""
    assert lab.run("localhost:1", option, value)["exit_code"] == 3
    assert lab.time.slept == []


def test_an_encrypted_key_does_not_wait_for_a_password(lab):
    key = serialization.load_pem_private_key(Path(lab.pki.device.key).read_bytes(), None)
    path = lab.folder / "locked.key"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                                       serialization.BestAvailableEncryption(b"x")))
    assert "encrypted" in lab.run("localhost:1", "--key", str(path))["detail"]


def test_words_without_json(lab, say, capsys):
    """Data on standard output, words on standard error, the password on neither."""
    words = [word for word in lab.words(lab.delegator(say.answer(), say.CONFIRMED)) if word != "--json"]
    assert main(words) == 0
    said = capsys.readouterr()
    assert f"claim_id: {say.CLAIM}\n" in said.out
    assert "this device is ready" in said.err
    assert say.PASSWORD not in said.out + said.err
