"""What each setting may be: every value judged where settings are read, with the function that its user uses.

A value of the right type may still be none that its user can do anything with, and the user may come to it months
later: a month is closed, a device calls. Whoever starts with settings, or checks them, is told at once.
The invariants: what is built in is in order and costs nothing; every setting that is text has its row in the table, or
is said to be free; a refusal names the key and where it was set.
Must not live here: reading settings (config), opening what they name (parts, cli.checking).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from delegator import config
from delegator.config import Settings, Source
from delegator.delegate import settings as delegate
from delegator.errors import DelegatorError, Kind
from delegator.model import HOST_NAME, NAME
from delegator.model.places import Address, address, is_address, is_https, names_user, normal_host
from delegator.net.listening import each


class Rule(NamedTuple):
    """A judge, which raises ValueError or DelegatorError, and an example of what it lets pass."""

    judge: Callable[[Any], object]
    example: str


Rules = Mapping[tuple[str, str], Rule]
Tree = TypeVar("Tree", Settings, delegate.Settings)


def judge(settings: Tree, source: Source) -> Tree:
    """The settings, if all of them are in order. Raises DelegatorError (CONFIGURATION) for the first that is not."""
    rules = RULES if isinstance(settings, Settings) else OF_DELEGATES
    for section, key, value, built_in in _values(settings):
        if value != built_in:
            _judge(rules.get((section, key), _FREE), section, key, value, source)
    if isinstance(settings, Settings):
        _own_ports(settings, source)
    return settings


def _own_ports(settings: Settings, source: Source) -> None:
    """Each of our ports keeps the other from being opened where both are one, and the kernel blames a stranger."""
    server, ops = settings.server, settings.ops
    if ops.enabled and ops.port and ops.port == server.port and _meet(each(server.host), each(ops.host)):
        raise DelegatorError(Kind.CONFIGURATION, f"{source.of('ops', 'port')}: [ops] port: {ops.port} is that of "
                             "[server] too, at the same address", hint="choose another one, such as 9433")


def _meet(ours: Iterable[str], theirs: Iterable[str]) -> bool:
    """Whether two lists of hosts have an address in common, as far as that can be told without asking anybody."""
    return any(mine == yours or (mine.version == yours.version and (mine.is_unspecified or yours.is_unspecified))
               for mine in _addresses(ours) for yours in _addresses(theirs))


def _addresses(hosts: Iterable[str]) -> list[Address]:
    known = [one for host in hosts for one in (config.HERE if normal_host(host) == "localhost" else (host,))]
    return [address(one) for one in known if is_address(one)]


def _judge(rule: Rule, section: str, key: str, value: object, source: Source) -> None:
    try:
        for one in value if isinstance(value, tuple) else (value,):
            _seen(one)
            rule.judge(one)
    except (ValueError, LookupError, DelegatorError) as error:
        why = error.detail if isinstance(error, DelegatorError) else str(error)
        why = why.removeprefix(f"[{section}] {key}: ")
        raise DelegatorError(Kind.CONFIGURATION, f"{source.of(section, key)}: [{section}] {key}: {why}",
                             hint=f"write it such as {rule.example}") from None


def _values(settings: Settings | delegate.Settings) -> Iterator[tuple[str, str, object, object]]:
    built_in = type(settings)()
    for section in settings.__struct_fields__:
        ours, theirs = getattr(settings, section), getattr(built_in, section)
        for key in ours.__struct_fields__:
            yield section, key, getattr(ours, key), getattr(theirs, key)


# --- what values may be -------------------------------------------------------------------------------------------


def _seen(value: object) -> None:
    if isinstance(value, str) and not value.isprintable():
        raise ValueError(f"{value[:80]!a} holds characters that cannot be seen")


def _any(value: object) -> None:
    """Whatever can be seen."""


def _optional(judge: Callable[[str], object]) -> Callable[[str], object]:
    """For a setting where "" says that there is none."""
    return lambda text: judge(text) if text else None


def _path(text: str) -> None:
    if not text.strip():
        raise ValueError("is empty, and must name a file")
    if any(len(part.encode()) > 255 for part in Path(text).parts):
        raise ValueError("is too long for the name of a file")


def _host(text: str) -> None:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        digits = text.replace(".", "").isdigit()
        if digits or not HOST_NAME.fullmatch(text.removesuffix(".")):
            raise ValueError(f"{text[:80]!a} is neither an IP address nor a host name") from None


def _host_name(text: str) -> None:
    if text.replace(".", "").isdigit() or not HOST_NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!a} is not a host name")


def _url(text: str) -> None:
    """What others are told: nobody's name or password, and a host that can be one."""
    if names_user(text):
        raise ValueError("holds a user or a password, which others would be told")  # and is not shown
    if not is_https(text) or "#" in text:
        raise ValueError(f"{text[:80]!a} is not of the form https://HOST[:PORT]/[PATH]")


