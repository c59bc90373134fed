"""Packs the device client into one file that any Python 3.9 or later can run: `dist/delegator-device.pyz`.

The invariant: the same sources and the same build time give the same bytes, and none larger than SIZE_LIMIT is made.
What a device does not run, such as this text, is left out, line for line, so that a line has its number still.
zipapp itself copies the files' own times into the archive, so the archive (same format) is written here.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SIZE_LIMIT = 60_000
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = "import sys\n\nfrom delegator.device import main\n\nsys.exit(main())\n"
_PACKAGE = '"""The secure service delegator; this file holds its device client only."""\n'
_BUILD_TIME = re.compile(r"^BUILD_TIME = \d+$", re.MULTILINE)


def build_time(root: Path) -> int:
    """SOURCE_DATE_EPOCH where it is set, else the last commit's time, else now."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    command = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return int(said) if said.isdigit() else int(time.time())


def contents(root: Path, moment: int) -> dict[str, str]:
    """What goes in: the device's folder with the build's moment, and the two files that make it start."""
    files = {f"delegator/device/{path.name}": without_words(path.read_text(encoding="utf-8"))
             for path in sorted((root / "delegator" / "device").glob("*.py"))}
    built, count = _BUILD_TIME.subn(f"BUILD_TIME = {moment}", files["delegator/device/built.py"])
    if count != 1:
        raise ValueError("delegator/device/built.py has no line BUILD_TIME = ...")
    return {"__main__.py": _MAIN, "delegator/__init__.py": _PACKAGE, **files, "delegator/device/built.py": built}


def without_words(source: str) -> str:
    """The same program without the texts that say what it is. One that is all of a body stays."""
    lines = source.splitlines()
    bodies = [node.body for node in ast.walk(ast.parse(source))
              if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and len(node.body) > 1]
    for one in [statement for body in bodies for statement in body]:
        if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str):
            lines[one.lineno - 1:one.end_lineno] = [""] * ((one.end_lineno or one.lineno) - one.lineno + 1)
    return "\n".join(lines) + "\n"


def pack(target: Path, files: dict[str, str], moment: int) -> None:
    """Writes the archive, with one time for all entries, and makes it executable."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        file.write(_SHEBANG)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name in sorted(files):
                archive.writestr(_entry(name, moment), files[name])
    target.chmod(0o755)


def _entry(name: str, moment: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, time.gmtime(moment)[:6])
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    return entry


def main(argv: list[str] | None = None) -> int:
    """Builds the file and says its size."""
    parser = argparse.ArgumentParser(description="Pack the device client into one file.")
    parser.add_argument("--out", type=Path, default=ROOT / "dist" / "delegator-device.pyz")
    words = parser.parse_args(argv)
    moment = build_time(ROOT)
    pack(words.out, contents(ROOT, moment), moment)
    size = words.out.stat().st_size
    if size > SIZE_LIMIT:
        words.out.unlink()  # nobody is to ship it
        print(f"{words.out} has {size} bytes: larger than {SIZE_LIMIT} bytes", file=sys.stderr)
        return 1
    print(f"{words.out} {size} bytes")
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from pki import streams

    streams.program(main)
