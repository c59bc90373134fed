"""DNS messages are written and read as dnspython does; what is no answer to our question is none. T-B4."""

from __future__ import annotations

import contextlib
import ipaddress
import struct
from typing import Any

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, strategies

from delegator.wire.dns_message import AAAA, NEGATIVE, PAYLOAD, PTR, A, Question, Said, labels_of, read

MOST = 4096
KINDS = {"A": A, "AAAA": AAAA, "PTR": PTR}
NAMES = ("rack1.customer.test.", "alias.customer.test.", "RACK1.Customer.test.", "other.test.", "test.")
RECORDS = ("A 192.0.2.1", "A 192.0.2.2", "AAAA 2001:db8::1", "PTR Host.customer.test.", "CNAME rack1.customer.test.",
           "CNAME alias.customer.test.", "CNAME other.test.", "TXT words", "MX 5 mail.test.")
SOA = "ns.test. admin.test. 1 3600 600 86400 30"


def asked(name: str = "rack1.customer.test", kind: str = "A") -> Question:
    return Question(7, labels_of(name), KINDS[kind])


def answer(question: Question, *records: tuple[str, int, str], soa: str = "", code: int = 0) -> dns.message.Message:
    query = dns.message.from_wire(question.wire())
    response = dns.message.make_response(query)
    response.set_rcode(dns.rcode.Rcode(code))
    for owner, ttl, text in records:
        kind, _, value = text.partition(" ")
        response.find_rrset(response.answer, dns.name.from_text(owner), 1, dns.rdatatype.from_text(kind),
                            create=True).update(dns.rrset.from_text(owner, ttl, "IN", kind, value))
    if soa:
        response.authority.append(dns.rrset.from_text(soa, 90, "IN", "SOA", SOA))
    return response


def as_dnspython(message: dns.message.Message) -> tuple[list[Any], int] | None:
    """Values and seconds, as its own resolver takes them; None where it does not take the answer."""
    assert isinstance(message, dns.message.QueryMessage)
    try:
        found = message.resolve_chaining()
    except dns.exception.DNSException:
        return None
    return [record.target.labels[:-1] if record.rdtype == PTR else ipaddress.ip_address(record.address).packed
            for record in found.answer or ()], found.minimum_ttl


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_is_what_dnspython_reads(kind: str) -> None:
    query = dns.message.from_wire(asked("Rack1.customer.test.", kind).wire())
    (question,) = query.question
    assert (query.id, question.name.to_text(), dns.rdatatype.to_text(question.rdtype)) == (
        7, "Rack1.customer.test.", kind)
    assert query.flags == dns.flags.RD
    assert (query.edns, query.payload, query.opcode()) == (0, PAYLOAD, 0)


@pytest.mark.parametrize("name", ["", "a..b", "x" * 64, ".".join(["x" * 60] * 5)])
def test_what_is_no_name_is_not_asked(name: str) -> None:
    with pytest.raises(ValueError, match="no name of the DNS"):
        asked(name).wire()


@given(strategies.sampled_from(sorted(KINDS)),
       strategies.lists(strategies.tuples(strategies.sampled_from(NAMES), strategies.integers(0, 2**31 - 1),
                                          strategies.sampled_from(RECORDS)), max_size=8),
       strategies.sampled_from(["", ".", "test.", "customer.test.", "elsewhere.example."]),
       strategies.sampled_from([0, 3]))
def test_an_answer_says_what_dnspython_reads_in_it(kind: str, records: list[tuple[str, int, str]], soa: str,
                                                   code: int) -> None:
    question = asked(kind=kind)
    message = dns.message.from_wire(answer(question, *records, soa=soa, code=code).to_wire(max_size=65_535))
    expected = as_dnspython(message)
    if expected is None:
        with pytest.raises(ValueError, match="an answer with "):
            read(message.to_wire(), question, MOST)
    else:
        said = read(message.to_wire(), question, MOST)
        assert said is not None
        assert (sorted(map(repr, said.values)), said.ttl) == (sorted(map(repr, expected[0])), expected[1])


def test_a_chain_of_aliases_ends() -> None:
    question = asked("n0.test")
    for many, is_read in ((15, True), (16, False)):
        chain = [(f"n{n}.test.", 60, f"CNAME n{n + 1}.test.") for n in range(many)]
        wire = answer(question, *chain, (f"n{many}.test.", 60, "A 192.0.2.1")).to_wire()
        if is_read:
            assert read(wire, question, MOST) == Said((bytes((192, 0, 2, 1)),), 60)
        else:
            with pytest.raises(ValueError, match="aliases"):
                read(wire, question, MOST)


