"""TLS without a socket: pyOpenSSL over memory BIOs. Bytes in, bytes out, and why a peer was refused.

A context is built once from files already read and never changed: a reload builds a new one. A session is one
end of one connection. Verification happens inside `receive`, on the caller's thread, so the verdict of the
session being fed can stand in one slot of its context.
The invariants: no resumption (a resumed session skips expiry and revocation); after a refusal `outgoing` still
holds the right alert; a refusal names the certificate it concerns.
Must not live here: sockets, deadlines, trust decisions (pki.trust).
"""

from __future__ import annotations

import ipaddress
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import service_identity
import service_identity.pyopenssl
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL, crypto

from delegator.errors import DelegatorError, Kind
from delegator.model import PeerCertificate
from delegator.wire.certificate import read_certificate, serial_of
from pki.ledger import serial_text
from pki.trust import Refusal, TrustStore, refusal_of

RECORD = 16 * 1024
"""Plaintext in one TLS record at most (RFC 8446 section 5.1)."""
CHAIN_DEPTH = 4
_CIPHERS_12 = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""TLS 1.2 keeps forward secrecy and AEAD only (RFC 9325 section 4.2)."""
_OPTIONS = SSL.OP_NO_TICKET | SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE
_ffi, _lib = Binding.ffi, Binding.lib
_ERROR_OF = {Refusal.REVOKED: 23, Refusal.CRL_STALE: 1}
"""X509_V_ERR_CERT_REVOKED becomes alert certificate_revoked; a stale list is our fault, X509_V_ERR_UNSPECIFIED
becomes internal_error, where "expired" would send the device's owner looking in the wrong place."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a handshake failed. `subject` and `serial` name the refused certificate where there was one."""

    refusal: Refusal | None
    detail: str
    subject: str = ""
    serial: str = ""
    depth: int = 0

    def __str__(self) -> str:
        whom = f": certificate {self.subject} serial {self.serial} depth {self.depth}" if self.serial else ""
        return f"{self.refusal.value if self.refusal else 'connection failed'} ({self.detail}){whom}"


class TlsContext:
    """Certificate, key and trust for many sessions. Make it with `server_context` or `client_context`."""

    def __init__(self, method: int, trust: TrustStore, now: Callable[[], datetime], mode: int) -> None:
        self.trust = trust
        self.last_refused: Refused | None = None
        self.last_leaf: bytes | None = None
        self._now = now
        self.ssl = SSL.Context(method)
        self.ssl.set_min_proto_version(SSL.TLS1_2_VERSION)
        self.ssl.set_options(_OPTIONS)
        self.ssl.set_cipher_list(_CIPHERS_12)
        self.ssl.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        self.ssl.set_verify_depth(CHAIN_DEPTH)
        store = self.ssl.get_cert_store()
        assert store is not None
        for anchor in trust.anchors:
            store.add_cert(crypto.X509.from_cryptography(anchor))
        self._callback = _ffi.callback("int (*)(int, X509_STORE_CTX *)", self._judge)
        _lib.SSL_CTX_set_verify(self.ssl._context, mode, self._callback)

    def _judge(self, ok: int, store_context: Any) -> int:
        """OpenSSL's verdict on one certificate of a chain. pyOpenSSL's own hook cannot set the error that becomes
        the alert when a verified leaf is revoked, hence this one; 0 refuses."""
        depth = _lib.X509_STORE_CTX_get_error_depth(store_context)
        if ok and depth:
            return 1
        raw = _lib.X509_STORE_CTX_get_current_cert(store_context)
        _lib.X509_up_ref(raw)
        certificate = crypto.X509._from_raw_x509_ptr(raw)
        if ok:
            leaf = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
            refusal = self.trust.refuse(serial_of(leaf), self._now())
            if refusal is None:
                self.last_leaf = leaf
                return 1
            _lib.X509_STORE_CTX_set_error(store_context, _ERROR_OF[refusal])
            detail = refusal.value
        else:
            code = _lib.X509_STORE_CTX_get_error(store_context)
            refusal = refusal_of(code)
            detail = _ffi.string(_lib.X509_verify_cert_error_string(code)).decode()
        self.last_refused = Refused(refusal, detail, _subject(certificate),
                                    serial_text(certificate.get_serial_number()), depth)
        return 0


def _subject(certificate: crypto.X509) -> str:
    """RFC 4514 text; what cannot be shown plainly is escaped, so that a hostile name cannot forge a log line."""
    text = certificate.to_cryptography().subject.rfc4514_string()
    return ascii(text)[1:-1][:200]


def server_context(chain_file: Path, key_file: Path, trust: TrustStore, now: Callable[[], datetime], *,
                   require_certificate: bool = True) -> TlsContext:
    """A context that presents a certificate and asks every peer for one. The chain file holds the issuer too: else
    OpenSSL rebuilds the chain at each handshake (13 % more CPU, measured). Raises DelegatorError (CONFIGURATION)."""
    mode = SSL.VERIFY_PEER | (SSL.VERIFY_FAIL_IF_NO_PEER_CERT if require_certificate else 0)
    context = TlsContext(SSL.TLS_SERVER_METHOD, trust, now, mode)
    _present(context, chain_file, key_file)
    for anchor in trust.anchors:
        context.ssl.add_client_ca(anchor)
    return context


