"""The values the delegator speaks in: who asks, what is registered, what is claimed, what is answered.

Everything here is frozen and knows neither bytes nor sockets nor SQL; a value that exists is valid.
Must not live here: decisions (routing, policy), element names (wire.messages), columns (store).
"""

from __future__ import annotations

import enum
import ipaddress
import re
from dataclasses import dataclass, field
from datetime import datetime, timedelta

SERVICE_TAG = re.compile(r"[A-Z0-9]{5,20}")
"""A service tag, byte for byte. Checked before any look-up, so that look-alikes never reach the store."""
SERIAL_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,63}")
MODEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/+()-]{0,63}")
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
"""The name of a customer, delegate, rule or policy: what one can type in a shell without quoting."""
HOST_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
                       r"(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*")
TRANSACTION_ID = re.compile(r"[A-Za-z0-9._:-]{16,128}")
"""At least 16 characters: with a shared certificate this secret alone says which device a claim belongs to."""
CLAIM_ID = re.compile(r"[0-9a-f]{32}")
_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-]?)(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}")


class Secret:
    """A text that must not be shown: its repr and str are blank, only `reveal` gives it out."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


def _must_match(pattern: re.Pattern[str], text: str, what: str) -> None:
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{what} {text[:64]!a} is not of the form {pattern.pattern}")


def normal_mac(text: str) -> str:
    """A MAC address as `AA:BB:CC:DD:EE:FF`, from colons, dashes or none. Raises ValueError."""
    if _MAC.fullmatch(text) is None:
        raise ValueError(f"MAC address {text[:64]!a} is not six pairs of hexadecimal digits")
    digits = re.sub("[^0-9A-Fa-f]", "", text).upper()
    return ":".join(digits[i:i + 2] for i in range(0, 12, 2))


def _may_be_address(text: str | None) -> None:
    """Without a scope (`%eth0`): it means nothing on another host, and could hold any characters."""
    if text is not None and getattr(ipaddress.ip_address(text), "scope_id", None) is not None:
        raise ValueError(f"IP address {text[:64]!a} has a scope")


def _check_identifiers(one: Device | Registration) -> None:
    if one.service_tag is not None or isinstance(one, Device):
        _must_match(SERVICE_TAG, one.service_tag, "service tag")
    for pattern, text, what in ((SERIAL_NUMBER, one.serial_number, "serial number"), (MODEL, one.model, "model")):
        if text is not None:
            _must_match(pattern, text, what)
    if one.mac_addresses:
        object.__setattr__(one, "mac_addresses", tuple(dict.fromkeys(normal_mac(mac) for mac in one.mac_addresses)))


# --- what a device says -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Device:
    """What a device says it is. The service tag identifies and never authenticates. Raises ValueError."""

    service_tag: str
    serial_number: str | None = None
    mac_addresses: tuple[str, ...] = ()
    model: str | None = None

    def __post_init__(self) -> None:
        _check_identifiers(self)


@dataclass(frozen=True, slots=True)
class Location:
    """Where a device believes it stands: hints, never proof. Raises ValueError."""

    ip_address: str | None = None
    host_name: str | None = None
    domain: str | None = None

    def __post_init__(self) -> None:
        _may_be_address(self.ip_address)
        for what, name in (("host name", self.host_name), ("domain", self.domain)):
            if name is not None:
                _must_match(HOST_NAME, name, what)


@dataclass(frozen=True, slots=True)
class CredentialRequest:
    """One call of GetProvisioningCredential (block 212). `certificate_request` is PKCS#10 in DER."""

    device: Device
    transaction_id: Secret
    location: Location = Location()
    certificate_request: bytes | None = None

    def __post_init__(self) -> None:
        if TRANSACTION_ID.fullmatch(self.transaction_id.reveal()) is None:
            raise ValueError("transaction id must be 16 to 128 characters of A-Z a-z 0-9 . _ : -")


class Result(enum.Enum):
    """How provisioning ended on the device (block 218)."""

    DEPLOYED = "Deployed"
    FAILED = "Failed"


@dataclass(frozen=True, slots=True)
class Confirmation:
    """ConfirmProvisioning. The transaction id proves the device again where its certificate is shared."""

    claim_id: str
    result: Result
    detail: str | None = None
    transaction_id: Secret | None = None

    def __post_init__(self) -> None:
        _must_match(CLAIM_ID, self.claim_id, "claim id")


@dataclass(frozen=True, slots=True)
class AddressChange:
    """NotifyAddressChange: a service processor tells its new address."""

    device: Device
    new_address: str
    old_address: str | None = None

    def __post_init__(self) -> None:
        _may_be_address(self.new_address)
        _may_be_address(self.old_address)


# --- what it is answered ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Credential:
    """A user name and a password for one claim; valid until `not_after` (aware UTC) where it says so."""

    user_name: str
    password: Secret
    not_after: datetime | None = None

    def __post_init__(self) -> None:
        if not 1 <= len(self.user_name) <= 255 or not 1 <= len(self.password.reveal()) <= 1024:
            raise ValueError("a credential needs a user name of 1-255 and a password of 1-1024 characters")


