"""Writes the bill of materials, CycloneDX 1.6 in JSON: `make sbom`. Every package that the product installs, at the
version that is installed here, with licence, dependencies and what it carries inside.

The invariant: what the product asks for stands in setup.cfg, all else is read from what is installed
(importlib.metadata), so that it says what runs; the same packages and the same time (SOURCE_DATE_EPOCH, else the last
commit's) give the same bytes.
Must not live here: advisories (scripts/audit.py).
"""

from __future__ import annotations

import configparser
import json
import re
import sys
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from pki import streams
from scripts.build_device import build_time

ROOT = Path(__file__).resolve().parent.parent
PRODUCT = "secure-service-delegator"
EXTRAS = ("dns", "mail", "postgres", "ssh")
"""What an operator may install besides; what developers use is not part of the product."""
_SPDX = {"MIT", "Apache-2.0", "BSD-3-Clause", "BSD-2-Clause", "ISC", "MPL-2.0", "PSF-2.0", "MIT-0"}


def normal(name: str) -> str:
    """A package's name as it is compared."""
    return re.sub("[-_.]+", "-", name).lower()


def wanted(lines: Iterable[str]) -> set[str]:
    """The packages that requirements name, those whose marker holds here."""
    found = map(Requirement, lines)
    return {normal(one.name) for one in found if one.marker is None or one.marker.evaluate({"extra": ""})}


def graph() -> dict[str, set[str]]:
    """Every package and what it needs, from the product on. Raises PackageNotFoundError for one not installed."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in EXTRAS)]
    found = {PRODUCT: wanted("\n".join(lines).split())}
    left = set(found[PRODUCT])
    while left:
        name = left.pop()
        found[name] = wanted(metadata.requires(name) or ())
        left |= found[name] - found.keys()
    return found


def reference(name: str) -> str:
    return f"pkg:pypi/{name}@{metadata.version(name)}"


def licence(name: str) -> list[dict[str, Any]]:
    """The SPDX expression a package states, else its own words, else what its classifiers say."""
    said = metadata.metadata(name).json
    expression = said.get("license_expression")
    if expression:
        return [{"expression": expression}]
    words = str(said.get("license", "")).strip().partition("\n")[0]
    if not words:
        words = ", ".join(line.rpartition(" :: ")[2] for line in said.get("classifier", [])
                          if line.startswith("License :: "))
    return [{"license": {"id": words} if words in _SPDX else {"name": words}}] if words else []


def component(name: str) -> dict[str, Any]:
    said = metadata.metadata(name).json
    made = {"type": "library", "bom-ref": reference(name), "name": name, "version": metadata.version(name),
            "description": said.get("summary", ""), "licenses": licence(name), "purl": reference(name)}
    if name == "cryptography":
        made["components"] = [openssl()]
    return {key: value for key, value in made.items() if value}


def openssl() -> dict[str, Any]:
    """The library that devices are served with: it comes inside cryptography's wheel, and has advisories of its own."""
    from delegator.watching.metrics import openssl_version

    version = openssl_version().split()[1]
    return {"type": "library", "bom-ref": f"pkg:generic/openssl@{version}", "name": "openssl", "version": version,
            "licenses": [{"license": {"id": "Apache-2.0"}}], "purl": f"pkg:generic/openssl@{version}",
            "cpe": f"cpe:2.3:a:openssl:openssl:{version}:*:*:*:*:*:*:*"}


def bill(moment: int) -> dict[str, Any]:
    """The whole document."""
    packages = graph()
    product = {**component(PRODUCT), "type": "application"}
    parts = [component(name) for name in sorted(packages.keys() - {PRODUCT})]
    content = json.dumps([product, parts], sort_keys=True)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json", "bomFormat": "CycloneDX", "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, content)}", "version": 1,
        "metadata": {"timestamp": datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z"),
                     "component": product},
        "components": parts,
        "dependencies": [{"ref": reference(name), "dependsOn": sorted(map(reference, needs))}
                         for name, needs in sorted(packages.items())]}


def main() -> None:
    """Write it, and say where."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist" / f"{PRODUCT}.cdx.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bill(build_time(ROOT)), indent=2) + "\n", encoding="utf-8")
    print(target)


if __name__ == "__main__":
    streams.program(main)
