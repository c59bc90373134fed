"""An earlier release of this program, built once from this repository's own history: its wheel, unpacked.

It is found by the file that came with it, not by the name of a commit, as a commit that is put on top of others gets
another name. Kept in var/releases, a folder for each commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest

from .operating import ROOT

KEPT = ROOT / "var" / "releases"


def commit_that_brought(path: str) -> str | None:
    """The commit in which a file came to be; None where this copy of the repository does not go back so far."""
    done = subprocess.run(["git", "-C", str(ROOT), "log", "--diff-filter=A", "--format=%H", "--", path],
                          capture_output=True, text=True, check=False)
    return done.stdout.split()[-1] if done.returncode == 0 and done.stdout.split() else None


def release_with(path: str) -> Path:
    """A folder that holds the packages of that release. Skips the test where there is no history, as in a shallow copy
    of the repository: no program that could be installed would mend that."""
    commit = commit_that_brought(path) if shutil.which("git") else None
    if commit is None:
        pytest.skip(f"the history of this repository back to where {path} came in is not here: git fetch --unshallow")
    kept = KEPT / commit
    if not kept.is_dir():
        KEPT.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=KEPT) as made:  # another process may do the same at this moment
            _unpacked(_built(commit, Path(made) / "sources"), Path(made) / "wheel")
            try:
                (Path(made) / "wheel").rename(kept)
            except OSError:
                assert kept.is_dir()
    return kept


def _built(commit: str, sources: Path) -> Path:
    """Its wheel, by its own script."""
    sources.mkdir()
    archive = sources.with_suffix(".tar")
    subprocess.run(["git", "-C", str(ROOT), "archive", f"--output={archive}", commit], check=True)
    with tarfile.open(archive) as packed:
        packed.extractall(sources, filter="data")
    subprocess.run([sys.executable, "-m", "scripts.build_wheel", sources / "dist"], check=True, cwd=sources,
                   capture_output=True, timeout=300, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
    (wheel,) = (sources / "dist").glob("*.whl")
    return wheel


def _unpacked(wheel: Path, folder: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
