"""The forms that words must have which people write, wherever they write them. Each function takes a word and returns a
value.

The invariant: a word that does not fit is refused by ValueError with the form it should have had, before anything is
touched.
Must not live here: rules between several words (the sheets), how a door shows a refusal.
"""

from __future__ import annotations

import difflib
import re
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from urllib.parse import urlsplit

from delegator import model
from delegator.domains import PREFIX, domain_of
from delegator.model import CallbackWay, Opening, SoapCallback, hours, places
from delegator.model.billed import CURRENCY, Month, amount

_NAME_WORDS = "lower-case letters, digits and '-', 1 to 63, the first a letter or digit"
_TAG_WORDS = "5 to 20 of A-Z and 0-9"
_SERIAL_WORDS = "1 to 64 of letters, digits and . _ / -"
_MODEL_WORDS = "1 to 64 of letters, digits, spaces and . _ / + ( ) -"
_HOST_WORDS = "letters, digits and '-' between dots"
_LONGEST_LEASE = timedelta(days=366)
_DURATION = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_USER = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}"
_SSH = re.compile(rf"(?P<user>{_USER})@(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/@\[\]]+)"
                  r"(:(?P<port>[0-9]{1,5}))?")
_PATH = r"/[!-~]*"
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_SOAP = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:/\[\]]+)(:(?P<port>[0-9]{1,5}))?"
                   rf"(?P<path>{_PATH})?")


def matching(pattern: re.Pattern[str], text: str, words: str) -> str:
    """The text, or a refusal with the words that say the form. Raises ValueError."""
    if pattern.fullmatch(text) is None:
        raise ValueError(f"{text[:64]!a} must be {words}" + _guess(pattern, text))
    return text


def _guess(pattern: re.Pattern[str], text: str) -> str:
    bare = re.sub(r"[\s-]+", "", text)
    near = [other for other in (text.strip(), text.strip().upper(), text.strip().lower(), bare, bare.upper())
            if pattern.fullmatch(other)]
    return f"; did you mean {near[0]}?" if near else ""


def name(text: str) -> str:
    return matching(model.NAME, text, _NAME_WORDS)


def owner(text: str) -> str:
    """A customer: registered, or one that stands for a domain, as claims name it."""
    found = domain_of(text)
    return name(text) if found is None else PREFIX + domain(found)


def tag(text: str) -> str:
    return _identifying(model.SERVICE_TAG, text, _TAG_WORDS)


def serial(text: str) -> str:
    return _identifying(model.SERIAL_NUMBER, text, _SERIAL_WORDS)


def _identifying(pattern: re.Pattern[str], text: str, words: str) -> str:
    """An identifier. What firmware says where nobody wrote one is not guessed at: no spelling of it identifies a
    device."""
    return text if pattern.fullmatch(text) else matching(pattern, _no_placeholder(text), words)


def _no_placeholder(text: str) -> str:
    if len(set(filter(str.isalnum, text))) > 1 and model.is_placeholder_serial(text.strip()):
        raise ValueError(f"{text[:64]!a} is a placeholder, leave the cell empty: it identifies no device")
    return text


def own_serial(text: str) -> str:
    """One to register a device by: thousands of machines say a placeholder, and it finds none of them."""
    if any(map(str.isalnum, text)) and model.is_placeholder_serial(text.strip()):
        raise ValueError(f"{text[:64]!a} is what firmware says where nobody wrote a serial number, and "
                                 "identifies no device: leave it away")
    return serial(text)


def own_mac(text: str) -> str:
    """The same of an address."""
    found = mac(text)
    if model.is_placeholder_mac(found):
        raise ValueError(f"{found} is no interface's own address, and identifies no device: leave it away")
    return found


def identifier(text: str) -> str:
    """A service tag, a serial number or a MAC address, whichever it fits."""
    for pattern in (model.SERVICE_TAG, model.SERIAL_NUMBER):
        if pattern.fullmatch(text):
            return text
    try:
        return model.normal_mac(text)
    except ValueError:
        _no_placeholder(text)
        near = _guess(model.SERVICE_TAG, text) or _guess(model.SERIAL_NUMBER, text)
        raise ValueError(f"{text[:64]!a} must be a service tag ({_TAG_WORDS}), a serial number "
                                 f"({_SERIAL_WORDS}) or a MAC address{near}") from None


def model_name(text: str) -> str:
    return matching(model.MODEL, text.strip(), _MODEL_WORDS)


