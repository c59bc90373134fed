"""TLS without a socket: pyOpenSSL over memory BIOs. Bytes in, bytes out, and why a peer was refused.

A context is built once and never changed: a reload builds a new one. A session is one
end of one connection. Verification happens inside `receive`, on the caller's thread, so the verdict of the
session being fed can stand in one slot of its context.
The invariants: no resumption (a resumed session skips expiry and revocation); after a refusal `outgoing` still
holds the right alert; a refusal names the certificate it concerns.
Must not live here: sockets, deadlines, trust decisions (pki.trust).
"""

from __future__ import annotations

import ipaddress
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import service_identity
import service_identity.pyopenssl
from cryptography.hazmat.bindings.openssl.binding import Binding
from msgspec.structs import replace
from OpenSSL import SSL, crypto

from delegator.errors import DelegatorError, Kind
from delegator.model import PeerCertificate
from delegator.wire import leaf
from delegator.wire.certificate import LARGEST, NAMES, dear_key, names_in, read_certificate, read_leaf, serial_of, told
from delegator.wire.presented import openssl_words, presented, show
from delegator.wire.records import CALLING, SHAKING, Records
from delegator.wire.refused import Refused
from pki.pair import Pair
from pki.said import said
from pki.trust import NOT_AN_ISSUER, Refusal, TrustStore, refusal_of

RECORD = 16 * 1024
"""Plaintext in one TLS record at most (RFC 8446 section 5.1)."""
CHAIN = 4
"""Certificates in a chain at most, leaf and anchor included: a root, a policy and an issuing authority, a device. Each
is one more signature to check before a stranger is known."""
_CIPHERS_12 = b"ECDHE+AESGCM:ECDHE+CHACHA20:@SECLEVEL=2"
"""TLS 1.2 keeps forward secrecy and AEAD only (RFC 9325 section 4.2). The level, 112 bits, holds for both versions: no
RSA key under 2048 bits and no SHA-1 in any certificate of a chain or in a handshake."""
_CIPHERS_13 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""The one that all must have (RFC 8446 section 9.1) first: its key schedule hashes with SHA-256, which processors have
an instruction for; a handshake hashes about 115 blocks (counted)."""
_OPTIONS = SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
DEAR_KEY = "an RSA key that would take too long to check a signature with"
_ffi, _lib = Binding.ffi, Binding.lib
_WANT_READ, _ZERO_RETURN = int(_lib.SSL_ERROR_WANT_READ), int(_lib.SSL_ERROR_ZERO_RETURN)
_OUT = 2 * RECORD
_ERROR_OF = {Refusal.REVOKED: 23, Refusal.CRL_STALE: 1, Refusal.WRONG_PURPOSE: 26, Refusal.WEAK_KEY: 66,
             Refusal.UNKNOWN_CA: 20, Refusal.OTHER: 28}
"""X509_V_ERR_CERT_REVOKED becomes alert certificate_revoked, INVALID_PURPOSE unsupported_certificate, EE_KEY_TOO_SMALL
and CERT_REJECTED bad_certificate, UNABLE_TO_GET_ISSUER_CERT_LOCALLY unknown_ca. A stale list is our fault: UNSPECIFIED
becomes internal_error, where "expired" would send the device's owner looking in the wrong place."""


