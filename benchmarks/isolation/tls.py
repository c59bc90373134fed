"""TLS whose records the attacker writes itself, any kind with any content, as fast as AES-GCM goes.

OpenSSL (the standard library's) makes the handshake, over memory, and tells the secrets through its key log; from
there on records are sealed here. That gives what no library sends: floods of KeyUpdate, HelloRequest, empty records.
The invariant: after the handshake this object alone writes on the connection.
Must not live here: what is sent (delegates, callers).
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import socket
import ssl
import struct
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHANGE, ALERT, HANDSHAKE, DATA = 20, 21, 22, 23
RECEIVE = 1 << 16


def context(version: ssl.TLSVersion, *, chain: Path | None = None, ca: Path | None = None) -> ssl.SSLContext:
    """A server's with a chain, a client's with `ca` (a certificate of its own with a chain too). AES-GCM alone."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT if ca else ssl.PROTOCOL_TLS_SERVER)
    made.minimum_version = made.maximum_version = version
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if version is ssl.TLSVersion.TLSv1_2:
        made.set_ciphers("ECDHE+AESGCM")
    if chain is not None:
        made.load_cert_chain(chain, chain.with_suffix(".key"), password="")
    if ca is None:
        made.num_tickets = 0
    return made


def record(kind: int, payload: bytes, length: int | None = None) -> bytes:
    """A record in the clear (RFC 8446 section 5.1), its length a lie where one is given."""
    return struct.pack("!BHH", kind, 0x0303, len(payload) if length is None else length) + payload


class Wire:
    """One connection after its handshake. Raises OSError where that comes to nothing."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, *, serves: bool) -> None:
        self.socket = sock
        self.modern = context.minimum_version is ssl.TLSVersion.TLSv1_3
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, serves, None if serves else "localhost")
        heard, said = self._shaken(context)
        client, server = (heard, said) if serves else (said, heard)
        suite = self._tls.cipher() or ("", "", 0)
        self._hash = "sha384" if "SHA384" in suite[0] else "sha256"
        self._number = 0
        self._size = 32 if "256" in suite[0].replace("SHA256", "") else 16
        self._keyed(client[11:43], server[11:43], serves)

    def _shaken(self, context: ssl.SSLContext) -> tuple[bytes, bytes]:
        """What was heard and said in the handshake."""
        heard, said = b"", b""
        with tempfile.NamedTemporaryFile(prefix="isolation-") as log:
            context.keylog_filename = log.name
            while True:
                done = True
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    done = False
                out = self._out.read()
                said += out
                if out:
                    self.socket.sendall(out)
                if done:
                    break
                data = self.socket.recv(RECEIVE)
                if not data:
                    raise ConnectionResetError("closed in the handshake")
                heard += data
                self._in.write(data)
            self._secrets = dict(line.split(" ", 1) for line in Path(log.name).read_text().splitlines()
                                 if not line.startswith("#"))
        return heard, said

    def _keyed(self, client: bytes, server: bytes, serves: bool) -> None:
        if self.modern:
            label = "SERVER_TRAFFIC_SECRET_0" if serves else "CLIENT_TRAFFIC_SECRET_0"
            self._turn(bytes.fromhex(self._secrets[label].split()[1]))
            return
        master = bytes.fromhex(self._secrets["CLIENT_RANDOM"].split()[1])
        block = self._pseudorandom(master, b"key expansion" + server + client, 2 * self._size + 8)
        at, iv = (self._size, 2 * self._size + 4) if serves else (0, 2 * self._size)
        self._aead, self._iv, self._number = AESGCM(block[at:at + self._size]), block[iv:iv + 4], 1

    def _pseudorandom(self, secret: bytes, seed: bytes, length: int) -> bytes:
        """RFC 5246 section 5."""
        out, turn = b"", seed
        while len(out) < length:
            turn = hmac.digest(secret, turn, self._hash)
            out += hmac.digest(secret, turn + seed, self._hash)
        return out[:length]

    def _derived(self, label: bytes, length: int) -> bytes:
        """HKDF-Expand-Label (RFC 8446 section 7.1) of the present secret, of one block at most."""
        label = b"tls13 " + label
        info = struct.pack("!HB", length, len(label)) + label + b"\0"
        return hmac.digest(self._secret, info + b"\x01", self._hash)[:length]

    def _turn(self, secret: bytes) -> None:
        self._secret, self._number = secret, 0
        self._aead, self._iv = AESGCM(self._derived(b"key", self._size)), self._derived(b"iv", 12)

    # --- what the attacker writes ---

    def sealed(self, kind: int, payload: bytes, padding: int = 0) -> bytes:
        """The bytes of the next record."""
        number, self._number = self._number, self._number + 1
        if self.modern:
            inner = payload + bytes([kind]) + bytes(padding)
            head = struct.pack("!BHH", DATA, 0x0303, len(inner) + 16)
            nonce = (int.from_bytes(self._iv) ^ number).to_bytes(12)
            return head + self._aead.encrypt(nonce, inner, head)
        explicit = number.to_bytes(8)
        about = explicit + struct.pack("!BHH", kind, 0x0303, len(payload))
        body = explicit + self._aead.encrypt(self._iv + explicit, payload, about)
        return struct.pack("!BHH", kind, 0x0303, len(body)) + body

    def key_update(self, asked: bool) -> bytes:
        """A KeyUpdate, after which everything has the next key (RFC 8446 section 4.6.3)."""
        data = self.sealed(HANDSHAKE, b"\x18\0\0\x01" + bytes([asked]))
        self._turn(self._derived(b"traffic upd", hashlib.new(self._hash).digest_size))
        return data

    def write(self, data: bytes) -> None:
        """Data in records of usual size."""
        for start in range(0, len(data), 16_000):
            self.socket.sendall(self.sealed(DATA, data[start:start + 16_000]))

    def read(self) -> bytes:
        """What the other side says next; b"" at the end. OpenSSL reads."""
        while True:
            with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                return self._tls.read(RECEIVE)
            data = self.socket.recv(RECEIVE)
            if not data:
                return b""
            self._in.write(data)

    def request(self) -> bytes:
        """One whole HTTP message as a caller sends it: its body."""
        data = b""
        while True:
            head, found, body = data.partition(b"\r\n\r\n")
            length = next((int(line.partition(b":")[2]) for line in head.split(b"\r\n")
                           if line.lower().startswith(b"content-length:")), 0)
            if found and len(body) >= length:
                return body
            more = self.read()
            if not more:
                raise ConnectionResetError("closed in a request")
            data += more