@dataclass(frozen=True, slots=True)
class DelegateAddress:
    """Where the device goes next, and the PEM certificates it shall trust there."""

    url: str
    trust_anchor: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The whole answer to a CredentialRequest (block 216)."""

    credential: Credential
    claim_id: str
    delegate: DelegateAddress | None = None
    handshake_certificate: str | None = None
    alternate_delegators: tuple[str, ...] = ()


# --- between delegator and delegate -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DelegateRequest:
    """RequestCredential: the indication that a device asked (claim 12). The claim id is the idempotency key."""

    claim_id: str
    device: Device
    location: Location = Location()

    def __post_init__(self) -> None:
        _must_match(CLAIM_ID, self.claim_id, "claim id")


@dataclass(frozen=True, slots=True)
class Deployment:
    """NotifyDeployed: the delegate learns how provisioning ended."""

    claim_id: str
    result: Result
    detail: str | None = None


# --- who the peer is ----------------------------------------------------------------------------------------------


class IdentityKind(enum.Enum):
    """Own: a handshake certificate whose common name is the tag. Shared: "one of ours", never which one."""

    OWN = "own"
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class PeerCertificate:
    """What the handshake proved: every common name in the subject, and SHA-256 (hex) of the public key."""

    common_names: tuple[str, ...]
    serial: int
    key_fingerprint: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks, as far as it is proven. `binding` is what the claim is tied to: the device's key or its secret."""

    kind: IdentityKind
    service_tag: str
    binding: str


# --- what is registered -------------------------------------------------------------------------------------------


class CallbackKind(enum.Enum):
    """How the delegator reaches a delegate."""

    SOAP = "soap"
    SSH = "ssh"
    HOSTED = "hosted"
    LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Customer:
    name: str
    title: str
    enabled: bool = True
    policy: str | None = None


@dataclass(frozen=True, slots=True)
class SoapCallback:
    """The customer's own server. `host` must stand in its certificate; `address` overrides where to connect."""

    host: str
    port: int = 443
    path: str = "/"
    trust_anchor: str | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class HostedCallback:
    """Settings kept here: a fixed password or a pattern, in which `{tag}` and `{random}` are filled per device."""

    user_name: str
    password: Secret


Callback = SoapCallback | HostedCallback
CALLBACK_KINDS: dict[type[SoapCallback] | type[HostedCallback], CallbackKind] = {
    SoapCallback: CallbackKind.SOAP, HostedCallback: CallbackKind.HOSTED}


@dataclass(frozen=True, slots=True)
class Delegate:
    """The customer's provisioning server, or what stands for it. `url` and `trust_anchor` go to the device."""

    name: str
    customer: str
    callback: Callback
    url: str | None = None
    trust_anchor: str | None = None
    policy: str | None = None
    enabled: bool = True

    @property
    def kind(self) -> CallbackKind:
        return CALLBACK_KINDS[type(self.callback)]


@dataclass(frozen=True, slots=True)
class Registration:
    """A device that a customer owns, known by any of its identifiers. Raises ValueError."""

    customer: str
    service_tag: str | None = None
    serial_number: str | None = None
    mac_addresses: tuple[str, ...] = ()
    model: str | None = None
    order: str | None = None
    delegate: str | None = None
    device_id: int = 0

    def __post_init__(self) -> None:
        _check_identifiers(self)


@dataclass(frozen=True, slots=True)
class Rule:
    """Facts that lead to a delegate. Lower priority is tried first; a rule without conditions is the default."""

    name: str
    delegate: str
    priority: int = 100
    model: str | None = None
    tag_prefix: str | None = None
    mac_prefix: str | None = None
    network: str | None = None
    domain: str | None = None
    order: str | None = None


class IdentityRule(enum.Enum):
    """Which proof of identity a policy accepts."""

    OWN = "own"
    SHARED = "shared"
    EITHER = "either"


@dataclass(frozen=True, slots=True)
class Policy:
    """What a customer allows. Every field is optional; what is not said is the safe choice. Raises ValueError."""

    name: str = "default"
    custom_operations: bool = True
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    identity: IdentityRule = IdentityRule.OWN
    approved_only: bool = False
    max_devices: int | None = None
    callbacks: frozenset[CallbackKind] | None = None
    attempts: int = 10
    lease: timedelta = timedelta(hours=24)

    def __post_init__(self) -> None:
        if any(moment is not None and moment.tzinfo is None for moment in (self.valid_from, self.valid_until)):
            raise ValueError("a policy's window needs a time zone")


# --- what is claimed ----------------------------------------------------------------------------------------------


class ClaimState(enum.Enum):
    """asking -> issued -> confirmed, or expired, released."""

    ASKING = "asking"
    ISSUED = "issued"
    CONFIRMED = "confirmed"
    EXPIRED = "expired"
    RELEASED = "released"


@dataclass(frozen=True, slots=True)
class Claim:
    """The durable record that a device asked and what it was given. Times are aware UTC."""

    claim_id: str
    service_tag: str
    customer: str
    delegate: str
    state: ClaimState
    identity: IdentityKind
    attempt: int
    asked_at: datetime
    lease_until: datetime
    issued_at: datetime | None = None
    ended_at: datetime | None = None
    result: Result | None = None
    detail: str | None = None
    peer: str | None = None
    binding: str = field(default="", repr=False)
    sealed: bytes | None = field(default=None, repr=False)
