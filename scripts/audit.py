"""Asks whether any package of constraints.txt has a known weakness: `make audit`. pip-audit does the asking.

Ends with 0 when none has, 1 when one has (or an exception has run out), 3 when the list of exceptions is not in order,
and 75 when nobody could be asked: an advisory service that is out of reach says nothing about us, so `make audit` and
CI say so in capitals and go on. A service that knows none of the packages was not reached either.
Must not live here: which weaknesses are accepted, and why (scripts/advisories.toml).
"""

from __future__ import annotations

import sys

if sys.version_info < (3, 11):  # a sentence, where an older one would show a traceback
    sys.stderr.write("scripts/audit.py needs Python 3.11 or newer, not %d.%d\n" % sys.version_info[:2])
    sys.exit(3)

import argparse
import datetime
import json
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pki import streams

ROOT = Path(__file__).resolve().parent.parent
MOST = 5
"""Exceptions at most: whoever needs more has a dependency to replace."""
LONGEST = 180
"""Days an exception may last; then it is looked at again."""
OK, FOUND, CONFIGURATION, TRY_LATER = 0, 1, 3, 75


@dataclass(frozen=True, slots=True)
class Accepted:
    """A weakness that does not concern us, why not, and until when we think so."""

    id: str
    package: str
    because: str
    until: datetime.date


class NotInOrder(ValueError):
    """The list of exceptions breaks its own rules."""


def accepted(path: Path, today: datetime.date) -> list[Accepted]:
    """The exceptions. Raises NotInOrder."""
    try:
        found = [Accepted(**one) for one in tomllib.loads(path.read_text(encoding="utf-8")).get("accepted", [])]
    except (tomllib.TOMLDecodeError, TypeError) as error:
        raise NotInOrder(f"{path}: {error}") from None
    if len(found) > MOST:
        raise NotInOrder(f"{path}: {len(found)} exceptions, {MOST} are allowed")
    for one in found:
        if len(one.because.split()) < 5:
            raise NotInOrder(f"{path}: {one.id}: say in a sentence why it does not concern us")
        if not isinstance(one.until, datetime.date) or one.until > today + datetime.timedelta(days=LONGEST):
            raise NotInOrder(f"{path}: {one.id}: until a day within {LONGEST} days")
    return found


def asked(service: list[str], requirements: Path) -> dict[str, Any] | None:
    """What a service says of every package; None when it could not be asked."""
    done = subprocess.run(
        [sys.executable, "-m", "pip_audit", "--requirement", str(requirements), "--no-deps", "--disable-pip",
         "--format", "json", "--progress-spinner", "off", "--timeout", "10", *service],
        capture_output=True, text=True, check=False)
    try:
        said: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return None
    return said if any("vulns" in one for one in said["dependencies"]) else None


def judged(said: dict[str, Any], exceptions: list[Accepted], today: datetime.date) -> tuple[int, list[str]]:
    """The exit code, and the words to it."""
    weak, lines, used = 0, [], set()
    for one in said["dependencies"]:
        for fault in one.get("vulns", ()):
            names = {fault["id"], *fault["aliases"]}
            known = next((each for each in exceptions if each.id in names and each.package == one["name"]), None)
            if known is not None and known.until >= today:
                used.add(known.id)
                lines.append(f"accepted until {known.until}: {one['name']} {fault['id']}: {known.because}")
                continue
            weak += 1
            what = "its exception has run out" if known else " ".join(fault["description"].split())[:200]
            lines.append(f"WEAK {one['name']} {one['version']} {fault['id']}: {what}; mended in "
                         f"{', '.join(fault['fix_versions']) or 'no version yet'}")
    lines += [f"not needed any more: {one.id} in scripts/advisories.toml" for one in exceptions if one.id not in used]
    skipped = [one["name"] for one in said["dependencies"] if "vulns" not in one]
    if skipped:
        lines.append(f"not known to the service: {', '.join(skipped)}")
    lines.append(f"{len(said['dependencies']) - len(skipped)} packages looked at, {weak} known weaknesses")
    return FOUND if weak else OK, lines


def main() -> int:
    words = argparse.ArgumentParser(prog="scripts/audit.py", epilog="example: python scripts/audit.py")
    words.add_argument("--requirements", type=Path, default=ROOT / "constraints.txt")
    words.add_argument("--accepted", type=Path, default=ROOT / "scripts" / "advisories.toml")
    words.add_argument("--osv-url", help="another service of that kind, such as a mirror")
    options = words.parse_args()
    today = datetime.datetime.now(datetime.UTC).date()
    try:
        exceptions = accepted(options.accepted, today)
    except NotInOrder as error:
        print(error, file=sys.stderr)
        return CONFIGURATION
    osv = ["--vulnerability-service", "osv"]
    services = [[*osv, "--osv-url", options.osv_url]] if options.osv_url else [osv, []]
    said = next((found for service in services if (found := asked(service, options.requirements))), None)
    if said is None:
        print("NOT AUDITED: no advisory service could be reached, so nothing is known; run it again where one can",
              file=sys.stderr)
        return TRY_LATER
    code, lines = judged(said, exceptions, today)
    print("\n".join(lines), file=sys.stderr)
    return code


if __name__ == "__main__":
    streams.program(main)
