"""The way in: `python -m delegator`, and the `delegator` that an installation puts on the path.

The invariants: OpenSSL is set up before anything imports cryptography (delegator.engine); this file is written so that
any Python can read it, since one that is too old must be told so in a sentence; the streams are made safe before a
word is written (pki.streams).
Must not live here: commands (delegator.cli).
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - whoever starts it need not have installed it
    sys.stderr.write("error: delegator needs Python 3.11 or newer, and this is Python %d.%d\n"  # noqa: UP031
                     "  next: start it with a newer one, such as: python3.11 -m delegator\n" % sys.version_info[:2])
    sys.exit(3)


def main():
    # type: () -> None
    """Run the command that the command line names; ends the process with its exit code."""
    from pki import streams

    streams.program(_run)


def _run():
    # type: () -> None
    from delegator import engine

    engine.load()
    from delegator.cli import main as run

    run()


if __name__ == "__main__":
    main()
