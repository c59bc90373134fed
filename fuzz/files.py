"""What is read from the DNS and from files, and what is written into mail."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email
import email.policy
import io
import ipaddress
import itertools
import tempfile
from pathlib import Path

import dns.message
import dns.reversename
import dns.rrset

from delegator import config
from delegator.desk import policy_file
from delegator.desk.records import Table
from delegator.desk.rows import COLUMNS, IDENTIFIERS, Rows
from delegator.domains import DnsTrouble, Naming
from delegator.errors import DelegatorError, Kind
from delegator.model import HOST_NAME
from delegator.net.dns import MOST_BYTES, Resolver
from delegator.net.walk import Walk
from delegator.store.spool import Refused, Said
from delegator.wire import dns_message, mail
from delegator.wire.dns_message import Question
from fuzz.certificates import _KEY
from fuzz.target import Target, must
from pki import Authority
from pki.tables import Values

# --- DNS ----------------------------------------------------------------------------------------------------------

_PEER = ipaddress.ip_address("192.0.2.7")
_PART = b"\xfe\xfd"
"""Between the answers to the first question, the second, and so on; the last one is repeated."""
_EXTENSION = 11
"""Bytes of the OPT record that a question ends with."""


def _made_for(question: Question, answer: bytes) -> bytes:
    """The answer under the number and the question that were asked."""
    wire, at = question.wire(), 12
    while at < len(answer) and 0 < answer[at] < 0xC0:
        at += 1 + answer[at]
    end = at + (2 if answer[at:at + 1] >= b"\xc0" else 1) + 4
    return wire[:2] + bytes((0x80 | (answer[2:3] or b"\0")[0],)) + answer[3:4] + wire[4:6] + answer[6:12] + wire[
        12:-_EXTENSION] + answer[end:]


def check_dns(data: bytes) -> None:
    """A name server that answers what it is told, under the right number and question."""
    coming = itertools.chain(data.split(_PART), itertools.repeat(data.split(_PART)[-1]))

    async def exchange(server: object, question: Question) -> dns_message.Said:
        said = dns_message.read(_made_for(question, next(coming)), question, MOST_BYTES)
        if said is None:
            raise ValueError("no answer to the question")
        return said

    resolver = Resolver(["192.0.2.53"], 0.05, 0.05, exchange)
    walk = Walk(resolver, lambda name: ".".join(name.split(".")[-2:]) if "." in name else None, Naming("delegate"))
    try:
        found = asyncio.run(walk.finding(_PEER))
    except DnsTrouble:
        return
    must(all(HOST_NAME.fullmatch(host) for host in found.hosts), "a host that is no host name")
    must(found.domain is None or any(host.endswith("." + found.domain) for host in found.hosts),
         "a domain that no host stands in")


def _answer(name: str, *records: str) -> bytes:
    message = dns.message.make_response(dns.message.make_query(name, "PTR", id=7))
    for record in records:
        owner, kind, value = record.split(" ", 2)
        message.answer.append(dns.rrset.from_text(owner, 60, "IN", kind, value))
    return message.to_wire()


_REVERSE = str(dns.reversename.from_address(str(_PEER)))
_DNS = _PART.join((_answer(_REVERSE, f"{_REVERSE} PTR host.corp.example."), _answer("host.corp.example.",
                  "host.corp.example. A 192.0.2.7"), _answer("delegate.corp.example.",
                                                             "delegate.corp.example. A 192.0.2.9")))

# --- files --------------------------------------------------------------------------------------------------------

_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))


def check_config(data: bytes) -> None:
    path = _FOLDER / "delegator.toml"
    path.write_bytes(data)
    try:
        settings = config.load(path, {})
    except DelegatorError as error:
        must(error.kind is Kind.CONFIGURATION, "another error than CONFIGURATION")
        return
    path.write_text(config.as_toml(settings), encoding="utf-8")
    must(config.load(path, {}) == settings, "written and read again they are other settings")


class _Careful(Rows):
    """Without the short way."""

    def _quick(self, line: int, values: Values) -> Said | None:
        return None


def _rows(data: bytes, reader: Rows) -> list[Said | Refused] | None:
    try:
        return list(reader.read(Table(io.BytesIO(data), COLUMNS, IDENTIFIERS)))
    except DelegatorError as error:
        must(error.kind is Kind.MALFORMED, "another error than MALFORMED")
        return None


def check_rows(data: bytes) -> None:
    must(_rows(data, Rows("acme")) == _rows(data, _Careful("acme")), "the short way reads another row")
    must(_lines(data, others=False, alone=False), "a row on a line that is not there, or one line twice")
    must(_lines(data, others=True, alone=True), "a value of a list on a line that is not there, or one line twice")


def _lines(data: bytes, *, others: bool, alone: bool) -> bool:
    """Whether the lines of the rows rise, within the file."""
    lines = [0]
    with contextlib.suppress(DelegatorError):
        for line, _ in Table(io.BytesIO(data), IDENTIFIERS[:1], IDENTIFIERS[:1], others=others, alone=alone):
            lines.append(line)
    return lines == sorted(set(lines)) and lines[-1] <= data.count(b"\n") + 1


def check_policy(data: bytes) -> None:
    try:
        policy_file.read(data)
    except DelegatorError as error:
        must(error.kind is Kind.MALFORMED, "another error than MALFORMED")


# --- mail ---------------------------------------------------------------------------------------------------------


def _signer() -> mail.Signer:
    authority = Authority.found("Fuzz CA", None, _KEY)
    return mail.Signer(_KEY, authority.certificate, ())


_SIGNER = _signer()
_HEADERS = ["From", "To", "Subject", "Date", "Auto-Submitted", "MIME-Version", "Message-ID", "Content-Type"]


def check_mail(data: bytes) -> None:
    fields = data.decode("utf-8", "surrogateescape").split("\x1f", 3)
    recipient, subject, delegator, text = (*fields, *[""] * (4 - len(fields)))
    letter = mail.Letter("from@maker.example", recipient, subject, text,
                         datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), "0a", delegator)
    try:
        made = mail.signed(letter, _SIGNER)
    except ValueError:
        return
    read = email.message_from_bytes(made, policy=email.policy.SMTP)
    must(read.keys() == _HEADERS, "another header")
    must([str(one) for one in read["To"].addresses] == [recipient], "another recipient")
    must([part.get_content_type() for part in read.iter_parts()] == ["text/plain", "application/pkcs7-signature"],
         "another part")


_TOML = config.as_toml(config.Settings()).encode()
_ROWS = (b"service_tag,serial_number,mac_addresses,model,order,delegate,customer\n"
         b"ABC1234,SN-1,00:11:22:33:44:55;00:11:22:33:44:56,R 760,O-1,berlin,acme\n",
         b'{"service_tag": "ABC1234", "mac_addresses": ["00-11-22-33-44-55"], "customer": "acme"}\n',
         b'"Service Tag";mac_addresses\r\nABC1234;"00:11:22:33:44:55;00:11:22:33:44:56"\r\n',
         b"# ours\nABC1234 # one\n")

TARGETS = (
    Target("dns", "A finding whose hosts are host names and whose domain one of them stands in, or DnsTrouble.",
           check_dns, (_DNS, _DNS.split(_PART)[0]),
           (_PART, b"\xc0\x0c", b"\x04host\x04corp\x07example\x00", b"\x00\x0c", b"\x00\x05", b"\x00\x01", b"\x00\x06",
            b"\x3f", b"\x07in-addr")),
    Target("config", "Settings that survive being written, or CONFIGURATION.", check_config,
           (_TOML[:1500], b'[server]\nport = 1\nproxy_from = ["192.0.2.0/24"]\n[store]\nurl = "postgresql://a@b/c"\n'),
           (b"[server]\n", b"[[", b"]]", b"port = ", b"= ", b'"', b"'''", b"\n", b"true", b"1e400", b"inf", b"0x1",
            b"credential:", b"..", b"{", b"}", b"1979-05-27T07:32:00Z", b"\xff")),
    Target("rows", "The same rows and refusals by the short way as by the careful one, or MALFORMED.", check_rows,
           _ROWS,
           (b"service_tag", b"mac_addresses", b",", b";", b'"', b"\n", b"\r", b"{", b"[", b"null",
            b"\xef\xbb\xbf", b"\0", b"\t", b"sep=;\n", b"#", b"00:11:22:33:44:55",
            b"1e9", b"\\u0000", b"ABC1234", b"customer", b"-")),
    Target("policy", "A policy, or MALFORMED.", check_policy,
           (b'{"name": "a", "identity": "either", "max_devices": 5, "hours": ["mon-fri 08:00-18:00 Europe/Berlin"]}',),
           (b'"until"', b'"hours"', b'"networks"', b'"lease"', b'"24h"', b"[", b"]", b"null", b"-1", b"1e999",
            b'"mon"')),
    Target("mail", "Exactly the headers, the recipient and the parts that were meant, or ValueError.", check_mail,
           (b"admin@corp.example\x1fDevice ABC1234 asked\x1fdelegator.example\x1fHello\n.\nBye\n",),
           (b"\x1f", b"\r\n", b"\n", b"Bcc: a@b.example", b"=?utf-8?q?=0a?=", b"\0", b"@", b",", b"<", b">", b'"',
            "\u2028".encode(), b"--=_signed_", b"\xff", b"=", b" ")),
)
