"""The command line: from words to Settings, with an answer for each word that does not fit.

The invariant: what leaves here can be tried; files are looked at when they are used, not here.
Must not live here: doing anything (command).
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from delegator.device import retry
from delegator.device.addresses import Address, parse_address, parse_addresses
from delegator.device.answers import Limits
from delegator.device.enrolling import OPENSSL
from delegator.device.messages import Identity
from delegator.device.settings import Own, Settings
from delegator.device.state import HANDSHAKE_KEY

Value = TypeVar("Value")

_MAC = re.compile(r"[0-9A-Fa-f]{2}([:-]?)(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}")
_TEXT_LIMIT = 255
_STATE = "/var/lib/delegator-device"
_DESCRIPTION = """Ask the maker's delegator for this device's first credential and its owner's server, fetch the
provisioning data there, apply it with the hook command, and report that the device is deployed."""


def parser() -> argparse.ArgumentParser:
    """One for each command."""
    top = argparse.ArgumentParser(prog="delegator device", description="The device client of the service delegator.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _activate(commands.add_parser("activate", help="make this device ready for its owner", description=_DESCRIPTION))
    _activate(commands.add_parser(
        "check", help="look at files, clock and each delegator, in the words of `activate`; nothing is asked for",
        description="Look at files, clock and each delegator, without asking for a credential."))
    _status(commands.add_parser("status", help="say how far this device is, also while it waits"))
    commands.add_parser("reasons", help="print the table of failures and exit codes")
    return top


def settings(words: argparse.Namespace) -> Settings:
    """The words of `activate` as one value."""
    identity = Identity(words.tag, words.serial, tuple(words.mac), words.model,
                        words.ip, words.host_name, words.domain)
    return Settings(
        words.delegator, words.certificate, words.key, words.ca, identity, Path(words.state), words.server_name,
        words.hook, words.hook_timeout, words.timeout, words.interval, words.window, words.once, words.again,
        Limits(words.max_user, words.max_password), _own(words), words.proxy)


def _own(words: argparse.Namespace) -> Own | None:
    """Where this device's own certificate is to be: in a folder of its own, or for a request that was made before."""
    if words.own is not None:
        folder = Path(words.own)
        return Own(folder / HANDSHAKE_KEY, folder, command=words.request_command or OPENSSL)
    if words.certificate_request:
        return Own(Path(words.request_key), Path(words.state), request=words.certificate_request)
    return None


def contradiction(words: argparse.Namespace) -> str | None:
    """What words that are right on their own say against each other, or None."""
    if words.command not in ("activate", "check"):
        return None
    if bool(words.certificate_request) != bool(words.request_key):
        return "--certificate-request and --request-key go together"
    if words.own is not None and words.certificate_request:
        return "--own makes its own request: give no --certificate-request"
    alone = words.request_command and words.own is None
    return "--request-command makes what --own keeps: give both" if alone else None


def _activate(command: argparse.ArgumentParser) -> None:
    for fill in (_who, _where, _what, _when, _how):
        fill(command)


def _status(command: argparse.ArgumentParser) -> None:
    command.add_argument("--state", default=_STATE, metavar="DIR", help="where it is kept (default: %(default)s)")
    command.add_argument("--json", action="store_true", help="one JSON object on standard output")


