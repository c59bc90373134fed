"""Settings: a TOML file into one typed tree; `DELEGATOR_SECTION__KEY` in the environment overrides it.

The invariant: an unknown key or a wrong type is an error that names the path to it; every value has a default
here, so an empty file is a valid one.
Must not live here: reading the files that settings point to.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args, get_type_hints

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.secrecy import located
from pki.disk import read_given
from pki.text import NotText, decoded

PREFIX = "DELEGATOR_"
Tree = TypeVar("Tree", bound=msgspec.Struct)
_LARGEST = 1 << 20
"""Bytes of a settings file: hundreds of times what all settings take."""
_PASSWORD = re.compile(r"^[^/?]*//[^/?@]*:[^/?]*@|[?&]password=")
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Hosts = str | tuple[str, ...]
EVERYWHERE: Hosts = ("0.0.0.0", "::")  # noqa: S104 - devices come from outside
"""Both families; a machine without IPv6 serves the other one."""
HERE: Hosts = ("127.0.0.1", "::1")
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]
Many = Annotated[int, msgspec.Meta(ge=1, le=1_000_000_000)]


class Server(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The port that devices call. `ca` holds the factory's anchors, `crl` their revocation lists ("" for none)."""

    host: Hosts = EVERYWHERE
    """Addresses to listen on, one or a list; a lab sets 127.0.0.1. "::" is all of IPv6, "0.0.0.0" all of IPv4."""
    port: Port = 4433
    certificate: str = "var/pki/server/delegator.crt"
    key: str = "var/pki/server/delegator.key"
    ca: str = "var/pki/ca.crt"
    crl: str = "var/pki/crl.pem"
    issuers: str = ""
    """Authorities beneath the anchors that sign devices' certificates (PEM), where the anchors do not themselves;
    `crl` holds their lists then."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 1
    """Processes that serve that port together: as many as there are cores for it."""
    url: str = ""
    """The address in the WSDL where a proxy or another name stands in front; "" for what the caller used."""
    name: str = ""
    """What customers' administrators are told this delegator is called; "" for the machine's host name."""
    alternates: tuple[str, ...] = ()
    """Other delegators (HOST[:PORT]) that serve the same devices; a device tries them when this one is away."""
    proxy_from: tuple[str, ...] = ()
    """Networks of TCP load balancers in front, which say by the PROXY protocol whom they speak for; connections from
    elsewhere are then refused. None where devices connect themselves."""


class Store(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The database: an embedded one in `path`, or where `url` is said, PostgreSQL for any number of delegators
    (docs/scale.md)."""

    path: str = "var/delegator.db"
    url: str = ""
    """postgresql://USER@HOST[:PORT][,HOST...]/DATABASE[?sslmode=...&sslrootcert=...&passfile=...]; no password."""
    password_file: str = ""
    """A file of mode 0600 with the password; "" for PGPASSFILE, a service file, or none."""
    connections: Annotated[int, msgspec.Meta(ge=2, le=100)] = 8
    """Connections of one process at most, one more to listen."""
    timeout: Annotated[float, msgspec.Meta(ge=0.5, le=60)] = 5.0
    """Seconds for all that a device's request asks, waiting included; then it is told to try later."""

    def __post_init__(self) -> None:
        if _PASSWORD.search(self.url):  # before anything can show it
            raise ValueError("url holds a password, which does not belong there: put it into a file of mode 0600 and "
                             "name that in password_file, or use PGPASSFILE")