def _alternate(text: str) -> None:
    from delegator.device.addresses import parse_alternate

    try:
        _host(parse_alternate(text).host)
    except ValueError:
        raise ValueError(f"{text[:80]!a} is not HOST or HOST:PORT") from None


def _network(text: str) -> None:
    from delegator.outbound import networks

    networks((text,))


def _name_server(text: str) -> None:
    from delegator.net.dns import place

    place(text)


def _policy(text: str) -> None:
    if not NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!a} is not a policy's name: lower-case letters, digits and -")


def _label(text: str) -> None:
    if "." in text or not HOST_NAME.fullmatch(text):
        raise ValueError(f"{text[:80]!a} must be one label of a host name")


def _database(text: str) -> None:
    from delegator.store.engines.postgres.connecting import server_of

    server_of(text)


def _user(text: str) -> None:
    from delegator.callbacks.local import user_named

    user_named(text)


def _mail(text: str) -> None:
    from delegator.wire.mail import address

    address(text)


def _mail_port(number: int) -> None:
    if not number:
        raise ValueError("0 is no port of a relay")


def _zone(name: str) -> None:
    from delegator.model import hours

    if hours.ZONE.fullmatch(name) is None or not hours.is_known(name):
        raise ValueError(f"{name[:80]!a} is no time zone that this machine knows")


_FREE = Rule(_any, "text that can be seen")
_FILE, _NO_FILE = Rule(_path, "var/name.pem"), Rule(_optional(_path), 'var/name.pem, or "" for none')
_NETWORK = Rule(_network, '["192.0.2.0/24"]')

RULES: Rules = {
    ("server", "host"): Rule(_host, '"0.0.0.0"'),
    ("server", "certificate"): _FILE, ("server", "key"): _FILE, ("server", "ca"): _FILE,
    ("server", "crl"): _NO_FILE, ("server", "issuers"): _NO_FILE,
    ("server", "url"): Rule(_optional(_url), '"https://delegator.example.com/"'),
    ("server", "name"): Rule(_optional(_host_name), '"delegator.example.com"'),
    ("server", "alternates"): Rule(_alternate, '["delegator2.example.com:4433"]'),
    ("server", "proxy_from"): _NETWORK,
    ("store", "path"): _FILE, ("store", "password_file"): _NO_FILE,
    ("store", "url"): Rule(_optional(_database), '"postgresql://delegator@db.example.com/delegator"'),
    ("sealing", "key_file"): _FILE, ("sealing", "older_key_files"): _FILE,
    ("callbacks", "certificate"): _FILE, ("callbacks", "key"): _FILE,
    ("callbacks", "local_user"): Rule(_optional(_user), 'a user of this machine, or ""'),
    ("outbound", "allow"): _NETWORK,
    ("domains", "label"): Rule(_label, '"provisioning-delegate"'),
    ("domains", "nameservers"): Rule(_name_server, '["192.0.2.53"]'),
    ("domains", "private_networks"): _NETWORK,
    ("domains", "policy"): Rule(_optional(_policy), '"rollout"'),
    ("domains", "trust_anchor"): _NO_FILE,
    ("enrolment", "certificate"): _FILE, ("enrolment", "key"): _FILE, ("enrolment", "passphrase_file"): _NO_FILE,
    ("mail", "host"): Rule(_optional(_host), '"relay.example.com"'),
    ("mail", "port"): Rule(_mail_port, "587"),
    ("mail", "security"): _FREE, ("mail", "user"): _FREE,
    ("mail", "sender"): Rule(_optional(_mail), '"delegator@example.com"'),
    ("mail", "password_file"): _NO_FILE, ("mail", "ca"): _NO_FILE, ("mail", "certificate"): _NO_FILE,
    ("mail", "key"): _NO_FILE,
    ("ops", "host"): Rule(_host, '"127.0.0.1"'),
    ("billing", "zone"): Rule(_zone, '"UTC" or "Europe/Berlin"'),
    ("log", "level"): _FREE,
}

OF_DELEGATES: Rules = {
    ("delegate", "host"): Rule(_host, '"0.0.0.0"'),
    ("delegate", "certificate"): _FILE, ("delegate", "key"): _FILE, ("delegate", "ca"): _FILE,
    ("delegate", "crl"): _NO_FILE,
    ("delegate", "delegators"): Rule(_host_name, '["delegator.example.com"], a name in its certificate'),
    ("delegate", "database"): _FILE, ("delegate", "sealing_key"): _FILE, ("delegate", "data"): _FILE,
    ("delegate", "public_url"): Rule(_optional(_url), '"https://provisioning.example.com/"'),
    ("log", "level"): _FREE,
}
"""Of the reference delegate."""