def claim_id(text: str) -> str:
    return matching(model.CLAIM_ID, text, "32 hexadecimal digits in lower case")


def words(text: str) -> str:
    """A title or an order number: anything that can be printed."""
    if not 1 <= len(text.strip()) <= 200 or not text.isprintable():
        raise ValueError(f"{text[:64]!a} must be 1 to 200 printable characters")
    return text.strip()


def mac(text: str) -> str:
    try:
        return model.normal_mac(text)
    except ValueError as error:
        _no_placeholder(text)
        near = _near_mac(text)
        raise ValueError(f"{error}, such as 00:1A:2B:3C:4D:5E" + near) from None


def _near_mac(text: str) -> str:
    """Twelve digits are an address, whatever stands between them."""
    try:
        return f"; did you mean {model.normal_mac(re.sub('[^0-9A-Za-z]', '', text))}?"
    except ValueError:
        return ""


def tag_prefix(text: str) -> str:
    return matching(re.compile("[A-Z0-9]{1,20}"), text, "1 to 20 of A-Z and 0-9")


def mac_prefix(text: str) -> str:
    """The first one to six pairs, as MAC addresses are kept: upper case, with colons."""
    digits = re.sub("[:-]", "", text).upper()
    matching(re.compile("([0-9A-F]{2}){1,6}"), digits, "one to six pairs of hexadecimal digits, such as 00:1A:2B")
    return ":".join(digits[at:at + 2] for at in range(0, len(digits), 2))


def domain(text: str) -> str:
    return matching(model.HOST_NAME, places.normal_name(text), _HOST_WORDS)


def delegator(text: str) -> str:
    """Another delegator: HOST[:PORT], or an https address."""
    try:
        return places.normal_delegator(text)
    except ValueError as error:
        raise ValueError(str(error)) from None


def ip(text: str) -> str:
    try:
        return places.normal_address(text)
    except ValueError:
        raise ValueError(f"{text[:64]!a} is not an IP address, such as 192.0.2.7 or 2001:db8::7") from None


def network(text: str) -> str:
    """As it is compared: a network of IPv4 addresses inside IPv6 is that IPv4 network."""
    try:
        near = places.meant(text)
    except ValueError:
        raise ValueError(f"{text[:64]!a} is not a network; such as 192.0.2.0/24") from None
    if near is None or places.is_empty(near):
        raise ValueError(f"{text} holds no address that anybody has; for all of IPv4 write 0.0.0.0/0")
    try:
        return places.normal_network(text)
    except ValueError:
        raise ValueError(f"{text[:64]!a} is not a network; did you mean {near}?") from None


def address(text: str) -> str:
    """Where to connect: an IP address or a host name."""
    try:
        return places.normal_address(text)
    except ValueError:
        return matching(model.HOST_NAME, places.normal_name(text), f"an IP address or a host name ({_HOST_WORDS})")


def soap(text: str) -> SoapCallback:
    """HOST[:PORT][/path] of the customer's server."""
    found = _SOAP.fullmatch(text)
    port = int(found["port"] or 443) if found else 0
    if found is None or not 1 <= port <= 65535:
        raise ValueError(f"{text[:80]!a} must be HOST[:PORT][/path], such as delegate.acme.example:8443/soap")
    return SoapCallback(address(found["host"].strip("[]")), port, found["path"] or "/")


def path(text: str) -> str:
    """Where a server answers."""
    return matching(re.compile(_PATH), text, "a path such as /soap")


def ssh_user(text: str) -> str:
    return matching(re.compile(_USER), text, "a user's name such as delegator")


def ssh(text: str) -> tuple[str, str, int]:
    """USER@HOST[:PORT] of the customer's machine."""
    found = _SSH.fullmatch(text)
    port = int(found["port"] or 22) if found else 0
    if found is None or not 1 <= port <= 65535:
        raise ValueError(f"{text[:80]!a} must be USER@HOST[:PORT], such as delegator@delegate.acme.example:22")
    return found["user"], address(found["host"].strip("[]")), port


def host(text: str) -> tuple[str, int]:
    """HOST[:PORT] of a machine that speaks SSH."""
    return ssh(f"nobody@{text}")[1:]


def host_key(text: str) -> str:
    """A public key as it stands in known_hosts or in a .pub file."""
    from delegator.callbacks.ssh_keys import host_key_in

    try:
        return str(host_key_in(text))
    except ValueError as error:
        raise ValueError(str(error)) from None


