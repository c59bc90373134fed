"""Trust: the two TLS contexts of a device, the lower bound of time, and what a TLS error means.

The invariant: chain and name are always checked, against one given anchor and never against the system's;
there is no switch for it. Must not live here: connections (exchange).
"""

from __future__ import annotations

import re
import socket
import ssl
import time

from delegator.device import built, reasons
from delegator.device.certificate import facts
from delegator.device.contents import contents
from delegator.device.reasons import Failure, Reason, own_error, system_words

_NO_CHECK_TIME = 0x200000
"""X509_V_FLAG_NO_CHECK_TIME of OpenSSL 1.1.0 and later, and of LibreSSL; the ssl module passes it on unnamed."""
_PARTIAL_CHAIN = 0x80000
"""X509_V_FLAG_PARTIAL_CHAIN, named in the ssl module only since Python 3.10."""
_NOT_YET_VALID = 9
_NAME_MISMATCHES = (62, 64)
"""X509_V_ERR_CERT_NOT_YET_VALID, X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH."""

_ABOUT_THE_CLIENT = frozenset({
    "bad_certificate", "no_certificate", "unsupported_certificate", "certificate_revoked", "certificate_expired",
    "certificate_unknown", "unknown_ca", "access_denied", "certificate_required", "decrypt_error"})
"""Alerts (RFC 8446 section 6.2) with which a server says that it is the device's certificate that it dislikes."""


Context = ssl.SSLContext
_TIMEOUTS = (TimeoutError, socket.timeout)  # one class only since Python 3.10


def clock_is_set(now: float | None = None) -> bool:
    """False where the clock shows a time before this client existed: then the clock is wrong for certain."""
    return (time.time() if now is None else now) >= built.BUILD_TIME


def delegator_context(certificate: str, key: str, ca: str) -> ssl.SSLContext:
    """Mutual TLS with the delegator: the factory CA alone is believed (207), the device's certificate shown (208)."""
    context = _context()
    try:
        _believe_authorities(context, contents(ca).decode("utf-8", "replace"), ca)
    except (OSError, ValueError) as error:
        raise own_error(f"the factory CA {ca} cannot be used", error) from None
    try:
        # The library would not say which of the two it cannot read, nor what it is, and wait for who writes a pipe.
        _require_pem(certificate, _BEGIN, "certificate")
        _require_pem(key, _KEY, "private key")
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise own_error(f"the device's certificate {certificate} with the key {key} cannot be used", error,
                        _pair_words(error)) from None
    return context


_OTHERS = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
"""What OpenSSL says of a key that is another's: the last where it is of another type."""


def _pair_words(error: Exception) -> str:
    if getattr(error, "reason", None) in _OTHERS:
        return "the key is not that of the certificate, the first one in its file"
    return "one of them is damaged" if "PEM lib" in str(error) else system_words(error)


def _require_pem(path: str, begin: re.Pattern[str], what: str) -> None:
    text = contents(path).decode("utf-8", "replace")
    if not begin.search(text):
        binary = " but binary, as DER and PKCS#12 are" if "\ufffd" in text or "\0" in text else ""
        raise ValueError(f"{path} holds no {what} in PEM{binary}")
    if begin is _BEGIN and len(_BEGIN.findall(text)) != len(_WHOLE.findall(text)):
        raise ValueError(f"a certificate in {path} is cut off")


def delegate_context(trust_anchor: str) -> ssl.SSLContext:
    """TLS with the owner's server: the handed-over anchor alone, and no certificate of the device is shown.

    The anchor may be an intermediate or the server's own certificate: what was handed over is what is trusted.
    Words around a certificate may be in any language; the ssl module takes none but ASCII.
    """
    context = _context()
    context.verify_flags |= _PARTIAL_CHAIN
    try:
        _believe(context, trust_anchor, cadata=trust_anchor.encode("ascii", "replace").decode())
    except (OSError, ValueError, TypeError) as error:
        raise Failure(reasons.DELEGATE_NOT_TRUSTED, f"the trust anchor is not a certificate: {error}") from None
    return context


def _believe_authorities(context: ssl.SSLContext, pem: str, path: str) -> None:
    """The factory CA. The server's own certificate in its place would serve until that is renewed, and then no device
    in the field could be reached any more; and a CA's key in a device signs whatever whoever opens it likes."""
    if _KEY.search(pem):
        raise ValueError("there is a private key in it, which no device may have: give it the certificate alone")
    _believe(context, pem, cafile=path)
    stats = context.cert_store_stats()
    if stats["x509_ca"] != stats["x509"]:
        raise ValueError("a certificate in it is not an authority's: name the one that signed the delegator's")


