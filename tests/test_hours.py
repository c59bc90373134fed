"""Hours of the week: the wall clock of the zone decides, on the two nights it is set too (A6)."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.model.hours import DAYS, Opening, is_known, opening

ROOT = Path(__file__).parents[1]
BERLIN = ZoneInfo("Europe/Berlin")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Chatham", "Australia/Lord_Howe"]

openings = st.tuples(
    st.sets(st.integers(0, 6), min_size=1).map(lambda days: tuple(sorted(days))), st.integers(0, 1439),
    st.integers(1, 1440), st.sampled_from(ZONES)).filter(lambda one: one[1] != one[2]).map(lambda one: Opening(*one))
moments = st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@given(openings)
def test_A6_an_opening_reads_back_from_what_it_says(one):
    assert opening(str(one)) == one


@pytest.mark.parametrize(("said", "again"), [
    ("Mon-Fri 08:00-18:00 Europe/Berlin", "Mon-Fri 08:00-18:00 Europe/Berlin"),
    ("sat,SUN 09:00-12:30 UTC", "Sat,Sun 09:00-12:30 UTC"), ("daily 00:00-24:00 UTC", "daily 00:00-24:00 UTC"),
    ("Fri-Mon 22:00-06:00 UTC", "Mon,Fri-Sun 22:00-06:00 UTC"), ("  Tue  20:00-00:00   UTC ", "Tue 20:00-24:00 UTC"),
    ("Mon,Mon-Tue,Thu 01:00-02:00 Etc/GMT+5", "Mon,Tue,Thu 01:00-02:00 Etc/GMT+5")])
def test_A6_days_are_said_as_people_say_them(said, again):
    assert str(opening(said)) == again


@pytest.mark.parametrize("text", [
    "", "Mon", "Mon 08:00-18:00", "Mon 8:00-18:00 UTC", "Mon 08:00-25:00 UTC", "Mon 24:00-08:00 UTC",
    "Mon 08:60-09:00 UTC", "Mon 08:00-08:00 UTC", "Mo 08:00-18:00 UTC", "- 08:00-18:00 UTC", ",Mon 08:00-09:00 UTC",
    "Mon 08:00-18:00 ../../etc/passwd", "Mon 08:00-18:00 /etc/localtime", "Mon 08:00-18:00 UTC UTC",
    "Mon 08:00–18:00 UTC", "Mon ٠٨:٠٠-١٨:٠٠ UTC"])
def test_A6_what_is_no_opening_is_refused(text):
    with pytest.raises(ValueError):
        opening(text)


@given(openings, moments)
def test_A6_it_is_open_when_the_wall_clock_of_the_zone_shows_a_time_within(one, now):
    """Told anew: the minutes of the week that are open, and the one that is shown."""
    length = (one.closes - one.opens) % 1440 or 1440
    if one.closes > one.opens:
        length = one.closes - one.opens
    week = {(day * 1440 + one.opens + step) % (7 * 1440) for day in one.days for step in range(length)}
    there = now.astimezone(ZoneInfo(one.zone))
    assert one.is_open(now) == (there.weekday() * 1440 + there.hour * 60 + there.minute in week)


@given(moments, st.sampled_from(ZONES), st.integers(1, 1439))
def test_A6_two_openings_that_meet_leave_no_gap_and_no_overlap(now, zone, noon):
    every = ",".join(DAYS)
    clock = f"{noon // 60:02}:{noon % 60:02}"
    before, behind = opening(f"{every} 00:00-{clock} {zone}"), opening(f"{every} {clock}-24:00 {zone}")
    assert before.is_open(now) != behind.is_open(now)


def open_minutes(said: str, first: datetime, last: datetime) -> list[str]:
    """The minutes between two moments at which it is open, in UTC."""
    one, minutes = opening(said), int((last - first) / timedelta(minutes=1))
    return [f"{at:%H:%M}" for at in (first + timedelta(minutes=step) for step in range(minutes)) if one.is_open(at)]


def test_A6_a_time_that_the_clock_jumps_over_does_not_come():
    """29 March 2026 in Berlin: 01:59 is followed by 03:00; 00:00 to 03:00 UTC are 01:00 to 05:00 there."""
    night = utc("2026-03-29T00:00"), utc("2026-03-29T03:00")
    assert open_minutes("Sun 02:00-03:00 Europe/Berlin", *night) == []
    half = open_minutes("Sun 02:30-03:30 Europe/Berlin", *night)
    assert (half[0], half[-1], len(half)) == ("01:00", "01:29", 30), "from 03:00 to 03:30 there"
    across = open_minutes("Sat 22:00-04:00 Europe/Berlin", utc("2026-03-28T21:00"), utc("2026-03-29T03:00"))
    assert (across[0], across[-1], len(across)) == ("21:00", "01:59", 5 * 60), "six hours by the clock, five in fact"


def test_A6_a_time_that_the_clock_shows_twice_counts_twice():
    """25 October 2026 in Berlin: 02:59 is followed by 02:00; it ends at 01:00 UTC."""
    night = utc("2026-10-24T23:00"), utc("2026-10-25T04:00")
    twice = open_minutes("Sun 02:00-03:00 Europe/Berlin", *night)
    assert (twice[0], twice[-1], len(twice)) == ("00:00", "01:59", 120)
    half = open_minutes("Sun 02:30-03:30 Europe/Berlin", *night)
    assert (half[0], half[29], half[30], half[-1], len(half)) == ("00:30", "00:59", "01:30", "02:29", 90)
    ends = open_minutes("Sat 22:00-02:30 Europe/Berlin", utc("2026-10-24T20:00"), utc("2026-10-25T04:00"))
    assert ends[-1] == "01:29"
    assert "00:45" not in ends, "closed by the clock at its first 02:30, open again when it was set back to 02:00"


def test_A6_an_opening_over_midnight_belongs_to_the_day_on_which_it_begins():
    one = opening("Fri 22:00-06:00 UTC")
    assert [one.is_open(utc(text)) for text in (
        "2026-01-02T21:59", "2026-01-02T22:00", "2026-01-03T05:59", "2026-01-03T06:00", "2026-01-02T05:00")
    ] == [False, True, True, False, False]
    assert opening("Sun 22:00-06:00 UTC").is_open(utc("2026-01-05T05:00")), "Sunday's lasts into Monday"


def test_A6_a_zone_that_is_not_known_is_a_lookup_error_and_no_guess():
    with pytest.raises(LookupError, match="Mars/Phobos"):
        Opening((0,), 0, 1440, "Mars/Phobos").is_open(utc("2026-01-05T05:00"))
    assert not is_known("Mars/Phobos")
    assert is_known("UTC")


BARE = """
import sys, zoneinfo
zoneinfo.reset_tzpath(())
if sys.argv[1] == "nothing":
    sys.modules["tzdata"] = None
