"""T-B4: what a DNS message would cost is known before it is read, and the same whatever way it is written."""

from __future__ import annotations

import asyncio
import contextlib

import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given, strategies

from delegator.wire.dns_weight import LONGEST_NAME, MOST_LABELS, MOST_RECORDS, together, weigh, weigh_together

LABELS = strategies.lists(strategies.sampled_from(["a", "bb", "ccc", "customer"]), min_size=1, max_size=12)


def answer(kind: str, *texts: str, name: str = "1.2.0.192.in-addr.arpa.") -> dns.message.Message:
    response = dns.message.make_response(dns.message.make_query(name, kind))
    response.answer.append(dns.rrset.from_text(name, 60, "IN", kind, *texts))
    return response


def labels(name: dns.name.Name) -> int:
    return len(name.labels) - 1


@given(LABELS, strategies.lists(LABELS, min_size=1, max_size=20))
def test_names_weigh_what_they_are_expanded_compressed_or_not(asked: list[str], targets: list[list[str]]) -> None:
    name = dns.name.from_text(".".join(asked))
    message = answer("PTR", *(".".join(target) + "." for target in targets), name=str(name))
    (rrset,) = message.answer
    expected = labels(name) * (1 + len(rrset)) + sum(labels(record.target) for record in rrset)
    assert weigh(message.to_wire()) == expected


@pytest.mark.parametrize("message", [
    answer("A", *(f"192.0.2.{n}" for n in range(250)), name="rack1.customer.test."),
    answer("AAAA", *(f"2001:db8::{n}" for n in range(100)), name="rack1.customer.test."),
    answer("PTR", *(f"host{n}.customer.test." for n in range(60))),
    answer("PTR", "a.test.", name=f"{'f.' * 32}ip6.arpa."),
    answer("SOA", "ns.test. admin.test. 1 3600 600 86400 30", name="test."),
    answer("TXT", '"' + "x" * 200 + '"', name="test."),
])
def test_what_honest_servers_send_passes(message: dns.message.Message) -> None:
    assert 0 < weigh(message.to_wire(max_size=65_535)) <= MOST_LABELS


@pytest.mark.parametrize(("message", "why"), [
    (answer("A", *(f"192.0.{n // 250}.{n % 250}" for n in range(400))), f"more than {MOST_RECORDS} records"),
    (answer("PTR", f"{'a.' * 41}test."), f"a name of more than {LONGEST_NAME} labels"),
    (answer("PTR", *(f"{n}.{'a.' * 30}test." for n in range(60))), f"more than {MOST_LABELS} labels"),
    (answer("TXT", *(f'"{n:03}{"x" * 250}"' for n in range(60))), f"more than {MOST_LABELS} labels"),
    (answer("RP", "a.test. b.test."), "a record of type 17, which nobody asked for"),
    (answer("AFSDB", "1 a.test."), "a record of type 18, which nobody asked for"),
    (answer("NAPTR", '1 1 "" "" "" a.test.'), "a record of type 35, which nobody asked for"),
    (answer("NS", *(f"{n}.{'a.' * 30}test." for n in range(60))), f"more than {MOST_LABELS} labels"),
])
def test_more_than_that_is_refused(message: dns.message.Message, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        weigh(message.to_wire(max_size=65_535))


@pytest.mark.parametrize("tail", [b"\xc0\x0c", b"\xc0\xff", b"\x05abc", b""])
def test_pointers_that_lead_nowhere_end(tail: bytes) -> None:
    with pytest.raises(ValueError, match=r"points ahead|too early"):
        weigh(b"\0\1\x81\x80\0\1\0\0\0\0\0\0" + tail)


def test_a_chain_of_pointers_is_no_short_name() -> None:
    """The walk itself would take long: 33 ms for 4 095 bytes with 900 of them."""
    def pointer(to: int) -> bytes:
        return (0xC000 | to).to_bytes(2, "big")
    question = b"\1a\0\0\1\0\1"
    start = 12 + len(question) + 12
    chain = pointer(12) + b"".join(pointer(start + 2 * n) for n in range(99))
    texts = pointer(12) + b"\0\x10\0\1\0\0\0\0" + len(chain).to_bytes(2, "big") + chain
    last = pointer(start + len(chain) - 2) + b"\0\1\0\1\0\0\0\0\0\4\1\2\3\4"
    with pytest.raises(ValueError, match="a name of more than"):
        weigh(b"\0\1\x81\x80\0\1\0\2\0\0\0\0" + question + texts + last)


def test_of_whatever_passes_each_name_is_walked() -> None:
    """Kinds of data in which dnspython reads a name, found in it: each is walked or refused."""
    walked = {2, 5, 6, 12, 15, 33, 39}
    for kind in dns.rdatatype.RdataType:
        if kind in (1, 13, 16, 28, 41, 99) or kind in walked:
            continue
        head = b"\0\1\x81\x80\0\0\0\1\0\0\0\0" + b"\0" + int(kind).to_bytes(2, "big") + b"\0\1" + bytes(4)
        with pytest.raises(ValueError, match="which nobody asked for"):
            weigh(head + b"\0\2\xc0\x0c")


@given(strategies.binary(max_size=300))
def test_any_bytes_have_a_weight_or_are_refused(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= weigh(b"\0\1\x81\x80" + data) <= MOST_LABELS


async def test_TB4_all_answers_of_one_look_up_share_one_bound() -> None:
    """One address leads to a question for each name and domain, and each answer alone may take 10 ms to read."""
    half = dns.message.make_response(dns.message.make_query("rack1.customer.test.", "A"))
    half.answer.append(dns.rrset.from_text_list("rack1.customer.test.", 60, "IN", "A",
                                                [f"192.0.2.{n}" for n in range(180)]))
    message = half.to_wire()
    assert MOST_LABELS / 2 < weigh(message) < MOST_LABELS

    async def asked() -> None:
        weigh_together(message)
    for _ in range(3):
        await asked()
    for _ in range(2):
        with together():
            await asyncio.gather(asked())
            with pytest.raises(ValueError, match="together with those before it"):
                await asyncio.gather(asked())
