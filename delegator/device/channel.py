"""One TLS connection as a client: dialled, shaken hands on, and read so that nothing on it is without a bound.

TLS is done in memory (ssl.MemoryBIO) and the socket is read here, because a record may carry no data: the ssl module's
own socket goes on reading such records for as long as they come, past every time-out (RFC 8446 section 4.6.3).

The invariants: one deadline holds from the first address that is dialled to the last byte, and is looked at before
each wait; no more bytes are taken from the network than whoever reads has allowed beforehand; a certificate that is
not for servers gets nothing, not even the question.
Must not live here: HTTP (exchange), whom to trust and what an error means (tls).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, TypeVar

from delegator.device import reasons, tls
from delegator.device.addresses import Address, proven_name
from delegator.device.reasons import Failure, system_words

Done = TypeVar("Done")

DIALLED = 4
"""Addresses of one name that are tried: who has forty may not have the device knock at all of them."""
_PIECE = 16 * 1024
"""Bytes taken from the network at once: what one TLS record holds."""
_HANDSHAKE = 192 * 1024
"""Bytes until the handshake is done: OpenSSL takes chains of certificates up to 100 KiB."""
_UNASKED = 16 * 1024
"""Bytes that may come while nobody asks anything, such as two session tickets of TLS 1.3."""


class Peer(NamedTuple):
    """Whom to dial, by which proxy if by one, and the name that must be proven. `made_for_servers` is whether the
    certificate has to say so: the factory's do, and an owner's may say nothing."""

    address: Address
    name: str
    proxy: Address | None = None
    made_for_servers: bool = True


class Channel:
    """An established connection, to be closed by whoever has it; `received` counts what came through it for its
    reader."""

    def __init__(self, plain: socket.socket, context: ssl.SSLContext, name: str, deadline: float) -> None:
        self._socket, self._deadline = plain, deadline
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=proven_name(name))
        self._allowed = 0
        self.received = 0

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def is_silent(self) -> bool:
        """Whether nothing came that nobody asked for, not even its end: what is here by now is taken without waiting.
        Records of TLS that carry nothing do no harm."""
        self.allow(_UNASKED)
        try:
            self._socket.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while self._allowed > 0 and self._came():
                    pass
            self._tls.read(1)
        except ssl.SSLWantReadError:
            return self._allowed > 0
        except (OSError, ValueError):
            pass
        return False

    def renew(self, deadline: float) -> None:
        """Another question, with a deadline of its own."""
        self._deadline, self.received = deadline, 0

    @property
    def version(self) -> str | None:
        return self._tls.version()

    def allow(self, size: int) -> None:
        """From here on that many bytes may come from the network, whatever is in them."""
        self._allowed = size

    def shake_hands(self) -> None:
        """Raises OSError, Failure."""
        self.allow(_HANDSHAKE)
        try:
            self._go_on(self._tls.do_handshake)
        finally:
            with contextlib.suppress(OSError, Failure):  # who refuses says why
                self._flush()

    def certificate(self) -> bytes:
        """The other side's, which was believed, as DER."""
        return self._tls.getpeercert(binary_form=True) or b""

    def write(self, content: bytes) -> None:
        """Raises OSError, Failure."""
        for at in range(0, len(content), _PIECE):
            piece = content[at:at + _PIECE]
            self._go_on(partial(self._tls.write, piece))
            self._flush()

    def read(self, size: int) -> bytes:
        """Some of what came, at most `size` bytes; nothing once the other side has said that it is done. Raises
        OSError, Failure."""
        content = self._go_on(lambda: self._tls.read(min(size, _PIECE)))
        self.received += len(content)
        return content

    def _go_on(self, step: Callable[[], Done]) -> Done:
        """A step of TLS, with as many bytes from the network as it needs."""
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._flush()
                self._take()

    def _take(self) -> None:
        if self._allowed <= 0:
            raise Failure(reasons.ANSWER_NOT_UNDERSTOOD, "the other side sends and sends, and nothing that is wanted")
        self._socket.settimeout(left(self._deadline))
        self._came()

    def _came(self) -> bool:
        """Takes a piece of what came; false for its end."""
        content = self._socket.recv(min(_PIECE, self._allowed))
        self._allowed -= len(content)
        if content:
            self._incoming.write(content)
        else:
            self._incoming.write_eof()
        return bool(content)

    def _flush(self) -> None:
        content = self._outgoing.read()
        if content:
            self._socket.settimeout(left(self._deadline))
            self._socket.sendall(content)