from datetime import UTC, datetime
from delegator.model import Customer, Delegate, IdentityKind, Policy, SoapCallback, hours
from delegator.policy import Applied, Case, decide
case = Case(Customer("a", "A"), Delegate("d", "a", SoapCallback("d.example")), IdentityKind.OWN, True, frozenset(),
            datetime(2026, 1, 5, 12, tzinfo=UTC))
for zone in ("UTC", "Europe/Berlin"):
    policy = Policy("p", hours=(hours.opening("Mon 08:00-18:00 " + zone),))
    print(zone, "; ".join(map(str, decide([Applied(policy, "h")], case).reasons)) or "open")
"""


@pytest.mark.parametrize(("data", "berlin"), [
    ("package", "open"),
    ("nothing", "policy p: outside its hours, Mon 08:00-18:00 Europe/Berlin: this machine does not know the time zone "
                "Europe/Berlin")])
def test_A6_a_bare_machine_uses_the_packages_zones_and_without_any_stays_closed_but_for_utc(data, berlin):
    """The system's database first, then the package; with neither a zone opens nothing, and says why."""
    done = subprocess.run([sys.executable, "-c", BARE, data], cwd=ROOT, capture_output=True, text=True, check=True,
                          timeout=60)
    assert done.stdout.splitlines() == ["UTC open", f"Europe/Berlin {berlin}"]
