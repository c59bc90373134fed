"""Way `local`: the customer's own logic on this machine. Its fields, and how people say them.

The invariant: what runs is named by the operator, and by nothing that a device says.
Must not live here: running it, and who may have written it (callbacks.local).
"""

from __future__ import annotations

from delegator.model.ways.way import CallbackWay, Reached, Said


class LocalCallback(Reached, frozen=True):
    """The customer's own logic on the delegator's machine: an executable (absolute path) with its arguments, or
    with `python` a function named as `module:function`, found in the folder `program`."""

    program: str
    arguments: tuple[str, ...] = ()
    python: str | None = None

    way = CallbackWay.LOCAL
    shown = "{program}"
    forms = {"program": "place", "arguments": "words", "python": "function"}  # noqa: RUF012 - read by all, changed by nobody
    said = (
        Said("--local", "file", "An executable on this machine.", "PROGRAM",
             fill=lambda path: {"program": str(path.absolute()), "python": None}),
        Said("--argument", "words", "One of its arguments; may be repeated.", "WORD", field="arguments", unset=True),
        Said("--local-python", "function", "A Python function on this machine, in the folder --program.",
             "MODULE:FUNCTION", fill=lambda name: {"python": name, "arguments": ()}),
        Said("--program", "folder", "Where that module is.", "FOLDER", field="program"))
