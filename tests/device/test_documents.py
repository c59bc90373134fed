"""XML of a few hundred kilobytes that would fill a machine: what expat keeps and multiplies is counted first."""

from __future__ import annotations

import itertools
import string
import subprocess
import sys
from pathlib import Path

import pytest

from delegator.device import envelope, reasons
from delegator.device.document import Document, Scan
from delegator.device.reasons import Failure

ROOT = Path(__file__).parents[2]
BEGIN = b'<Provisioning xmlns="urn:delegator:provisioning:1">'
WORDS = ["".join(word) for word in itertools.product(string.ascii_letters, repeat=3)]
SHORT = [word.encode() for word in WORDS[:30_000]]


def _attributes(form: bytes, count: int) -> bytes:
    return b" ".join(form % word for word in SHORT[:count])


MULTIPLIED = {
    "one namespace for each attribute": b'<a xmlns:p="' + b"u" * 60_000 + b'"><a ' + _attributes(b'p:%s=""', 20_000),
    "one namespace for each element": (
        b'<a xmlns:p="' + b"u" * 100_000 + b'">' + b"".join(b"<p:%s/>" % word for word in SHORT[:1500])),
    "long names inside each other": (b"<" + b"x" * 60_000 + b">") * 190,
    "namespaces one after the other": b"".join(b'<a xmlns="%d' % n + b"u" * 32_000 + b'"/>' for n in range(400)),
    "namespaces inside each other": b"".join(b'<a xmlns:p="%d' % n + b"u" * 32_000 + b'">' for n in range(190)),
    "many attributes": b"<a " + _attributes(b'%s=""', 30_000) + b"/>",
    "short names": b'<q xmlns="">' + b"".join(b"<%s/>" % word for word in SHORT),
    "wide letters": b"<a b='" + b"x" * 60_000 + "\U0001f600".encode() + b"'/>",
}


@pytest.mark.parametrize("kind", [one for one in MULTIPLIED if one != "wide letters"])
def test_what_would_be_multiplied_is_refused(kind):
    with pytest.raises(ValueError):
        Document().feed(BEGIN + MULTIPLIED[kind] + b">" * 3)


@pytest.mark.parametrize("kind", MULTIPLIED)
def test_an_answer_is_looked_at_before_it_is_kept(kind, monkeypatch):
    monkeypatch.setattr(envelope.ET, "fromstring", lambda _body: pytest.fail("it was kept"))
    with pytest.raises(Failure) as caught:
        envelope.parse_xml(BEGIN + MULTIPLIED[kind], reasons.ANSWER_NOT_UNDERSTOOD)
    assert caught.value.reason is reasons.ANSWER_NOT_UNDERSTOOD


@pytest.mark.slow
@pytest.mark.parametrize("kind", MULTIPLIED)
@pytest.mark.parametrize("at", ["delegator", "owner's server"])
def test_none_of_it_takes_more_than_32_mib(lab, say, kind, at):
    body = say.http(BEGIN + MULTIPLIED[kind])
    server = lab.delegate(body) if at == "owner's server" else None
    delegator = lab.delegator(body if server is None else lab.issued(server), say.CONFIRMED)
    code = f"""import sys; sys.path.insert(0, {str(ROOT)!r})
from delegator.device import main
main(sys.argv[1:])
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code, *lab.words(delegator, "--once", "--timeout", "30")],
                          capture_output=True, text=True, check=False, timeout=60)
    print(f"\nresident: {done.stderr.splitlines()[-1]} KiB for {kind} of the {at}")
    assert int(done.stderr.splitlines()[-1]) < 32 * 1024, done.stderr


@pytest.mark.parametrize("good", [
    b'<p:Provisioning xmlns:p="urn:delegator:provisioning:1"><p:a q:b="" xmlns:q="u" xml:lang="de"/></p:Provisioning>',
    '<Provisioning xmlns="urn:delegator:provisioning:1">\u20ac</Provisioning>'.encode("utf-16"),
    b'<?xml version="1.0" encoding="iso-8859-1"?>' + BEGIN + b"\xe9</Provisioning>",
    BEGIN + b"<![CDATA[" + b"x" * 300_000 + b"]]></Provisioning>",
    BEGIN + b"".join(b"<%s>x</%s>" % (word, word) for word in SHORT[:2000]) + b"</Provisioning>"],
    ids=["prefix", "utf-16", "latin-1", "cdata", "names"])
def test_a_document_that_anybody_would_write_passes(good):
    document = Document()
    document.feed(good)
    document.close()


@pytest.mark.parametrize("bad", [
    b'<p:Provisioning xmlns="urn:delegator:provisioning:1"/>',
    b'<Provisioning xmlns:p="urn:delegator:provisioning:1"/>',
    BEGIN + b"<p:a/></Provisioning>", BEGIN + b"<a p:b=''/></Provisioning>",
    BEGIN + b"<a xmlns:p='u'/><p:b/></Provisioning>", b'<?xml version="1.0" encoding="rot13"?><a/>',
    b'<?xml version="1.0" encoding="undefined"?><a/>', b'<?xml version="1.0" encoding="hex"?><a/>'])
def test_a_prefix_or_an_encoding_that_nobody_declared_does_not(bad):
    document = Document()
    with pytest.raises(ValueError):
        document.feed(bad)


def test_parts_are_counted():
    with pytest.raises(ValueError, match="more elements"):
        Scan(3).feed(b"<a b='' c=''><d/>")
