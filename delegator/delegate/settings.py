"""The delegate's settings: a TOML file into one typed tree; `DELEGATE_SECTION__KEY` in the environment overrides it.

The invariant: an unknown key or a wrong type is an error that names the path to it; flags win over the environment,
that over the file, that over the defaults here.
Must not live here: reading the files that settings point to.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec

from delegator.config import EVERYWHERE, Hosts, Log, Port, Source, but, read_file, typed

PREFIX = "DELEGATE_"
_LISTS = frozenset(("delegators",))
"""Keys whose value in the environment is a list, separated by commas."""


class Delegate(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Everything about the one port. Paths are relative to the working folder."""

    host: Hosts = EVERYWHERE
    """Addresses to listen on, one or a list; a lab sets 127.0.0.1."""
    port: Port = 8443
    certificate: str = "certificate.crt"
    """Ours, the issuer's behind it; devices trust what is registered at the delegator as our trust anchor."""
    key: str = "certificate.key"
    ca: str = "factory-ca.crt"
    """The manufacturer's anchors: they sign the delegators that may call, and every device too."""
    crl: str = ""
    """Their revocation lists; "" for none."""
    delegators: tuple[str, ...] = ()
    """DNS names, of which a caller's certificate must carry one. Needed because devices have the same anchor."""
    database: str = "delegate.db"
    sealing_key: str = "delegate-sealing.key"
    data: str = "data"
    """The folder with <TAG>.xml and default.xml."""
    public_url: str = ""
    """The address in the WSDL where a proxy or another name stands in front; "" for what the caller used."""
    lifetime: Annotated[float, msgspec.Meta(gt=0, le=8760)] = 24.0
    """Hours until a credential expires; service processors retry for 24."""
    grace: Annotated[float, msgspec.Meta(ge=0, le=1440)] = 10.0
    """Minutes a credential still works once the device is deployed: room for a last download under way."""
    drain: Annotated[float, msgspec.Meta(ge=0, le=3600)] = 10.0
    """Seconds for requests in hand when told to stop."""


class Settings(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The whole tree; each section is a table of the file."""

    delegate: Delegate = Delegate()
    log: Log = Log()


def load(path: Path | None, environment: Mapping[str, str] = os.environ,
         flags: Mapping[str, Mapping[str, object]] | None = None) -> Settings:
    """Read settings; `flags` holds values by section and key. Raises DelegatorError (CONFIGURATION)."""
    said = read_file(path, "start from examples/delegate/delegate.toml, see docs/customers.md")
    over = _merged(_of_environment(environment), flags or {})
    return typed(but(said, over), _merged(said, over), Settings, Source(path, environment, PREFIX),
                 "see: delegator delegate serve --help")


def _of_environment(environment: Mapping[str, str]) -> dict[str, dict[str, object]]:
    """`DELEGATE_DELEGATE__PORT=9443` is port in [delegate]. Names without two underscores are not ours."""
    tree: dict[str, dict[str, object]] = {}
    for variable in sorted(environment):
        section, parted, key = variable.removeprefix(PREFIX).lower().partition("__")
        if variable.startswith(PREFIX) and parted:
            value = environment[variable]
            several = key in _LISTS or (key == "host" and "," in value)
            tree.setdefault(section, {})[key] = _words(value) if several else value
    return tree


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _merged(tree: Mapping[str, Any], over: Mapping[str, Mapping[str, object]]) -> dict[str, Any]:
    """A section that is no table is left for msgspec to name."""
    merged = dict(tree)
    for section, values in over.items():
        below = merged.get(section, {})
        merged[section] = {**below, **values} if isinstance(below, dict) else below
    return merged
