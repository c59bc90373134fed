"""T-B10: what a peer may send that carries no data is a bounded number, whoever it is and however it is cut."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, strategies
from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey

from delegator.wire import records
from delegator.wire.records import AT_ONCE, BARREN, CALLING, HANDSHAKE, OVERHEAD, PIECE, SHAKING, Records
from delegator.wire.tls import Session, client_context, server_context
from pki import Folder, Issued
from pki.trust import TrustStore

NOW = datetime.now(UTC)
KEY_UPDATE = 27
"""Bytes of a KeyUpdate on the wire: header, message, content type and tag (RFC 8446 sections 4.6.3, 5.2)."""


def record(size: int) -> bytes:
    return b"\x17\x03\x03" + size.to_bytes(2, "big") + b"x" * size


# --- cutting ------------------------------------------------------------------------------------------------------


@given(strategies.lists(strategies.integers(0, 400), max_size=90), strategies.lists(strategies.integers(1, 700)),
       strategies.binary(max_size=20))
def test_however_bytes_arrive_the_same_come_out_and_few_records_at_a_time(
        sizes: list[int], pieces: list[int], rubbish: bytes) -> None:
    data = b"".join(map(record, sizes)) + rubbish
    reader, out, ended = Records(), [], 0
    for size in [*pieces, len(data)]:
        for piece, ends in reader.cut(data[:size]):
            assert ends <= AT_ONCE
            out.append(piece)
            ended += ends
        data = data[size:]
    assert b"".join(out) == b"".join(map(record, sizes)) + rubbish
    assert len(sizes) <= ended <= len(sizes) + len(rubbish) // 5


def test_one_record_or_a_few_are_one_piece() -> None:
    data = record(600) + record(0) + record(40)
    assert list(Records().cut(data)) == [(data, 3)]


def test_what_has_begun_behind_the_last_record_of_a_handshake_is_a_piece_of_its_own() -> None:
    """Behind a client's Finished stands its request, which is data, also while it is not whole."""
    one, data = Records(CALLING), record(1_500) + record(40)
    begun = record(16_000)[:14_500]
    assert list(one.cut(data + begun)) == [(data, 2), (begun, 0)]
    one.new_message()
    rest = record(16_000)[14_500:] + record(40) + begun
    assert list(one.cut(rest)) == [(rest, 2)]


# --- counting -----------------------------------------------------------------------------------------------------


def shaken() -> Records:
    one = Records()
    one.new_message()
    return one


def test_records_without_data_are_counted_until_a_message_is_whole() -> None:
    one = shaken()
    assert one.gave(BARREN * KEY_UPDATE, BARREN, 0, 0) == ""
    one.new_message()
    assert one.gave(BARREN * KEY_UPDATE, BARREN, 0, 0) == ""
    assert one.gave(KEY_UPDATE, 1, 0, 0) == f"more than {BARREN} TLS records without data"


def test_data_between_them_buys_nothing_beyond_its_own_record() -> None:
    """A byte for each KeyUpdate: what has no data is counted all the same."""
    one = shaken()
    told = [one.gave(KEY_UPDATE + 23, 2, 1, 1) for _ in range(BARREN + 1)]
    assert told[:-1] == [""] * BARREN
    assert told[-1]


def test_a_handshake_may_come_in_small_fragments_but_not_without_end() -> None:
    one = Records()
    assert one.gave(HANDSHAKE * 69, HANDSHAKE, 0, 0) == ""
    assert one.gave(9, 1, 0, 0) == f"more than {HANDSHAKE} TLS records without data"


@pytest.mark.parametrize("most", [SHAKING, CALLING], ids=["a server's", "a client's"])
def test_TB10_a_handshake_has_so_many_bytes_and_is_digested_in_pieces(most: int) -> None:
    """A certificate of 100 KiB is never whole: what OpenSSL has not seen to its end it does not read."""
    one, digested, told = Records(most), 0, ""
    for piece, ended in one.cut(record(16_000) * 100):
        assert len(piece) < PIECE + 16_005
        digested += len(piece)
        told = told or one.gave(len(piece), ended, 0, 0)
        if told:
            break
    assert told == f"more than {most} bytes of TLS that carry no data"
    assert digested <= most + 2 * PIECE