class TlsContext:
    """Certificate, key and trust for many sessions. Make it with `server_context` or `client_context`.

    A server asks more of its peers than OpenSSL does: what `wire.leaf` says, and an issuer that may sign them.
    Sessions of one context take turns: they share what is remembered of the verification under way, and the room that
    bytes pass through, which is emptied before anybody else can have it. Another thread needs a context of its own, as
    OpenSSL is called without the interpreter's lock.
    """

    def __init__(self, method: int, trust: TrustStore, now: Callable[[], datetime], mode: int) -> None:
        self.trust = trust
        self.last_refused: Refused | None = None
        self.last_leaf: bytes | None = None
        self.last_peer: PeerCertificate | None = None
        self.scratch, self.start = _ffi.new("char[]", _OUT), _ffi.new("char **")
        self._now = now
        self._serves = method == SSL.TLS_SERVER_METHOD
        direct = self._serves and trust.issuers == trust.beneath_anchors().issuers
        self._issuers = trust.issuers if self._serves and not direct else None
        self.ssl = SSL.Context(method)
        self.ssl.set_min_proto_version(SSL.TLS1_2_VERSION)
        self.ssl.set_options(_OPTIONS)
        self.ssl.set_cipher_list(_CIPHERS_12)
        self.ssl.set_tls13_ciphersuites(_CIPHERS_13)
        self.ssl.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self.ssl.set_mode(_lib.SSL_MODE_RELEASE_BUFFERS)  # 31 KiB for a held connection where it was 45 (measured)
        self.ssl.set_verify_depth(0 if direct else CHAIN - 2)  # OpenSSL counts what stands between leaf and anchor
        store = self.ssl.get_cert_store()
        assert store is not None
        for anchor in trust.anchors:
            store.add_cert(crypto.X509.from_cryptography(anchor))
        judge = weakref.WeakMethod(self._judge)  # else a cycle, which holds OpenSSL's store until a full collection

        def verdict(ok: int, store_context: Any) -> int:
            judging = judge()  # there as long as any session is: each holds its context
            return 0 if judging is None else judging(ok, store_context)
        self._callback = _ffi.callback("int (*)(int, X509_STORE_CTX *)", verdict)
        _lib.SSL_CTX_set_verify(self.ssl._context, mode, self._callback)

    def _judge(self, ok: int, store_context: Any) -> int:
        """OpenSSL's verdict on one certificate of a chain. pyOpenSSL's own hook cannot set the error that becomes
        the alert when a verified leaf is revoked, hence this one; 0 refuses. Times come after signatures."""
        depth = _lib.X509_STORE_CTX_get_error_depth(store_context)
        if ok and depth and self._serves and (depth > 1 or self._issuers is None):
            return 1
        raw = _lib.X509_STORE_CTX_get_current_cert(store_context)
        if ok:
            fault = self._judge_issuer(_der(raw)) if depth else self._judge_leaf(_der(raw))
            if fault is None:
                return 1
            refusal, detail = fault
            _lib.X509_STORE_CTX_set_error(store_context, _ERROR_OF[refusal])
        else:
            code = _lib.X509_STORE_CTX_get_error(store_context)
            refusal = refusal_of(code)
            detail = _ffi.string(_lib.X509_verify_cert_error_string(code)).decode()
            if refusal is Refusal.BAD_SIGNATURE:  # OpenSSL says decrypt_error, RFC 8446 section 6.2 bad_certificate
                _lib.X509_STORE_CTX_set_error(store_context, _ERROR_OF[Refusal.OTHER])
        genuine = depth == 0 and (bool(ok) or refusal in (Refusal.EXPIRED, Refusal.NOT_YET_VALID))
        shown = b"" if genuine or ok else _der(_lib.X509_STORE_CTX_get0_cert(store_context))
        self.last_refused = replace(_refused_for(refusal, detail, _der(raw), depth), genuine=genuine, leaf=shown)
        return 0

    def _judge_issuer(self, issuer: bytes) -> tuple[Refusal, str] | None:
        """Who signed the leaf, where not all that OpenSSL would believe may do that. Of a server it is asked before
        anything is checked with its key."""
        if not self._serves:
            return (Refusal.OTHER, DEAR_KEY) if dear_key(issuer) else None
        assert self._issuers is not None
        return None if issuer in self._issuers else (Refusal.UNKNOWN_CA, NOT_AN_ISSUER)

    def _judge_leaf(self, der: bytes) -> tuple[Refusal, str] | None:
        """A leaf whose chain is good: whether it was revoked, and is what it must be. It is read here, once."""
        key_at = None
        if len(der) > LARGEST:
            return Refusal.OTHER, f"a certificate of {len(der)} bytes, and {LARGEST} are taken"
        if not self._serves and dear_key(der):
            return Refusal.OTHER, DEAR_KEY
        try:
            self.last_peer, key_at = read_leaf(der)
            serial = self.last_peer.serial
        except ValueError:  # not a structure we read: no device's, told when somebody asks `Session.peer`
            self.last_peer, serial = None, _serial_of(der)
        self.last_leaf = der
        refusal = self.trust.refuse(serial, self._now())
        if refusal is not None:
            return refusal, refusal.value
        return leaf.fault(der, key_at) if self._serves else None

    def withdrawn(self, session: Session) -> Refused | None:
        """Why this context would not let in a peer that an earlier one did: its certificate was revoked meanwhile."""
        der = session.peer_certificate_der()
        refusal = None if der is None else self.trust.refuse(_serial_of(der), self._now())
        if der is None or refusal is None:
            return None
        return _refused_for(refusal, f"{refusal.value} since it connected", der)


def _serial_of(der: bytes) -> int:
    """-1, which no list names, for what is no certificate to us; `leaf.fault` has the last word on it."""
    try:
        return serial_of(der)
    except ValueError:
        return -1