def connected(peer: Peer, context: ssl.SSLContext, deadline: float) -> Channel:
    """A connection to a peer that has proven itself. Raises Failure."""
    plain = _dialled(peer, deadline)
    try:
        channel = Channel(plain, context, peer.name, deadline)
        channel.shake_hands()
        tls.check_server(channel.certificate(), peer.made_for_servers)
    except (OSError, ValueError) as error:
        plain.close()
        raise tls.handshake_failure(error) from None
    except BaseException:
        plain.close()
        raise
    return channel


def left(deadline: float) -> float:
    """Seconds until then. Raises TimeoutError when there are none."""
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        raise TimeoutError("the time for this exchange is over")
    return seconds


def _dialled(peer: Peer, deadline: float) -> socket.socket:
    address = peer.proxy or peer.address
    try:
        plain = _first_that_answers(address, deadline)
        # The request follows our last handshake message at once; with Nagle it would wait 40 ms for an acknowledgement.
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        if peer.proxy is None:
            raise _not_dialled(address, error) from None
        raise Failure(reasons.NO_ROUTE, f"the proxy {address}: {system_words(error)}") from None
    except UnicodeError as error:
        raise Failure(reasons.NO_ROUTE, f"{address}: {system_words(error)}") from None
    if peer.proxy is not None:
        try:
            _ask_the_proxy(plain, peer.address, deadline)
        except BaseException:
            plain.close()
            raise
    return plain


def _not_dialled(address: Address, error: OSError) -> Failure:
    if isinstance(error, socket.gaierror):
        return Failure(reasons.NAME_NOT_FOUND, f"{address.host}: {error.strerror}")
    if isinstance(error, ConnectionRefusedError):
        return Failure(reasons.NOTHING_LISTENING, str(address))
    return Failure(reasons.NO_ROUTE, f"{address}: {system_words(error)}")


def _first_that_answers(address: Address, deadline: float) -> socket.socket:
    """Each address of a name gets its share of the time, so that a silent one leaves some for those after it."""
    found = _few(socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))
    last: OSError = OSError("it has no address")
    for number, (family, kind, protocol, _, where) in enumerate(found):
        try:
            plain = socket.socket(family, kind, protocol)
        except OSError as error:  # a system without that family
            last = error
            continue
        try:
            plain.settimeout(left(deadline) / (len(found) - number))
            plain.connect(where)
        except OSError as error:
            plain.close()
            last = error
        else:
            return plain
    raise last


def _few(found: list[Any]) -> list[Any]:
    """The first of each family in turn, in the order that the system prefers (RFC 8305 section 4)."""
    first = [one for one in found if one[0] == found[0][0]]
    others = [one for one in found if one[0] != found[0][0]]
    mixed = [one for pair in zip(first, others) for one in pair]  # noqa: B905 - the rest follows
    return (mixed + first[len(others):] + others[len(first):])[:DIALLED]


_PROXY_HEAD = 16 * 1024


def _ask_the_proxy(plain: socket.socket, address: Address, deadline: float) -> None:
    """CONNECT (RFC 9110 section 9.3.6): the proxy passes bytes on, and never sees what is in them."""
    try:
        plain.settimeout(left(deadline))
        plain.sendall(f"CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n".encode("ascii"))
        head = b""
        while not head.endswith(b"\r\n\r\n"):  # byte by byte: what comes after the head belongs to TLS
            plain.settimeout(left(deadline))
            byte = plain.recv(1)
            if not byte or len(head) > _PROXY_HEAD:
                raise Failure(reasons.NO_ROUTE, "the proxy gave no HTTP answer")
            head += byte
    except OSError as error:
        raise Failure(reasons.NO_ROUTE, f"the proxy: {system_words(error)}") from None
    status = head.split(b"\r\n", 1)[0].split(b" ")
    if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1][:1] != b"2":
        words = head.split(b"\r\n", 1)[0].decode("ascii", "replace")
        raise Failure(reasons.NO_ROUTE, f"the proxy answered {reasons.shown(words)}")
