"""The way in: `python -m delegator`, and the `delegator` that an installation puts on the path.

The invariant: OpenSSL is set up before anything imports cryptography; see delegator.engine.
Must not live here: commands (delegator.cli).
"""

from __future__ import annotations


def main() -> None:
    """Run the command that the command line names; ends the process with its exit code."""
    from delegator import engine

    engine.load()
    from delegator.cli import main as run

    run()


if __name__ == "__main__":
    main()