def changed(message: bytes, **how: Any) -> bytes:
    number, flags, *counts = struct.unpack_from("!6H", message)
    return struct.pack("!6H", how.get("number", number), flags ^ how.get("flags", 0), *counts) + message[12:]


GOOD = answer(asked(), ("rack1.customer.test.", 60, "A 192.0.2.1")).to_wire()


@pytest.mark.parametrize("message", [
    changed(GOOD, number=8), changed(GOOD, flags=0x8000), changed(GOOD, flags=0x0800), b"", b"\0",
    answer(asked("rack2.customer.test")).to_wire(), answer(asked(kind="AAAA")).to_wire(),
    GOOD[:12] + GOOD[12:].replace(b"\0\1\0\1", b"\0\1\0\3", 1), changed(GOOD, number=8) + b"x" * 60_000])
def test_TB4_what_is_no_answer_to_the_question_is_passed_over(message: bytes) -> None:
    """Another number, a question, another operation, another name, type or class: whoever forges answers guesses."""
    assert read(message, asked(), MOST) is None


@pytest.mark.parametrize(("message", "why"), [
    (GOOD + b"x", "more in it than it says"), (GOOD[:-1], "ends"), (changed(GOOD, flags=2), "SERVFAIL"),
    (changed(GOOD, flags=5), "REFUSED"), (changed(GOOD, flags=9), "the code 9"),
    (changed(GOOD, flags=3), "records for a name that it says is none"), (GOOD + b"x" * MOST, "more than 4096 bytes"),
    (GOOD.replace(b"\0\4\xc0\0\2\1", b"\0\3\xc0\0\2"), "an address of 3 bytes"),
    (answer(asked(), code=16).to_wire(), "the code 16"),
    (GOOD[:4] + b"\0\0" + GOOD[6:], "with "), (GOOD[:12] + b"\x40" + GOOD[13:], "with |ends")])
def test_TB4_an_answer_that_cannot_be_used_says_why(message: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read(message, asked(), MOST)


def test_TB4_an_answer_in_other_letters_is_an_answer_and_one_cut_off_says_only_that() -> None:
    loud = GOOD.replace(b"customer", b"CUSTOMER")
    assert read(loud, asked(), MOST) == read(GOOD, asked(), MOST) == Said((bytes((192, 0, 2, 1)),), 60)
    assert read(changed(GOOD, flags=dns.flags.TC), asked(), MOST) == Said(truncated=True)


def test_TB4_nothing_is_believed_for_a_time_and_a_negative_time_is_none() -> None:
    assert read(answer(asked(), code=3).to_wire(), asked(), MOST) == Said((), NEGATIVE)
    assert read(answer(asked(), soa="customer.test.").to_wire(), asked(), MOST) == Said((), 30)
    ttl = GOOD.replace(b"\0\0\0\x3c", b"\x80\0\0\x3c")
    assert read(ttl, asked(), MOST) == Said((bytes((192, 0, 2, 1)),), 0)


@pytest.mark.parametrize(("record", "why"), [
    (b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\2\xc0\x31", "points ahead"),
    (b"\xc0\x25\0\5\0\1\0\0\0\x3c\0\2\xc0\x0c", "points ahead"),
    (b"\xc0\x0c\0\5\0\1\0\0\0\x3c\0\x5b" + b"\1a" * 45 + b"\0", "more than 40 labels")])
def test_TB4_nothing_is_expanded_before_it_was_weighed(record: bytes, why: str) -> None:
    """A name that points to itself would never end."""
    question = asked()
    head = struct.pack("!6H", 7, 0x8180, 1, 1, 0, 0) + question.wire()[12:-11]
    assert len(head) == 0x25
    with pytest.raises(ValueError, match=why):
        read(head + record, question, MOST)


@given(strategies.binary(max_size=200), strategies.sampled_from([b"", GOOD[:12], GOOD[:37], GOOD]))
def test_any_bytes_are_an_answer_or_none_or_refused(data: bytes, head: bytes) -> None:
    with contextlib.suppress(ValueError):
        said = read((head or b"\0\7") + data, asked(), MOST)
        assert said is None or all(isinstance(value, bytes) and len(value) == 4 for value in said.values)
