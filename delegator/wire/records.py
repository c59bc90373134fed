"""TLS records as they come off the wire, counted before anybody digests them.

A peer may send records that carry no data: KeyUpdate in TLS 1.3 (RFC 8446 section 4.6.3), HelloRequest and empty
records in TLS 1.2, tickets, padding. OpenSSL digests all that it is given in one call, and asks for no permission:
64 KiB hold 2 400 KeyUpdates, each two key derivations and an answer of ours. So the bytes are cut where records end
and handed over a few records at a time, and after each few it is known how many of them carried something.
The invariant: between two messages (requests or answers) a session digests a bounded number of records without data
and a bounded number of bytes that are no data, whoever sends them and however they are cut.
Must not live here: OpenSSL (wire.tls), what a message is (wire.http), deadlines (net).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

AT_ONCE = 32
"""Records that OpenSSL is given in one go. A request, an answer and each half of a handshake come in fewer."""
BARREN = 32
"""Records without data between two messages. Two tickets and a KeyUpdate are what honest servers send in a year; 32
KeyUpdates cost us about 0.3 ms."""
HANDSHAKE = 256
"""Records of the peer's half of a handshake: a chain of 16 KiB in the smallest fragments that are negotiated
(RFC 8449 and RFC 6066 section 4 have 64 and 512)."""
SHAKING = 32 * 1024
"""Bytes of a server's half: a leaf with many names and three more certificates, with keys and signatures of the coming
kind too (ML-DSA, 7 KiB each). OpenSSL takes 100 KiB, of whose 2 500 names it made 9 ms of everybody's time (measured),
whoever signed them."""
CALLING = 16 * 1024
"""Bytes of a client's half: devices and delegators show four certificates of 2 KiB at most, see `pki`."""
PIECE = 16 * 1024
"""Bytes of a handshake that OpenSSL is given in one go, up to the end of a record."""
OVERHEAD = 128 * 1024
"""Bytes that are no data, between two messages: one of 4 KiB that comes byte by byte, each byte in a record of its own
(29 bytes around it)."""
_HEADER = 5


class Records:
    """What one peer sends. `cut` what arrives, and after each piece tell what it `gave`."""

    __slots__ = ("_barren", "_header", "_left", "_most", "_overhead", "_shaking")

    def __init__(self, most: int = SHAKING) -> None:
        """`most` bytes may the peer's half of the handshake have."""
        self._most = most
        self._header = b""
        """The first bytes of a record whose header is not whole yet."""
        self._left = 0
        """Bytes of the present record that have not come yet."""
        self._barren = self._overhead = 0
        self._shaking = True

    def cut(self, data: bytes) -> Iterable[tuple[bytes, int]]:
        """The same bytes in pieces, each with the number of records that end in it, AT_ONCE at most, and in a handshake
        hardly more than PIECE bytes: what has begun behind its last record is a piece of its own, as it may be data.
        Bytes that are no TLS come out too: what they are is OpenSSL's to say."""
        if not self._left and not self._header and len(data) <= PIECE:
            position, end, ended = 0, len(data), 0
            while position + _HEADER <= end:
                position += _HEADER + (data[position + 3] << 8 | data[position + 4])
                ended += 1
            if position == end and ended <= AT_ONCE:  # a few whole records, as nearly always
                return ((data, ended),)
        return self._pieces(data)

    def _pieces(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        start, position, end, ended, whole = 0, 0, len(data), 0, 0
        while position < end:
            if not self._left:
                if not self._header and position + _HEADER <= end:  # as nearly always: nothing is copied
                    self._left = data[position + 3] << 8 | data[position + 4]
                    position += _HEADER
                else:
                    header = self._header + data[position:position + _HEADER - len(self._header)]
                    position += len(header) - len(self._header)
                    self._header = header
                    if len(header) < _HEADER:
                        break
                    self._header, self._left = b"", header[3] << 8 | header[4]
            taken = min(self._left, end - position)
            self._left -= taken
            position += taken
            if not self._left:
                ended, whole = ended + 1, position
                if ended == AT_ONCE or (self._shaking and position - start >= PIECE):
                    yield data[start:position], ended
                    start, ended = position, 0
        if self._shaking and start < whole < end:
            yield data[start:whole], ended
            start, ended = whole, 0
        if start < end:
            yield data[start:] if start else data, ended

    def gave(self, size: int, ended: int, carrying: int, plaintext: int) -> str:
        """A piece of `size` bytes in which `ended` records ended was digested; `carrying` records had data,
        `plaintext` bytes in all. Says what was too much, "" if nothing was."""
        barren = self._barren + ended - carrying
        self._barren = barren if barren > 0 else 0
        self._overhead += size - plaintext
        most, size = (HANDSHAKE, self._most) if self._shaking else (BARREN, OVERHEAD)
        if self._barren > most:
            return f"more than {most} TLS records without data"
        if self._overhead > size:
            return f"more than {size} bytes of TLS that carry no data"
        return ""

    def new_message(self) -> None:
        """The handshake is over, or a whole message was made of what came: the next one has the whole bounds."""
        self._barren = self._overhead = 0
        self._shaking = False
