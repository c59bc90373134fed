"""One target under atheris. Usage: python -m fuzz.coverage TARGET LEARNED CORPUS [-libFuzzer options].

A process of its own, started by fuzz.engines.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["delegator", "pki"]):
    from fuzz.table import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]
    Path(sys.argv[3]).mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(target.seeds):
            (Path(folder) / f"{number}").write_bytes(data)
        words = Path(folder).with_suffix(".words")
        words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in target.words))
        atheris.Setup([sys.argv[0], *sys.argv[2:4], folder, f"-dict={words}", *sys.argv[4:]], target.check)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
