"""A signed mail as bytes: S/MIME multipart/signed (RFC 8551) around plain text. No socket, no clock.

The signature is detached, so that every mail reader shows the text, and `openssl cms -verify` accepts the whole.
The invariants: no value can add a header or a line to one (addresses have one plain form, everything else passes
the standard library's SMTP policy, which refuses line breaks); the text that is signed is 7-bit with CRLF, so that
no relay has a reason to change it on its way (RFC 8551 sections 3.1.1 to 3.1.3).
Must not live here: what a mail says (notify), sending (net.mail).
"""

from __future__ import annotations

import base64
import re
from datetime import datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7

from delegator.model import HOST_NAME, MAIL_ADDRESS
from delegator.model.places import normal_name
from pki.pair import Pair, time_fault

_DETACHED = (pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary)
"""Binary: the bytes are in canonical form already, and are signed as they are sent."""
_PLAIN = re.compile("[0-9a-z]+([.][0-9a-z]+)*")
_BOUNDARY = b"=_signed_"
"""`=_` stands in neither quoted-printable nor base64 (RFC 2045 section 6.7), so in no part of ours."""


class Letter(msgspec.Struct, frozen=True):
    """One mail to one address. `message_id` is the part before the @ of its Message-ID; a retry has the same."""

    sender: str
    recipient: str
    subject: str
    text: str
    date: datetime
    message_id: str
    delegator: str


class Signer(msgspec.Struct, frozen=True):
    """The mail signer's key, its certificate and the chain behind that."""

    key: EllipticCurvePrivateKey | RSAPrivateKey
    certificate: x509.Certificate
    chain: tuple[x509.Certificate, ...]


def address(text: str) -> Address:
    """A mailbox of the plain form. Raises ValueError."""
    if MAIL_ADDRESS.fullmatch(text) is None:
        raise ValueError(f"{text[:80]!a} is not a plain mail address")
    return Address(addr_spec=text)


def signer_of(pair: Pair, sender: str, now: datetime) -> Signer:
    """The signer, if it stands for the sender: a reader warns of a signature that is somebody else's (RFC 8551
    section 3). Raises ValueError."""
    certificate, key = pair.leaf, pair.key
    if not isinstance(key, EllipticCurvePrivateKey | RSAPrivateKey):
        raise ValueError("the key is neither ECDSA nor RSA")
    if _normal_mailbox(sender) not in map(_normal_mailbox, mailboxes(certificate)):
        raise ValueError(f"the certificate is not for {sender} but for {', '.join(mailboxes(certificate)) or 'nobody'}")
    fault = time_fault(certificate, now)
    if fault is not None:
        raise ValueError(f"the certificate {fault}")
    return Signer(key, certificate, pair.chain[1:])


def _normal_mailbox(text: str) -> str:
    """As it is compared: the part before the @ is its owner's, the domain is like any other (RFC 5280 section 7.5)."""
    local, _, domain = text.rpartition("@")
    return f"{local}@{normal_name(domain)}"


def mailboxes(certificate: x509.Certificate) -> list[str]:
    """The addresses a certificate is for."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.RFC822Name)


def signed(letter: Letter, signer: Signer) -> bytes:
    """The whole mail, ready for the wire. Raises ValueError for what does not fit into a header."""
    content = _content(letter.text)
    boundary = _BOUNDARY + letter.message_id.encode("ascii")
    marked = b"\r\n--" + boundary
    kind = (b'Content-Type: multipart/signed; protocol="application/pkcs7-signature";\r\n'
            b' micalg=sha-256; boundary="' + boundary + b'"\r\n')
    return b"".join([_headers(letter), kind, b"\r\nThis mail is signed (S/MIME).\r\n", marked, b"\r\n", content, marked,
                     b"\r\n", _signature(content, signer), marked, b"--\r\n"])


def _headers(letter: Letter) -> bytes:
    """The standard library refuses every line break in a value. Auto-Submitted keeps answering machines silent
    (RFC 3834 section 5)."""
    if HOST_NAME.fullmatch(letter.delegator) is None or _PLAIN.fullmatch(letter.message_id) is None:
        raise ValueError("a Message-ID is of letters, digits and dots, at a host name")
    if len(f"{letter.subject}.".splitlines()) > 1 or "=?" in letter.subject:
        # The standard library lets a line break at the end pass, and decodes one from an encoded word (RFC 2047).
        raise ValueError("a subject is one line of plain words")
    message = EmailMessage(policy=SMTP)
    message["From"] = address(letter.sender)
    message["To"] = address(letter.recipient)
    message["Subject"] = letter.subject
    message["Date"] = letter.date
    message["Auto-Submitted"] = "auto-generated"
    message["MIME-Version"] = "1.0"
    identity = f"Message-ID: <{letter.message_id}@{letter.delegator}>\r\n"  # long ones would be folded within
    return message.as_bytes().removesuffix(b"\r\n") + identity.encode("ascii")


def _content(text: str) -> bytes:
    part = EmailMessage(policy=SMTP)
    part.set_content(text, cte="quoted-printable")
    del part["MIME-Version"]
    return part.as_bytes()


def _signature(content: bytes, signer: Signer) -> bytes:
    builder = pkcs7.PKCS7SignatureBuilder().set_data(content).add_signer(signer.certificate, signer.key,
                                                                         hashes.SHA256())
    for certificate in signer.chain:
        builder = builder.add_certificate(certificate)
    der = base64.encodebytes(builder.sign(Encoding.DER, _DETACHED)).replace(b"\n", b"\r\n")
    return (b'Content-Type: application/pkcs7-signature; name="smime.p7s"\r\nContent-Transfer-Encoding: base64\r\n'
            b'Content-Disposition: attachment; filename="smime.p7s"\r\n\r\n' + der)