def _believe(context: ssl.SSLContext, pem: str, **source: str) -> None:
    """Load every certificate that stands in a text, or raise ValueError or OSError: of some files that are cut off
    OpenSSL takes what is left, without a word. One that stands there twice is taken once."""
    begun, found = len(_BEGIN.findall(pem)), _WHOLE.findall(pem)
    if not begun:
        raise ValueError("it holds no certificate in PEM")
    if len(found) != begun or _PIECE.search(_WHOLE.sub("", pem)):
        raise ValueError(f"a certificate in it is cut off: {begun} begin there, {len(found)} are whole")
    context.load_verify_locations(**source)
    if context.cert_store_stats()["x509"] != len({"".join(one.split()) for one in found}):
        raise ValueError(f"a certificate in it is damaged: of {begun} not all could be read")


_BEGIN = re.compile("-----BEGIN [A-Z0-9 ]*CERTIFICATE")
_KEY = re.compile("-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")
_PIECE = re.compile(r"-----[BE]|(?m:^-{1,5}\s*$)")
"""What is left of the line that begins or ends a block, once whole ones are taken away."""
_WHOLE = re.compile("-----BEGIN [A-Z0-9 ]*CERTIFICATE-----[^-]+-----END [A-Z0-9 ]*CERTIFICATE-----")


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks chain and name from the start
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False
    context.options |= ssl.OP_NO_RENEGOTIATION  # who has proven itself does not become another (TLS 1.2)
    if not clock_is_set():
        context.verify_flags |= _NO_CHECK_TIME
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted, and nobody is there to type a password")


def check_server(certificate: bytes, made_for_servers: bool) -> None:
    """What OpenSSL does not ask of a certificate (DER) that it believes. Raises Failure, ValueError.

    It must be made for servers: one that does not say what it is for would be taken for a server's, also a device's.
    And on a device whose clock is not set, one that ended before the build has ended for certain; the other dates
    cannot be judged without a clock. This is max(build time, clock) as the lower bound of time.
    """
    said = facts(certificate)
    if made_for_servers and not said.for_servers:
        raise Failure(reasons.SERVER_NOT_TRUSTED, "the certificate is not one for servers (extended key usage)")
    if not clock_is_set() and said.ends < built.BUILD_TIME:
        ended = time.strftime("%Y-%m-%d %H:%M", time.gmtime(said.ends))
        raise Failure(reasons.SERVER_NOT_TRUSTED, f"the certificate ended on {ended}Z")


def alert_in(error: BaseException) -> str | None:
    """The alert's name as RFC 8446 spells it: OpenSSL says `SSLV3_ALERT_CERTIFICATE_EXPIRED`."""
    reason = getattr(error, "reason", None) or ""
    _, found, name = reason.partition("ALERT_")
    return name.lower() if found else None


def handshake_failure(error: OSError | ValueError) -> Failure:
    """What an error during the handshake means (blocks 203-211)."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return Failure(_distrust(error.verify_code), error.verify_message)
    alert = alert_in(error)
    if alert is not None:
        return Failure(_by_alert(alert), f"TLS alert {alert}")
    if isinstance(error, _TIMEOUTS):
        return Failure(reasons.NO_ROUTE, "no answer during the TLS handshake")
    return Failure(reasons.TLS_REFUSED if _hung_up(error) else reasons.TLS_FAILED, _words(error))


def answer_failure(error: Exception, version: str | None, nothing_came: bool) -> Failure:
    """What an error while reading the answer means.

    In TLS 1.3 the handshake ends for the device before the server has judged its certificate, so a refusal,
    also one without an alert, shows only here (RFC 8446 section 4.4.2.4).
    """
    alert = alert_in(error)
    if alert is not None and (nothing_came or alert in _ABOUT_THE_CLIENT):
        failure = Failure(reasons.CLIENT_REFUSED, f"TLS alert {alert}")
        failure.proven = True
        return failure
    if nothing_came and version == "TLSv1.3" and _hung_up(error):
        return Failure(reasons.CLIENT_REFUSED, "closed right after the handshake, without an alert")
    return Failure(reasons.NO_ANSWER, _words(error))


def withdrawn(failure: Failure) -> bool:
    """Whether the delegator said of the certificate itself that it counts no more. That it hung up says nothing."""
    return failure.reason is reasons.CLIENT_REFUSED and failure.detail in _WITHDRAWN


_WITHDRAWN = ("TLS alert certificate_revoked", "TLS alert certificate_expired", "TLS alert unknown_ca")


def _hung_up(error: Exception) -> bool:
    if isinstance(error, (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return True
    return getattr(error, "reason", None) == "UNEXPECTED_EOF_WHILE_READING"  # OpenSSL 3 under an older ssl module


def _distrust(verify_code: int) -> Reason:
    if verify_code == _NOT_YET_VALID:
        return reasons.CLOCK_NOT_SET
    return reasons.SERVER_NAME_MISMATCH if verify_code in _NAME_MISMATCHES else reasons.SERVER_NOT_TRUSTED


def _by_alert(alert: str) -> Reason:
    return reasons.CLIENT_REFUSED if alert in _ABOUT_THE_CLIENT else reasons.TLS_FAILED


def _words(error: Exception) -> str:
    return getattr(error, "reason", None) or system_words(error) or "the connection broke"
