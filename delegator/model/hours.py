"""Hours of the week: when a clock on a wall somewhere shows a time at which provisioning is open.

What decides is the wall clock of the zone and nothing else, so the two nights of a year in which it is set are
defined too: a time that it jumps over does not come, and a time that it shows twice counts twice.
The invariant: a zone whose rules are not known opens nothing.
Must not live here: dates from which and until when (the policy's window), what follows from being closed.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

import msgspec

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FORM = "DAYS HH:MM-HH:MM ZONE, such as Mon-Fri 08:00-18:00 Europe/Berlin"
_MIDNIGHT = 24 * 60
_OPENING = re.compile(r"(?P<days>\S+) +(?P<opens>\S+?)-(?P<closes>\S+) +(?P<zone>\S+)", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
ZONE = re.compile(r"[A-Za-z][A-Za-z0-9_+-]{0,30}(/[A-Za-z0-9_+-]{1,30}){0,2}", re.ASCII)
"""The form of a name in the IANA database; checked first, because a zone is looked for as a file."""


class Opening(msgspec.Struct, frozen=True):
    """From `opens` to before `closes` (minutes of a day) on those `days` (0 is Monday) on which it begins, by the wall
    clock of `zone`. One that closes at an earlier time than it opens closes on the next day. Raises ValueError."""

    days: tuple[int, ...]
    opens: int
    closes: int
    zone: str

    def __post_init__(self) -> None:
        if not self.days or not set(self.days) <= set(range(7)) or tuple(sorted(set(self.days))) != self.days:
            raise ValueError("an opening needs days of the week, each once and in order")
        if not (0 <= self.opens < _MIDNIGHT and 0 < self.closes <= _MIDNIGHT) or self.opens == self.closes:
            raise ValueError("an opening needs a beginning and another end; a whole day is 00:00-24:00")
        if ZONE.fullmatch(self.zone) is None:
            raise ValueError(f"{self.zone[:64]!a} is not a time zone such as Europe/Berlin or UTC")

    def __str__(self) -> str:
        return f"{_said(self.days)} {_clock(self.opens)}-{_clock(self.closes)} {self.zone}"

    def is_open(self, at: datetime) -> bool:
        """Whether it is open at an aware moment. Raises LookupError when this machine does not know the zone."""
        there = local(at, self.zone)
        minute, day = there.hour * 60 + there.minute, there.weekday()
        if self.opens < self.closes:
            return day in self.days and self.opens <= minute < self.closes
        return (day in self.days and minute >= self.opens) or ((day - 1) % 7 in self.days and minute < self.closes)


def local(at: datetime, zone: str) -> datetime:
    """What a wall clock of the zone shows at an aware moment. Raises LookupError for a zone that is not known here."""
    known = _zone(zone)
    if known is None:
        raise LookupError(zone)
    return at.astimezone(known)


def is_known(zone: str) -> bool:
    """Whether this machine has the rules of a zone: of its system, else of the package `tzdata`."""
    return _zone(zone) is not None


@functools.lru_cache(maxsize=600)
def _zone(name: str) -> tzinfo | None:
    """UTC needs no database. What is not there is remembered too: looking for it again costs a walk over folders."""
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):
        return None


def opening(text: str) -> Opening:
    """DAYS HH:MM-HH:MM ZONE as a value; DAYS such as Mon-Fri, Sat,Sun or daily. Raises ValueError."""
    found = _OPENING.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text[:64]!a} is not an opening")
    return Opening(_days(found["days"]), _minute(found["opens"]), _minute(found["closes"], ends=True), found["zone"])


def _days(text: str) -> tuple[int, ...]:
    if text.lower() == "daily":
        return tuple(range(7))
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        begin, end = _day(first), _day(last or first)
        found |= {(begin + step) % 7 for step in range((end - begin) % 7 + 1)}
    return tuple(sorted(found))


def _day(text: str) -> int:
    try:
        return DAYS.index(text.capitalize())
    except ValueError:
        raise ValueError(f"{text[:16]!a} is not a day; there are {', '.join(DAYS)} and daily") from None


def _minute(text: str, *, ends: bool = False) -> int:
    """Minutes since midnight; the end of a day may be written 24:00, or 00:00 of the next."""
    if ends and text in ("24:00", "00:00"):
        return _MIDNIGHT
    found = _TIME.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:16]!a} is not a time of day such as 08:00")
    return int(found[1]) * 60 + int(found[2])


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _said(days: tuple[int, ...]) -> str:
    """As people say it: runs of three days and more as a range, all seven as `daily`."""
    if len(days) == 7:
        return "daily"
    runs: list[list[int]] = []
    for day in days:
        if runs and runs[-1][-1] == day - 1:
            runs[-1].append(day)
        else:
            runs.append([day])
    return ",".join(f"{DAYS[run[0]]}-{DAYS[run[-1]]}" if len(run) > 2 else ",".join(DAYS[day] for day in run)
                    for run in runs)