def client_context(chain_file: Path | None, key_file: Path | None, trust: TrustStore,
                   now: Callable[[], datetime]) -> TlsContext:
    """A context that trusts exactly `trust` and presents a certificate if it has one."""
    context = TlsContext(SSL.TLS_CLIENT_METHOD, trust, now, SSL.VERIFY_PEER)
    if chain_file is not None and key_file is not None:
        _present(context, chain_file, key_file)
    return context


def _present(context: TlsContext, chain_file: Path, key_file: Path) -> None:
    for path in (chain_file, key_file):
        if not path.is_file():
            raise DelegatorError(Kind.CONFIGURATION, f"{path}: no such file", hint="mint one with: make pki")
    if stat.S_IMODE(key_file.stat().st_mode) & 0o077:
        raise DelegatorError(Kind.CONFIGURATION, f"{key_file} can be read by others", hint=f"chmod 600 {key_file}")
    try:
        context.ssl.use_certificate_chain_file(str(chain_file))
        context.ssl.use_privatekey_file(str(key_file))
        context.ssl.check_privatekey()
    except SSL.Error as error:
        raise DelegatorError(Kind.CONFIGURATION, f"{chain_file} and {key_file}: {_said(error)}") from None


class Session:
    """One end of one TLS connection. Feed it with `receive`, take `outgoing` to the wire after every call."""

    __slots__ = ("_connection", "_context", "_leaf", "closed", "handshaken", "refused")

    def __init__(self, context: TlsContext, server_name: str | None = None) -> None:
        """`server_name` makes it the client's end; who was reached is checked by `check_name`."""
        self._context = context
        self._connection = SSL.Connection(context.ssl, None)
        self._leaf: bytes | None = None
        self.handshaken = False
        self.closed = False
        self.refused: Refused | None = None
        if server_name is None:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
            if not _is_address(server_name):
                self._connection.set_tlsext_host_name(server_name.encode())

    def start(self) -> None:
        """The client's first words."""
        self._advance(self._connection.do_handshake)

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the wire; the plaintext they held. Afterwards look at `handshaken`, `refused`, `closed`."""
        if data:
            self._connection.bio_write(data)
        if not self.handshaken:
            self._context.last_refused = self._context.last_leaf = None
            self.handshaken = self._advance(self._connection.do_handshake)
            self._leaf = self._context.last_leaf or self._leaf
            if not self.handshaken:
                return b""
        return self._plaintext()

    def _plaintext(self) -> bytes:
        parts: list[bytes] = []
        take = self._take
        while self._advance(take, parts):
            pass
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _take(self, parts: list[bytes]) -> None:
        parts.append(self._connection.recv(RECORD))

    def _advance(self, step: Callable[..., object], *arguments: object) -> bool:
        """One step of OpenSSL's; False when it waits for more bytes, or when it is over (then the fields say why)."""
        try:
            step(*arguments)
        except SSL.WantReadError:
            return False
        except SSL.ZeroReturnError:
            self.closed = True
            return False
        except SSL.Error as error:
            self.closed = True
            self.refused = self._context.last_refused or _refused(error)
            return False
        return True

    def outgoing(self) -> bytes:
        """Bytes for the wire; b"" when there are none."""
        parts = []
        try:
            while True:
                parts.append(self._connection.bio_read(2 * RECORD))
                if len(parts[-1]) < 2 * RECORD:
                    break
        except SSL.WantReadError:
            pass
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def send(self, plaintext: bytes) -> None:
        """Encrypt; take `outgoing` afterwards."""
        self._connection.sendall(plaintext)

    def close(self) -> None:
        """Say goodbye (close_notify); needs no answer."""
        if self.handshaken and self.refused is None:
            self._advance(self._connection.shutdown)

    def peer_certificate_der(self) -> bytes | None:
        """The peer's verified leaf, kept from its verification."""
        return self._leaf

    def peer(self) -> PeerCertificate | None:
        """What the handshake proved about the peer. Raises ValueError for a structure we do not read."""
        der = self.peer_certificate_der()
        return None if der is None else read_certificate(der)

    def check_name(self, name: str) -> None:
        """The certificate must stand for `name` (RFC 9525: subject alternative names only). Raises DelegatorError
        (UNREACHABLE)."""
        verify = (service_identity.pyopenssl.verify_ip_address if _is_address(name)
                  else service_identity.pyopenssl.verify_hostname)
        try:
            verify(self._connection, name)
        except (service_identity.VerificationError, service_identity.CertificateError) as error:
            raise DelegatorError(Kind.UNREACHABLE, f"the certificate shown is not for {name}: {error}") from None

    @property
    def version(self) -> str:
        return self._connection.get_protocol_version_name()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _said(error: SSL.Error) -> str:
    """OpenSSL's last word on an error."""
    stack = error.args[0] if error.args else ()
    if isinstance(stack, (list, tuple)) and stack:
        return str(stack[-1][-1])
    return str(error.args[-1] if error.args else error)


_NO_CERTIFICATE = "peer did not return a certificate"


def _refused(error: SSL.Error) -> Refused:
    """An error that no certificate explains: none was sent, the peer refused us, or the protocol was broken."""
    said = _said(error)
    return Refused(Refusal.NO_CERTIFICATE if said == _NO_CERTIFICATE else None, said)