class Sealing(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The key that seals credentials at rest; older keys still open what they sealed."""

    key_file: str = "var/sealing.key"
    older_key_files: tuple[str, ...] = ()


class CallbackSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """How delegates are called: the certificate shown to them, and seconds for one call, all included."""

    certificate: str = "var/pki/delegate-clients/delegator.crt"
    key: str = "var/pki/delegate-clients/delegator.key"
    budget: Seconds = 10.0
    running: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 16
    """Calls to one delegate at once."""
    waiting: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 64
    """Calls to one delegate that wait for their turn; further devices are told to try later."""
    local_user: str = ""
    """As whom local programs run, if the delegator is root; "" for the delegator's own user."""
    local_memory: Annotated[int, msgspec.Meta(ge=16, le=16_777_216)] = 512
    """MiB of address space for each process of a local program."""
    local_cpu: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 5
    """Seconds of CPU time for each process of a local program."""


class OutboundSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Networks of delegates that may be called although they are local, private or reserved (see outbound.py)."""

    allow: tuple[str, ...] = ()


class Domains(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Devices that nobody registered, by reverse DNS of their address (docs/domain-association.md). Off unless said."""

    enabled: bool = False
    label: str = "provisioning-delegate"
    """The delegate of example.com is <label>.example.com."""
    nameservers: tuple[str, ...] = ()
    """Whom to ask, as `192.0.2.53` or `127.0.0.1:5353`; none for those of the system."""
    budget: Annotated[float, msgspec.Meta(gt=0, le=10)] = 2.0
    """Seconds for one look-up, all included. Devices give up at 30."""
    cache: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 10_000
    """Addresses remembered."""
    private_networks: tuple[str, ...] = ()
    """Networks whose addresses are asked about although they are local, private or reserved (see outbound.py)."""
    policy: str = ""
    """The policy of all customers that are found so; "" for the safe default."""
    callback_port: Annotated[int, msgspec.Meta(ge=1, le=65535)] = 443
    trust_anchor: str = ""
    """Who signs delegates' certificates: a PEM file, "system", or "" for the factory."""


class Enrolment(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Devices with the shared certificate get one of their own with their first answer (docs/enrolment.md)."""

    enabled: bool = False
    certificate: str = "var/enrolment-pki/ca.crt"
    """The authority that signs online; also among the anchors of [server] ca."""
    key: str = "var/enrolment-pki/ca.key"
    passphrase_file: str = ""
    days: Annotated[int, msgspec.Meta(ge=30, le=7300)] = 7300
    """How long such a certificate lives, as long as the factory's unless said: nobody renews it in the field."""


class MailSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The relay that takes mail to administrators (docs/notifications.md). Without `host` such mail waits."""

    host: str = ""
    port: Port = 587
    security: Literal["starttls", "tls", "none"] = "starttls"
    """`none` is for a relay on this machine only."""
    user: str = ""
    password_file: str = ""
    sender: str = ""
    """The address in From; the mail signer's certificate must be for it."""
    ca: str = ""
    """Who signed the relay's certificate (PEM); "" for the system's authorities."""
    certificate: str = ""
    """The mail signer's; "" for mail/<sender>.crt and .key beside [server] ca."""
    key: str = ""
    timeout: Annotated[float, msgspec.Meta(gt=0, le=60)] = 30.0


class Limits(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a peer may take. Seconds per phase are explained in net/serve.py."""

    handshake: Seconds = 5.0
    request: Seconds = 5.0
    idle: Seconds = 10.0
    writing: Seconds = 5.0
    drain: Seconds = 30.0
    connections: Many = 20_000
    connections_per_source: Many = 2_000
    """From one IPv4 address or IPv6 /64; a data centre behind NAT is one."""
    half_open: Many = 5_000
    """Before the end of the TLS handshake; one more pushes the oldest out."""
    requests_per_connection: Many = 100


class OpsSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The operators' own port with /healthz, /readyz and /metrics. Plain HTTP: keep it inside."""

    enabled: bool = False
    host: Hosts = HERE
    port: Port = 9433


class AuditSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Who did what, when (docs/audit.md)."""

    keep_days: Annotated[int, msgspec.Meta(ge=0, le=36500)] = 0
    """Rows older than this are pruned, the chain kept verifiable; 0 keeps them for ever."""


class BillingSettings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Months of usage (docs/billing.md)."""

    zone: str = "UTC"
    """Where months begin and end, one for all customers: a time zone such as Europe/Berlin."""


class Log(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Where words go: standard error, as text or JSON lines."""

    level: Literal["debug", "info", "warning", "error", "critical"] = "info"
    json: bool = False


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole tree; each section is a table of the file."""

    server: Server = Server()
    store: Store = Store()
    sealing: Sealing = Sealing()
    callbacks: CallbackSettings = CallbackSettings()
    outbound: OutboundSettings = OutboundSettings()
    domains: Domains = Domains()
    enrolment: Enrolment = Enrolment()
    mail: MailSettings = MailSettings()
    limits: Limits = Limits()
    ops: OpsSettings = OpsSettings()
    audit: AuditSettings = AuditSettings()
    billing: BillingSettings = BillingSettings()
    log: Log = Log()


def load(path: Path | None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read settings: environment over file over defaults. Relative paths are relative to the working folder.
    Raises DelegatorError (CONFIGURATION) with the path to the key in its message."""
    said = read_file(path, f"write one with: delegator config write {path}")
    tree = _with_paths(_overridden(said, environment), environment)
    return typed(but(said, _overridden({}, environment)), tree, Settings, Source(path, environment),
                 "what there is: delegator config show --defaults")


def typed(said: Mapping[str, Any], tree: Mapping[str, Any], kind: type[Tree], source: Source, hint: str) -> Tree:
    """A tree as settings. What the environment and the command line say is text, whatever it stands for; in the file,
    of which `said` is what nothing overrides, a number is a number and `"25433"` none. Raises DelegatorError
    (CONFIGURATION)."""
    try:
        settings = msgspec.convert(tree, kind, strict=False)
        msgspec.convert(said, kind)
    except msgspec.ValidationError as error:
        raise DelegatorError(Kind.CONFIGURATION, source.of_mistake(str(error), kind), hint=hint) from None
    return settings


def but(tree: Mapping[str, Any], over: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """What a tree says of its own, where something is said over it."""
    return {section: {key: value for key, value in values.items() if key not in over.get(section, ())}
            if isinstance(values, dict) else values for section, values in tree.items()}


class Source(NamedTuple):
    """Where settings were read, so that a wrong one is looked for where it was set."""

    path: Path | None
    environment: Mapping[str, str]
    prefix: str = PREFIX
    options: Mapping[tuple[str, str], str] = MappingProxyType({})
    """What the command line said instead, by section and key."""

    def of(self, section: str, key: str) -> str:
        """The option or the variable that sets a key, else the file, else that it is built in."""
        return (self.options.get((section, key)) or self.variable(section, key)
                or (str(self.path) if self.path else "built in"))

    def behind(self, words: str) -> tuple[str, ...]:
        """The variables that set what words are about: the keys that they name, else the values that they show."""
        named, shown = [], []
        for name, value in sorted(self.environment.items()):
            section, parted, key = name.removeprefix(self.prefix).lower().partition("__")
            if not name.startswith(self.prefix) or not (parted or name == f"{self.prefix}CONFIG") or name in words:
                continue
            if f"[{section}] {key}" in words or f"$.{section}.{key}" in words:
                named.append(name)
            elif _shown(f"port {value}" if key == "port" else value, words) and (key == "port" or _telling(value)):
                shown.append(name)
        return tuple(named or shown)

    def variable(self, section: str, key: str = "") -> str | None:
        """The variable that sets a key, or any key of a section."""
        return next((name for name in sorted(self.environment) if name.startswith(self.prefix)
                     and re.fullmatch(f"{section}__{key or '.*'}", name.removeprefix(self.prefix).lower())), None)

    def of_mistake(self, words: str, kind: type[msgspec.Struct]) -> str:
        """What msgspec tells of a value or a name by the path to it, in an operator's words and with where it was
        set."""
        at, unknown = _AT.search(words), _UNKNOWN.search(words)
        section, key = (at["section"], at["key"]) if at else (None, None)
        if unknown is not None:
            section, key = (section, unknown["name"]) if section else (unknown["name"], "")
        variable = self.variable(re.escape(section), re.escape(key or "")) if section else None
        where = variable or self.path
        form = f"[{section}] {key}: " if section and key and unknown is None else ""
        choices = _choices(kind, section, key) if words.startswith("Invalid enum value") else ()
        there = f"; there are: {', '.join(choices)}" if choices else ""
        return (f"{where}: " if where else "") + form + _PLAIN.sub(lambda found: _TYPES[found[0]], words) + there


def _choices(kind: type[msgspec.Struct], section: str | None, key: str | None) -> tuple[str, ...]:
    """What a setting of a few words may be."""
    there = get_type_hints(get_type_hints(kind).get(section or ""), include_extras=False)
    return tuple(map(str, get_args(there.get(key or ""))))


_TYPES = {"`int`": "a whole number", "`float`": "a number", "`str`": "text", "`bool`": "true or false",
          "`array`": "a list", "`object`": "a section", "`null`": "nothing", "Object contains": "there is an",
          "unknown field": "unknown key", "Invalid enum value": "there is no such choice as"}
_PLAIN = re.compile("|".join(map(re.escape, _TYPES)))
def _telling(value: str) -> bool:
    """Whether it is a path, an address or a name with dots: another word may stand anywhere."""
    number = value.replace(".", "").isdigit() and value.count(".") < 3  # with three dots it is an address
    return any(mark in value for mark in "/.:@") and not number


def _shown(value: str, words: str) -> bool:
    """Whether a value that is long enough to be meant stands in words as it is."""
    return len(value) > 2 and re.search(rf"(?<![\w/.-]){re.escape(value)}(?![\w/-])", words) is not None


_AT = re.compile(r"`\$\.(?P<section>\w+)(?:\.(?P<key>\w+))?")
_UNKNOWN = re.compile(r"unknown field `(?P<name>[^`]+)`")


def _with_paths(tree: Any, environment: Mapping[str, str]) -> Any:
    """The tree with `credential:NAME` replaced by the file that the service manager hands over under that name."""
    if isinstance(tree, dict):
        return {key: _with_paths(value, environment) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_with_paths(value, environment) for value in tree]
    if not isinstance(tree, str):
        return tree
    try:
        return located(tree, environment)
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, str(error), hint="such as credential:sealing.key") from None


def read_file(path: Path | None, hint: str) -> dict[str, Any]:
    """The tree of a settings file, an empty one for none. Raises DelegatorError (CONFIGURATION) with the `hint` for who
    has no such file."""
    if path is None:
        return {}
    try:
        content = read_given(path, _LARGEST + 1)
        if len(content) > _LARGEST:
            raise NotText(f"is longer than {_LARGEST} bytes", "name the settings file")
        return tomllib.loads(decoded(content))
    except OSError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"configuration {path}: {error.strerror}", hint=hint) from None
    except NotText as error:
        raise DelegatorError(Kind.CONFIGURATION, error.of(f"configuration {path}"), hint=error.hint) from None
    except tomllib.TOMLDecodeError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"configuration {path}: {error}",
                             hint="mend that line; the form is TOML, as `delegator config show` writes it") from None


_LISTS = {(section, key) for section, values in msgspec.to_builtins(Settings()).items()
          for key, value in values.items() if isinstance(value, (list, tuple))}
"""Settings that hold several values: in the environment they are parted by commas. A `host` may be one or several."""


def _overridden(tree: dict[str, Any], environment: Mapping[str, str]) -> dict[str, Any]:
    """`DELEGATOR_SERVER__PORT=4434` sets [server] port. Names without two underscores are not ours."""
    for variable in sorted(environment):
        section, parted, key = variable.removeprefix(PREFIX).lower().partition("__")
        if variable.startswith(PREFIX) and parted:
            values = tree.get(section, {})
            if isinstance(values, dict):  # anything else is the file's own mistake, and reported as that
                value = environment[variable]
                several = (section, key) in _LISTS and value and ("," in value or key != "host")
                said = value.split(",") if several else value
                tree = {**tree, section: {**values, key: said}}
    return tree


def as_toml(settings: Settings) -> str:
    """The tree as a file that `load` reads back to the same settings."""
    lines = []
    for section, values in msgspec.to_builtins(settings).items():
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items()), ""]
    return "\n".join(lines)


def _toml(value: object) -> str:
    """TOML's strings, numbers, booleans and arrays of strings are written as JSON's are, but for DEL."""
    return msgspec.json.encode(value).decode().replace("\x7f", "\\u007f")