def _der(raw: Any) -> bytes:
    """The bytes of an X509 of OpenSSL's."""
    bio = _lib.BIO_new(_lib.BIO_s_mem())
    try:
        _lib.i2d_X509_bio(bio, raw)
        start = _ffi.new("char **")
        length = _lib.BIO_get_mem_data(bio, start)
        return bytes(_ffi.buffer(start[0], length))
    finally:
        _lib.BIO_free(bio)


def server_context(chain_file: Path, key_file: Path, trust: TrustStore, now: Callable[[], datetime], *,
                   require_certificate: bool = True) -> TlsContext:
    """A context that presents what is in two files. Raises DelegatorError (CONFIGURATION)."""
    return serving(presented(chain_file, key_file), trust, now, require_certificate=require_certificate)


def serving(pair: Pair, trust: TrustStore, now: Callable[[], datetime], *,
            require_certificate: bool = True) -> TlsContext:
    """A context that presents a pair and asks every peer for a certificate. Raises DelegatorError (CONFIGURATION)."""
    mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if require_certificate else 0)
    context = TlsContext(SSL.TLS_SERVER_METHOD, trust, now, mode)
    show(context.ssl, pair)
    for anchor in trust.anchors:
        context.ssl.add_client_ca(anchor)
    return context


def client_context(chain_file: Path | None, key_file: Path | None, trust: TrustStore,
                   now: Callable[[], datetime], *, system: bool = False) -> TlsContext:
    """A context that presents what is in two files, if there are any. Raises DelegatorError (CONFIGURATION)."""
    pair = None if chain_file is None or key_file is None else presented(chain_file, key_file)
    return calling(pair, trust, now, system=system)


def calling(pair: Pair | None, trust: TrustStore, now: Callable[[], datetime], *, system: bool = False) -> TlsContext:
    """A context that trusts exactly `trust`, with `system` the system's authorities too, and presents a pair if it has
    one. Raises DelegatorError (CONFIGURATION)."""
    context = TlsContext(SSL.TLS_CLIENT_METHOD, trust, now, SSL.VERIFY_PEER)
    if system:
        context.ssl.set_default_verify_paths()
    if pair is not None:
        show(context.ssl, pair)
    return context


