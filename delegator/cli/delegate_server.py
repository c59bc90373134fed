"""`delegator delegate serve` and `list`: the customer's side, in the foreground.

The invariant: data goes to standard output, words to standard error.
Must not live here: composition (delegator.delegate.app), what settings mean (delegator.delegate.settings).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from delegator.cli.console import Verbs

if TYPE_CHECKING:
    from delegator.delegate.entries import Entry
    from delegator.delegate.settings import Settings


class _Flag(NamedTuple):
    """An option that stands for a key of the settings."""

    option: str
    section: str
    key: str
    help: str
    type: Any = str
    more: Mapping[str, Any] = MappingProxyType({})


_SERVING = (
    _Flag("--host", "delegate", "host", "Listen on this address (0.0.0.0 and ::); can be repeated.", str,
          {"multiple": True}),
    _Flag("--port", "delegate", "port", "Listen on this port (8443); 0 takes a free one.", click.IntRange(0, 65535)),
    _Flag("--certificate", "delegate", "certificate", "Our certificate, its issuer behind it."),
    _Flag("--key", "delegate", "key", "Its key."),
    _Flag("--ca", "delegate", "ca", "The manufacturer's certificate authority."),
    _Flag("--crl", "delegate", "crl", "Its revocation list; none by default."),
    _Flag("--delegator", "delegate", "delegators", "DNS name of a delegator that may call; can be repeated.", str,
          {"multiple": True}),
    _Flag("--sealing-key", "delegate", "sealing_key", "Seals passwords in the database; made at the first start."),
    _Flag("--data", "delegate", "data", "Folder with <TAG>.xml and default.xml."),
    _Flag("--public-url", "delegate", "public_url", "The address in the WSDL, where a proxy stands in front."),
    _Flag("--lifetime", "delegate", "lifetime", "Hours until a credential expires (24).", float),
    _Flag("--grace", "delegate", "grace", "Minutes it still works once the device is deployed (10).", float),
    _Flag("--drain", "delegate", "drain", "Seconds for requests in hand when told to stop (10).", float),
    _Flag("--log-level", "log", "level", "debug, info, warning or error.",
          click.Choice(["debug", "info", "warning", "error"])),
    _Flag("--log-json", "log", "json", "Log JSON lines.", None, {"is_flag": True, "default": None}),
)
_EVERYWHERE = (
    _Flag("--database", "delegate", "database", "The delegate's own SQLite file (delegate.db)."),
)


_OPTIONS = {(flag.section, flag.key): flag.option for flag in (*_SERVING, *_EVERYWHERE)}


def _with(flags: tuple[_Flag, ...]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def add(command: Callable[..., None]) -> Callable[..., None]:
        for flag in reversed(flags):
            command = click.option(flag.option, f"{flag.section}__{flag.key}", type=flag.type, help=flag.help,
                                   **flag.more)(command)
        return click.option("--config", "path", type=click.Path(path_type=Path), envvar="DELEGATE_CONFIG",
                            metavar="FILE", help="Settings; else DELEGATE_CONFIG, else what is built in.")(command)
    return add


def _settings(path: Path | None, flags: dict[str, Any]) -> Settings:
    from delegator.config import Source
    from delegator.delegate.settings import PREFIX, load
    from delegator.serving import validation

    tree: dict[str, dict[str, object]] = {}
    options: dict[tuple[str, str], str] = {}
    for name, value in flags.items():
        section, _, key = name.partition("__")
        if value not in (None, ()):
            tree.setdefault(section, {})[key] = value
            options[section, key] = _OPTIONS[section, key]
    return validation.judge(load(path, flags=tree), Source(path, os.environ, PREFIX, options))


@click.group("delegate", cls=Verbs,
             epilog="\b\nExample:\n  delegator delegate serve --delegator delegator.example.com")
def group() -> None:
    """Run a delegate: the customer's server that devices are sent to.

    Any setting can be overridden in the environment: DELEGATE_DELEGATE__PORT=9443 sets [delegate] port.
    """


@group.command("serve")
@_with(_SERVING + _EVERYWHERE)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object once it listens: host, port, pid.")
def serve(path: Path | None, as_json: bool, **flags: Any) -> None:
    """Answer delegators and serve devices until SIGTERM or Ctrl-C. SIGHUP reloads certificates.

    \b
    Example:
      delegator delegate serve --config examples/delegate/delegate.toml
    """
    settings = _settings(path, flags)

    from delegator.clockwork import loop
    from delegator.delegate import app
    from delegator.model.places import authority, url
    from delegator.net.descriptors import raised
    from delegator.secrecy import keep_memory_private
    from delegator.watching import logs

    keep_memory_private()
    raised()
    logs.configure(settings.log.level, settings.log.json)

    def ready(places: tuple[tuple[str, int], ...]) -> None:
        print(f"delegate listening on {' and '.join(url(*place, path='') for place in places)}", file=sys.stderr)
        if as_json:
            host, port = places[0]
            print(json.dumps({"host": host, "port": port, "pid": os.getpid(),
                              "addresses": [authority(*place) for place in places]}), flush=True)

    loop.run(app.serve(settings, ready))


@group.command("list")
@_with(_EVERYWHERE)
@click.option("--state", help="Only those that have come so far, such as deployed.")
@click.option("--tag", help="Only this device.")
@click.option("--most", type=click.IntRange(1), default=1000, show_default=True, help="At most so many.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def listing(path: Path | None, state: str | None, tag: str | None, most: int, as_json: bool, **flags: Any) -> None:
    """The devices this delegate learned of, oldest first, and how far they have come.

    learned, fetched (its data), deployed, failed, void (asked anew since), expired.

    \b
    Example:
      delegator delegate list --json
    """
    from delegator.delegate.ledger import read_entries

    database = Path(_settings(path, flags).delegate.database)
    told = [_told(entry, datetime.now(UTC)) for entry in asyncio.run(read_entries(database))]
    told = [one for one in told if state in (None, one["state"]) and tag in (None, one["service_tag"])]
    if len(told) > most:
        print(f"there are more devices than these {most}; say how many with --most", file=sys.stderr)
    if not told:
        print("no devices found" if state or tag else "no device has been announced yet", file=sys.stderr)
    told = told[:most]
    if as_json:
        print(json.dumps(told, indent=2))
        return
    columns = ("service_tag", "state", "asked_at", "fetched_at", "ended_at", "ip_address", "model", "user_name")
    for row in [dict(zip(columns, columns, strict=True)), *told]:
        cells = (f"{row[column] or '-'!s:<{_WIDTHS.get(column, 20)}}" for column in columns)
        print("  ".join(cells).rstrip())


_WIDTHS = {"state": 8, "ip_address": 15}


def _told(entry: Entry, now: datetime) -> dict[str, Any]:
    device, place = entry.device, entry.location
    return {
        "service_tag": device.service_tag, "state": entry.standing(now).value, "claim_id": entry.claim_id,
        "serial_number": device.serial_number, "model": device.model, "mac_addresses": list(device.mac_addresses),
        "ip_address": place.ip_address, "host_name": place.host_name, "domain": place.domain,
        "user_name": entry.user_name, "asked_at": _when(entry.asked_at), "not_after": _when(entry.not_after),
        "fetched_at": _when(entry.fetched_at), "ended_at": _when(entry.ended_at),
        "result": entry.result.value if entry.result else None, "detail": entry.detail}


def _when(moment: datetime | None) -> str | None:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ") if moment else None
