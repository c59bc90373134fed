"""Builds the wheel, the same bytes from the same sources: `make wheel`. Prints its path and SHA-256.

What differs between two builds of one commit is taken away: times (SOURCE_DATE_EPOCH, else the last commit's), modes of
files (the builder's umask), what an earlier build or a stray file left in the folder (a fresh copy is built), and the
versions of the tools (constraints.txt).
Must not live here: what belongs into the wheel (setup.cfg).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from pki import streams
from scripts.build_device import build_time

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ("setup.cfg", "pyproject.toml", "README.md", "LICENSE", "pki", "delegator")


def copied(root: Path, target: Path) -> None:
    """The sources with the same modes everywhere."""
    for name in SOURCES:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*", "*.orig"))
        else:
            shutil.copyfile(source, target / name)
    for path in target.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def built(root: Path, folder: Path, moment: int) -> Path:
    """Build into `folder`. Raises CalledProcessError with what pip said on standard error."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as clean:
        copied(root, Path(clean))
        made = Path(clean) / "wheel"
        subprocess.run(
            [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(made), clean], check=True,
            umask=0o022, env={**os.environ, "SOURCE_DATE_EPOCH": str(moment),
                 "PIP_CONSTRAINT": str(root / "constraints.txt"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"})
        (wheel,) = made.glob("*.whl")
        return Path(shutil.move(wheel, folder / wheel.name))


def main() -> None:
    """Write it, and say where."""
    path = built(ROOT, Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "dist", build_time(ROOT))
    print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")


if __name__ == "__main__":
    streams.program(main)