class Session:
    """One end of one TLS connection. Feed it with `receive`, take `outgoing` to the wire after every call.

    The context is pyOpenSSL's; bytes are moved by the functions beneath it, which tell "more bytes are needed" by a
    number where its own raise an exception (five a handshake; together with what is read of the certificate 90 000
    instructions of 6.5 million, measured).
    """

    __slots__ = ("_connection", "_context", "_in", "_leaf", "_out", "_peer", "_records", "_ssl", "closed", "handshaken",
                 "refused")

    def __init__(self, context: TlsContext, server_name: str | None = None) -> None:
        """`server_name` makes it the client's end; who was reached is checked by `check_name`."""
        self._context = context
        self._leaf: bytes | None = None
        self._peer: PeerCertificate | None = None
        self._records = Records(CALLING if server_name is None else SHAKING)
        self.handshaken = False
        self.closed = False
        self.refused: Refused | None = None
        self._connection: SSL.Connection | None = None
        if server_name is None:
            self._accept()
        else:
            self._connect(server_name)

    def _accept(self) -> None:
        """What pyOpenSSL's Connection does for a server's end without a socket, and nothing else (31 to 10 µs)."""
        ssl = _lib.SSL_new(self._context.ssl._context)
        if ssl == _ffi.NULL:
            raise MemoryError("no room for a TLS session")
        self._ssl = _ffi.gc(ssl, _lib.SSL_free)
        self._in, self._out = _lib.BIO_new(_lib.BIO_s_mem()), _lib.BIO_new(_lib.BIO_s_mem())
        _lib.SSL_set_bio(ssl, self._in, self._out)
        _lib.SSL_set_accept_state(ssl)

    def _connect(self, server_name: str) -> None:
        self._connection = connection = SSL.Connection(self._context.ssl, None)
        self._ssl, self._in, self._out = connection._ssl, connection._into_ssl, connection._from_ssl
        connection.set_connect_state()
        if not _is_address(server_name):
            connection.set_tlsext_host_name(server_name.encode())

    def start(self) -> None:
        """The client's first words."""
        self._handshake()

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the wire; the plaintext they held. Afterwards look at `handshaken`, `refused`, `closed`. They
        are digested a few records at a time, and a peer that sends too much without data is refused."""
        parts: list[bytes] = []
        for piece, ended in self._records.cut(data):
            before, shaking = len(parts), not self.handshaken
            _lib.BIO_write(self._in, piece, len(piece))
            if shaking:
                self._handshake()
            if self.handshaken:
                self._read_into(parts)
            came = parts[before:]
            too_much = self._records.gave(len(piece), ended, len(came), sum(map(len, came)) if came else 0)
            if too_much and self.refused is None:
                self.closed, self.refused = True, Refused(None, too_much)
            if self.closed:
                break
            if shaking and self.handshaken:
                self._records.new_message()
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def new_message(self) -> None:
        """A whole request or answer was made of what came; what the peer may send without data is counted anew."""
        self._records.new_message()

    def _handshake(self) -> None:
        context = self._context
        context.last_refused = context.last_leaf = context.last_peer = None
        result = _lib.SSL_do_handshake(self._ssl)
        self.handshaken = result == 1
        if result != 1:
            self._ended(result)
        if context.last_leaf is not None:
            self._leaf, self._peer = context.last_leaf, context.last_peer

    def _read_into(self, parts: list[bytes]) -> None:
        """The data of each record that has some."""
        buffer, start = self._context.scratch, self._context.start
        while True:
            length = _lib.SSL_read(self._ssl, buffer, RECORD)
            if length <= 0:
                self._ended(length)
                break
            parts.append(_ffi.buffer(buffer, length)[:])
            if not _lib.SSL_pending(self._ssl) and not _lib.BIO_get_mem_data(self._in, start):
                break

    def _ended(self, result: int) -> None:
        """A step of OpenSSL's that did not succeed: it waits for more bytes, or it is over, and the fields say why."""
        reason = _lib.SSL_get_error(self._ssl, result)
        if reason == _WANT_READ:
            return
        self.closed = True
        if reason == _ZERO_RETURN:
            return
        try:
            SSL._raise_current_error()
        except SSL.Error as error:
            verdict = None if self.handshaken else self._context.last_refused  # after it, it is another session's
            self.refused = verdict or _refused(error)

    def outgoing(self) -> bytes:
        """Bytes for the wire; b"" when there are none."""
        buffer = self._context.scratch
        length = _lib.BIO_read(self._out, buffer, _OUT)
        data: bytes = _ffi.buffer(buffer, length)[:] if length > 0 else b""
        while length == _OUT:
            length = _lib.BIO_read(self._out, buffer, _OUT)
            data += _ffi.buffer(buffer, length)[:] if length > 0 else b""
        return data

    def send(self, plaintext: bytes) -> None:
        """Encrypt; take `outgoing` afterwards. Raises ValueError when the session is over."""
        while plaintext:
            written = _lib.SSL_write(self._ssl, plaintext, len(plaintext))
            if written <= 0:
                _lib.ERR_clear_error()
                raise ValueError("nothing can be sent on a session that is over")
            plaintext = plaintext[written:]

    def close(self) -> None:
        """Say goodbye (close_notify); needs no answer."""
        if self.handshaken and self.refused is None and _lib.SSL_shutdown(self._ssl) < 0:
            _lib.ERR_clear_error()

    def peer_certificate_der(self) -> bytes | None:
        """The peer's verified leaf, kept from its verification."""
        return self._leaf

    def peer(self) -> PeerCertificate | None:
        """What the handshake proved about the peer. Raises ValueError for a structure we do not read."""
        if self._peer is None and self._leaf is not None:
            self._peer = read_certificate(self._leaf)
        return self._peer

    def check_name(self, name: str) -> None:
        """The certificate must stand for `name` (RFC 9525: subject alternative names only). Raises DelegatorError
        (UNREACHABLE)."""
        assert self._connection is not None
        if names_in(self._leaf or b"") > NAMES:
            raise DelegatorError(Kind.UNREACHABLE, f"the certificate shown is for more than {NAMES} names")
        verify = (service_identity.pyopenssl.verify_ip_address if _is_address(name)
                  else service_identity.pyopenssl.verify_hostname)
        try:
            verify(self._connection, name)
        except (service_identity.VerificationError, service_identity.CertificateError) as error:
            raise DelegatorError(Kind.UNREACHABLE, f"the certificate shown is not for {name}: {said(error)}") from None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refused_for(refusal: Refusal, detail: str, der: bytes, depth: int = 0) -> Refused:
    """A refusal with the certificate it concerns, however odd that is."""
    return Refused(refusal, detail, *told(der), depth)


_NO_CERTIFICATE = "peer did not return a certificate"


def _refused(error: SSL.Error) -> Refused:
    """An error that no certificate explains: none was sent, the peer refused us, or the protocol was broken."""
    words = openssl_words(error)
    return Refused(Refusal.NO_CERTIFICATE if words == _NO_CERTIFICATE else None, words)