def test_bytes_around_data_are_bounded_too() -> None:
    """Padding (RFC 8446 section 5.4) makes 16 KiB of a byte."""
    one = shaken()
    told = [one.gave(16_406, 1, 1, 1) for _ in range(OVERHEAD // 16_405 + 1)]
    assert not any(told[:-1])
    assert told[-1] == f"more than {OVERHEAD} bytes of TLS that carry no data"


def test_a_message_that_comes_byte_by_byte_is_taken() -> None:
    one = shaken()
    assert not any(one.gave(30, 1, 1, 1) for _ in range(4096))


# --- a session, and a TLS stack that is not ours ------------------------------------------------------------------


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        theirs = socket.create_connection(listening.getsockname())
        ours, _ = listening.accept()
    ours.settimeout(5)
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def handshaken(session: Session, ours: socket.socket, connect: Callable[[], None]) -> None:
    """Carry bytes until both are through; the other end works in a thread of its own."""
    peer = threading.Thread(target=connect)
    peer.start()
    while not session.handshaken:
        if out := session.outgoing():
            ours.sendall(out)
        session.receive(ours.recv(65536))
        assert session.refused is None
    ours.sendall(session.outgoing())
    peer.join()


def settings() -> HandshakeSettings:
    chosen = HandshakeSettings()
    chosen.minVersion = chosen.maxVersion = (3, 4)
    chosen.certificate_compression_send = ()  # RFC 8879, which our OpenSSL is built without
    return chosen


def own(certificate: Path) -> tuple[X509CertChain, object]:
    chain = X509CertChain()
    chain.parsePemList(certificate.read_text())
    return chain, parsePEMKey(certificate.with_suffix(".key").read_text(), private=True)


def flooding(sender: TLSConnection, count: int) -> None:
    """KeyUpdates that ask for one in return, one after the other. Their end of the connection changes its key each
    time, as it must."""
    for _ in range(count):
        for _ in sender.send_keyupdate_request(1):
            pass


def drained(sock: socket.socket) -> bytes:
    sock.settimeout(0.2)
    data = b""
    with contextlib.suppress(TimeoutError):
        while more := sock.recv(1 << 20):
            data += more
    return data


@pytest.mark.parametrize("count", [BARREN, 5 * BARREN])
def test_TB10_a_device_may_change_its_key_a_few_times_and_not_for_ever(
        factory: Folder, device: Callable[[str], Issued], wire: tuple[socket.socket, socket.socket],
        count: int) -> None:
    ours, theirs = wire
    chain = factory.certificate_path("delegator-server", "delegator")
    session = Session(server_context(chain, chain.with_suffix(".key"), TrustStore.load(factory.ca_path, None),
                                     lambda: NOW))
    sender = TLSConnection(theirs)
    certificate, key = own(device("ABC1234").certificate_path)
    handshaken(session, ours, lambda: sender.handshakeClientCert(certificate, key, settings=settings()))
    flooding(sender, count)
    assert session.receive(drained(ours)) == b""
    answered = len(session.outgoing()) // KEY_UPDATE
    if count <= BARREN:
        assert session.refused is None
        sender.send(b"GET / HTTP/1.1\r\n\r\n")
        assert session.receive(ours.recv(65536)) == b"GET / HTTP/1.1\r\n\r\n"
    else:
        assert str(session.refused) == f"connection failed (more than {BARREN} TLS records without data)"
        assert session.closed
        assert answered <= BARREN + AT_ONCE, "what comes after the last few records is not digested"


def test_TB10_a_delegate_that_only_changes_its_key_ends_the_call(
        factory: Folder, wire: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = wire
    session = Session(client_context(None, None, TrustStore.load(factory.ca_path, None), lambda: NOW), "localhost")
    server = TLSConnection(theirs)
    certificate, key = own(factory.certificate_path("delegator-server", "delegator"))
    session.start()
    handshaken(session, ours, lambda: server.handshakeServer(certChain=certificate, privateKey=key,
                                                             settings=settings()))
    flooding(server, 5 * BARREN)
    session.receive(drained(ours))
    assert "without data" in str(session.refused)
    assert len(session.outgoing()) <= (BARREN + AT_ONCE) * KEY_UPDATE + 24


def test_TB10_hello_requests_without_end_end_the_handshake(factory: Folder) -> None:
    """TLS 1.2: a client is to ignore them (RFC 5246 section 7.4.1.1), in any number."""
    session = Session(client_context(None, None, TrustStore.load(factory.ca_path, None), lambda: NOW), "localhost")
    session.start()
    hello_request = b"\x16\x03\x03\x00\x04\x00\x00\x00\x00"
    for _ in range(200):
        session.receive(hello_request * 1000)
        if session.refused is not None:
            break
    assert session.refused is not None
    assert session.closed


def test_what_is_counted_is_what_the_page_says() -> None:
    assert (AT_ONCE, BARREN, HANDSHAKE, CALLING, SHAKING, OVERHEAD) == (32, 32, 256, 16384, 32768, 131072)
    assert records.__doc__