def ssh_command(text: str) -> str:
    """A command for the customer's machine, with {tag}, {ip}, {peer} and {claim}."""
    from delegator.callbacks.ssh_command import check_command

    try:
        check_command(text)
    except ValueError as error:
        raise ValueError(str(error)) from None
    return text


def place(text: str) -> str:
    """A file or folder on this machine."""
    return matching(re.compile(r"/[^\0]*"), text, "an absolute path such as /opt/acme/credential")


def argument(text: str) -> str:
    """A word that a program is given."""
    return matching(re.compile(r"[^\0]*"), text, "text without NUL")


def function(text: str) -> str:
    return matching(_FUNCTION, text, "MODULE:FUNCTION, such as delegate:credential")


def url(text: str) -> str:
    """Where devices go next: https, a host, no credentials."""
    if places.names_user(text):
        raise ValueError("an address with a user or a password in it is told to nobody: leave that out")
    if not places.is_https(text):
        raise ValueError(f"{text[:80]!a} must be an https address such as https://delegate.acme.example/start")
    host = urlsplit(text).netloc.partition(":")[0]
    return text.replace(host, host.removesuffix("."), 1)


NOBODY = "none"


def mailbox(text: str) -> str:
    return matching(model.MAIL_ADDRESS, text, "a plain mail address, such as admin@acme.example")


def mail_address(text: str) -> str:
    """A plain mailbox, or `none`."""
    return text if text == NOBODY else mailbox(text)


def webhook_url(text: str) -> str:
    """An https address to call, or `none`."""
    return text if text == NOBODY else url(text)


def moment(text: str) -> datetime:
    """ISO 8601 with its zone, or a date, which is its first moment in UTC."""
    try:
        if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        found = datetime.fromisoformat(text)
        if found.tzinfo is not None:
            return found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text[:64]!a} is not a time such as 2026-03-01T08:00:00Z, or a date") from None
    raise ValueError(f"{text} does not say its time zone: write {found.isoformat()}Z for UTC, "
                             f"or {found.isoformat()}+01:00")


def duration(text: str) -> timedelta:
    """A number and a unit: 90s, 15m, 24h, 7d."""
    found = _DURATION.fullmatch(text)
    value = timedelta(**{_UNITS[found[2]]: int(found[1])}) if found else timedelta()
    if not timedelta() < value <= _LONGEST_LEASE:
        raise ValueError(f"{text[:64]!a} must be a number and s, m, h or d, such as 24h; 366d at most")
    return value


def month(text: str) -> Month:
    """A month of the calendar, such as 2026-11."""
    return Month.of(text)


def fee(text: str) -> Decimal:
    """A price or fee, such as 0.25."""
    return amount(text)


def currency(text: str) -> str:
    return matching(CURRENCY, text, "a currency such as EUR, three capital letters (ISO 4217)")


def fingerprint(text: str) -> str:
    """Of a key: hexadecimal digits, with or without colons."""
    plain = text.replace(":", "").lower()
    if re.fullmatch("[0-9a-f]{64}", plain) is None:
        raise ValueError("a key's fingerprint is SHA-256, 64 hexadecimal digits; see: python -m pki show")
    return plain


def opening(text: str) -> Opening:
    """One opening of the week: DAYS HH:MM-HH:MM ZONE. The zone must be one that this machine knows."""
    try:
        found = hours.opening(text)
    except ValueError as error:
        raise ValueError(f"{error}; write {hours.FORM}") from None
    if not hours.is_known(found.zone):
        raise ValueError(f"time zone {found.zone} is not known on this machine" + _near_zone(found.zone))
    return found


def _near_zone(name: str) -> str:
    from zoneinfo import available_timezones

    known = {zone.lower(): zone for zone in available_timezones()}
    near = difflib.get_close_matches(name.lower(), known, 1, 0.7)
    if near:
        return f"; did you mean {known[near[0]]}?"
    return "; UTC always is" + ("" if known else ", others come with the package tzdata")


def callbacks(text: str) -> frozenset[CallbackWay]:
    """Ways of callback, separated by commas."""
    try:
        return frozenset(CallbackWay(one.strip()) for one in text.split(","))
    except ValueError:
        known = ", ".join(way.value for way in CallbackWay)
        raise ValueError(f"{text[:64]!a} must be some of {known}, separated by commas") from None
