"""What devices, delegator and delegates say to each other, as values. Element names are wire.messages' affair.

The invariant: a value that exists is valid; what a device says is checked here before anybody acts on it.
Must not live here: what is registered (model.registered), what is claimed (model.claimed).
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from msgspec.structs import force_setattr

from delegator.model.places import HOST_NAME
from delegator.model.secret import Secret
from delegator.model.syntax import (
    CLAIM_ID,
    TRANSACTION_ID,
    check_identifiers,
    must_match,
    normal_hint,
    normal_macs,
)
from delegator.model.word import Word
from pki.said import is_harmful


class Device(msgspec.Struct, frozen=True):
    """What a device says it is. The service tag identifies and never authenticates. Raises ValueError."""

    service_tag: str
    serial_number: str | None = None
    mac_addresses: tuple[str, ...] = ()
    model: str | None = None

    def __post_init__(self) -> None:
        check_identifiers(self.service_tag, self.serial_number, self.model)
        if self.mac_addresses:
            force_setattr(self, "mac_addresses", normal_macs(self.mac_addresses))


class Location(msgspec.Struct, frozen=True):
    """Where a device believes it stands: hints, never proof. Names lose their final dot and keep their case: it is
    how the owner may know them. Raises ValueError."""

    ip_address: str | None = None
    host_name: str | None = None
    domain: str | None = None

    def __post_init__(self) -> None:
        if self.ip_address is not None and (normal := normal_hint(self.ip_address)) is not self.ip_address:
            force_setattr(self, "ip_address", normal)
        for what, name in (("host_name", self.host_name), ("domain", self.domain)):
            if name is not None and HOST_NAME.fullmatch(name) is None:
                force_setattr(self, what, name.removesuffix("."))
                must_match(HOST_NAME, name.removesuffix("."), what.replace("_", " "))


class CredentialRequest(msgspec.Struct, frozen=True):
    """One call of GetProvisioningCredential (block 212). `certificate_request` is PKCS#10 in DER."""

    device: Device
    transaction_id: Secret
    location: Location = Location()
    certificate_request: bytes | None = None

    def __post_init__(self) -> None:
        if TRANSACTION_ID.fullmatch(self.transaction_id.reveal()) is None:
            raise ValueError("transaction id must be 16 to 128 characters of A-Z a-z 0-9 . _ : -")


class Result(Word):
    """How provisioning ended on the device (block 218)."""

    DEPLOYED = "Deployed"
    FAILED = "Failed"


class Confirmation(msgspec.Struct, frozen=True):
    """ConfirmProvisioning. The transaction id proves the device again where its certificate is shared."""

    claim_id: str
    result: Result
    detail: str | None = None
    transaction_id: Secret | None = None

    def __post_init__(self) -> None:
        must_match(CLAIM_ID, self.claim_id, "claim id")


class AddressChange(msgspec.Struct, frozen=True):
    """NotifyAddressChange: a service processor tells its new address."""

    device: Device
    new_address: str
    old_address: str | None = None

    def __post_init__(self) -> None:
        force_setattr(self, "new_address", normal_hint(self.new_address))
        if self.old_address is not None:
            force_setattr(self, "old_address", normal_hint(self.old_address))


class Credential(msgspec.Struct, frozen=True):
    """A user name and a password for one claim; valid until `not_after` (aware UTC) where it says so. This is the one
    rule for both, wherever they come from: a device hands them on to tools that may mean something by a line end, and
    a person who reads them sees what is there. No refusal shows either. Raises ValueError."""

    user_name: str
    password: Secret
    not_after: datetime | None = None

    def __post_init__(self) -> None:
        password = self.password.reveal()
        if not 1 <= len(self.user_name) <= 255 or not 1 <= len(password) <= 1024:
            raise ValueError("a credential needs a user name of 1-255 and a password of 1-1024 characters")
        if is_harmful(self.user_name) or is_harmful(password):
            raise ValueError("a user name and a password hold no control characters: no line end, and no mark that "
                             "nobody sees")


class DelegateAddress(msgspec.Struct, frozen=True):
    """Where the device goes next, and the PEM certificates it shall trust there."""

    url: str
    trust_anchor: str


class Answer(msgspec.Struct, frozen=True):
    """The whole answer to a CredentialRequest (block 216)."""

    credential: Credential
    claim_id: str
    delegate: DelegateAddress | None = None
    handshake_certificate: str | None = None
    alternate_delegators: tuple[str, ...] = ()


class DelegateRequest(msgspec.Struct, frozen=True):
    """RequestCredential: the indication that a device asked (claim 12). The claim id is the idempotency key;
    `peer_address` is where the device called from, for callbacks that are not a SOAP message."""

    claim_id: str
    device: Device
    location: Location = Location()
    peer_address: str = ""

    def __post_init__(self) -> None:
        must_match(CLAIM_ID, self.claim_id, "claim id")


class Deployment(msgspec.Struct, frozen=True):
    """NotifyDeployed: the delegate learns how provisioning ended."""

    claim_id: str
    result: Result
    detail: str | None = None
