"""What people hand over in files, or paste: certificates, keys, secrets, signatures. Of each nothing but that is kept.

`what` names the thing in the sentence that refuses it: a command says which file, a page which input.
The invariants: no refusal shows what was handed over; no private key gets into what goes out to devices.
Must not live here: reading files and whose they may be (cli.files), what keys are for (callbacks, signing).
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from delegator.desk.refusals import Unfit
from delegator.model import Secret
from pki.text import MARK, NotText, decoded

if TYPE_CHECKING:
    from delegator.signing import Sign

SHORTEST_SECRET = 16
"""Characters of a webhook's secret, so that nobody guesses it: RFC 2104 section 3 asks for as many bits as the hash
has, and 16 random characters are what people copy."""


def anchors(content: bytes, what: str = "it") -> str:
    """The certificates in PEM that others are verified by, and nothing else of it. Where a private key stands beside
    them it is refused: what is kept here goes out to devices. So is a certificate that vouches for nobody, such as a
    server's own. Raises Unfit."""
    if b"PRIVATE KEY-----" in content:
        raise Unfit(f"{what} holds a private key", "give a file with certificates only; devices are sent what is in it")
    from cryptography.hazmat.primitives.serialization import Encoding

    from pki import pem
    from pki.trust import anchors_fault

    try:
        found = pem.read(content, pem.CERTIFICATE)
    except pem.PemFault as error:
        raise Unfit(f"{what}: {error}", "look at it with: openssl storeutl -noout -text -certs {path}") from None
    fault = anchors_fault(found)
    if fault:
        raise Unfit(f"{what}: {fault}", "ask for the certificate of the authority, often called ca.crt or root.pem")
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in found)


def webhook_secret(secret: Secret, what: str = "it") -> Secret:
    """Raises Unfit for one that is too short."""
    if len(secret.reveal()) < SHORTEST_SECRET:
        raise Unfit(f"the secret in {what} is shorter than {SHORTEST_SECRET} characters",
                    "make one with: openssl rand -hex 32 > {path}")
    return secret


def private_key(content: bytes, what: str = "it") -> Secret:
    """The key that lets us in by SSH. Raises Unfit."""
    from delegator.callbacks.ssh_keys import private_key_in

    try:
        return private_key_in(content)
    except ValueError as error:
        raise Unfit(f"{what}: {error}", "make one for this delegate: ssh-keygen -t ed25519 -N '' -f FILE") from None


def host_key(content: bytes, what: str = "it") -> str:
    """The host key of the customer's machine. Raises Unfit."""
    from delegator.callbacks.ssh_keys import host_key_in

    try:
        return str(host_key_in(decoded(content)))
    except NotText as error:
        raise Unfit(error.of(what), error.hint) from None
    except ValueError as error:
        raise Unfit(f"{what}: {error}", "delegator delegates scan-host-key HOST --output FILE") from None


def public_key(content: bytes, what: str = "it") -> str:
    """A customer's public key, by itself or in a certificate. Raises Unfit."""
    from delegator.signing import public_key_in

    try:
        return public_key_in(content)
    except ValueError as error:
        raise Unfit(f"{what}: {error}", "openssl pkey -in PRIVATE-KEY-FILE -pubout") from None


def signer(content: bytes, what: str = "it") -> Sign:
    """What signs with a customer's private key. Raises Unfit."""
    from delegator.signing import signer as made

    try:
        return made(content)
    except ValueError as error:
        raise Unfit(f"{what}: {error}", "make one: openssl genpkey -algorithm ed25519 -out FILE") from None


def signature(content: bytes) -> bytes:
    """As programs write it: the bytes themselves, or base64."""
    try:
        return base64.b64decode(b"".join(content.removeprefix(MARK).split()), validate=True)
    except binascii.Error:
        return content


def device_key(content: bytes, tag: str, what: str = "it") -> str:
    """The fingerprint of the key in a certificate of the device `tag`. Raises Unfit, also for another's."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from delegator.wire.certificate import read_certificate
    from pki import pem

    try:
        found = pem.read(content, pem.CERTIFICATE)[0]
        shown = read_certificate(found.public_bytes(Encoding.DER))
    except ValueError as error:
        raise Unfit(f"{what}: {error}", "look at it with: openssl x509 -in {path} -noout -text") from None
    if shown.common_names != (tag,):
        raise Unfit(f"{what} is of {', '.join(shown.common_names) or 'nobody'}, not of {tag}",
                    f"make one: python -m pki device {tag}")
    return shown.key_fingerprint