def _where(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("where to ask")
    group.add_argument("--delegator", required=True, metavar="HOST[:PORT]", type=_said(_addresses),
                       help="the delegator, or several separated by commas, tried in order (port 4433)")
    group.add_argument("--server-name", metavar="NAME", type=_said(_name),
                       help="the name its certificate must have, where that is not HOST")
    group.add_argument("--proxy", metavar="HOST:PORT", type=_said(_proxy),
                       help="an HTTP proxy by which the delegators are reached (CONNECT); the owner's server is not")
    group.add_argument("--ca", required=True, metavar="FILE", help="the factory CA: the only one that is believed")


def _who(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("who this device is")
    group.add_argument("--certificate", required=True, metavar="FILE", help="this device's certificate (PEM)")
    group.add_argument("--key", required=True, metavar="FILE", help="its private key (PEM, not encrypted)")
    group.add_argument("--tag", required=True, type=_said(_text), help="service tag")
    group.add_argument("--serial", type=_said(_text), help="serial number")
    group.add_argument("--mac", action="append", default=[], type=_said(_mac), help="MAC address; may be repeated")
    group.add_argument("--model", type=_said(_text))
    group.add_argument("--ip", type=_said(_text), help="this device's own IP address, a hint for the owner")
    group.add_argument("--host-name", type=_said(_text), help="this device's own name, a hint")
    group.add_argument("--domain", type=_said(_text), help="the domain it was started in, a hint")
    group.add_argument("--own", metavar="DIR",
                       help="turns a shared certificate into this device's own one: where its key and certificate are "
                            "made and kept, also when --state is cleared")
    group.add_argument("--request-command", default=(), type=_said(_command), metavar="'CMD ARG...'",
                       help="makes the key and says a PKCS#10 request (default: openssl)")
    group.add_argument("--certificate-request", metavar="FILE",
                       help="instead of --own: a PKCS#10 request (PEM) that was made before")
    group.add_argument("--request-key", metavar="FILE", help="the private key of that request")


def _what(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("what to do with the answer")
    group.add_argument("--state", default=_STATE, metavar="DIR",
                       help="where credential and progress are kept (default: %(default)s)")
    group.add_argument("--hook", default=(), type=_said(_command), metavar="'CMD ARG...'",
                       help="the command that applies the provisioning data, which it gets on standard input")
    group.add_argument("--hook-timeout", default=300.0, type=_said(_seconds), metavar="S",
                       help="seconds the hook may take (default: %(default)g)")
    group.add_argument("--max-user", default=255, type=_said(_count), metavar="N",
                       help="longest user name this device can hold, in bytes (default: %(default)s)")
    group.add_argument("--max-password", default=1024, type=_said(_count), metavar="N",
                       help="longest password this device can hold, in bytes (default: %(default)s)")


def _when(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("when to try")
    group.add_argument("--interval", default=retry.INTERVAL, type=_said(_seconds), metavar="S",
                       help="mean seconds between attempts (default: %(default)g)")
    group.add_argument("--for", dest="window", default=retry.WINDOW, type=_said(_seconds), metavar="S",
                       help="seconds after which to give up (default: %(default)g, 24 h)")
    group.add_argument("--timeout", default=30.0, type=_said(_seconds), metavar="S",
                       help="seconds for one question and its answer (default: %(default)g)")
    group.add_argument("--once", action="store_true", help="one attempt only")
    group.add_argument("--again", action="store_true",
                       help="start anew for another owner, once; the delegator's operator has to release the old claim")


def _how(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="one JSON object on standard output")
    group.add_argument("-v", "--verbose", action="store_true", help="tell each step on standard error")


def _said(convert: Callable[[str], Value]) -> Callable[[str], Value]:
    """argparse hides the text of a ValueError; this keeps it."""
    def converted(text: str) -> Value:
        try:
            return convert(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
    return converted


def _addresses(text: str) -> tuple[Address, ...]:
    return parse_addresses(text)


def _proxy(text: str) -> Address:
    """A port is asked for, as there is none that all proxies have. What may hold a password is not repeated."""
    if "@" in text:
        raise ValueError("a proxy is told no user and no password: give HOST:PORT")
    address = parse_address(text.partition("://")[2].rstrip("/") if text.startswith("http://") else text)
    if not text.rstrip("/").endswith(f":{address.port}"):
        raise ValueError("give the proxy's port too: HOST:PORT")
    return address


def _text(text: str) -> str:
    if not text.strip() or len(text) > _TEXT_LIMIT or not text.isprintable():
        raise ValueError(f"must be 1 to {_TEXT_LIMIT} printable characters")
    return text


def _name(text: str) -> str:
    if not text or len(text) > _TEXT_LIMIT or not text.isprintable():
        raise ValueError("is not a host name")
    text.encode("idna")  # what TLS will do with it: refuses empty and overlong labels
    return text


def _mac(text: str) -> str:
    if _MAC.fullmatch(text) is None:
        raise ValueError(f"{text[:64]!a} is not a MAC address: six pairs of hexadecimal digits")
    return text


def _command(text: str) -> tuple[str, ...]:
    words = tuple(shlex.split(text))
    if not words:
        raise ValueError("the command is empty")
    return words


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e8:
        raise ValueError(f"{text} is not a positive number of seconds")
    return number


def _count(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(f"{text} is not a positive number")
    return number
