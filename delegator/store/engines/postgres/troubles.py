"""What an error of PostgreSQL means for the transaction it happened to: a table by SQLSTATE, nothing else.

The invariant: what may have been committed is never taken for undone; who knows of that is the driver.
Must not live here: what to do about it (driver).
"""

from __future__ import annotations

import enum

from delegator.errors import DelegatorError, Kind
from delegator.store.engines.postgres.installed import asyncpg
from pki.said import said


class Trouble(enum.Enum):
    """What happened, seen from who asked."""

    RACE = "another transaction was faster: run it again"
    REFUSED = "against a constraint: a race, or really so"
    LOST = "the connection is gone, or its server takes no writes any more"
    LATE = "the server is there and cannot now"
    WRONG = "our settings or rights do not fit the database"
    OURS = "a statement or value of ours is wrong"


_BY_STATE = {
    "40": Trouble.RACE,
    "23": Trouble.REFUSED,
    "08": Trouble.LOST, "57P01": Trouble.LOST, "57P02": Trouble.LOST, "57P03": Trouble.LOST, "57P05": Trouble.LOST,
    "25P03": Trouble.LOST,  # we were idle in a transaction for too long: this process was stopped for a while
    "25006": Trouble.LOST,  # read-only: it is a standby now, the primary is elsewhere
    "57014": Trouble.LATE, "55P03": Trouble.LATE, "53": Trouble.LATE, "58": Trouble.LATE, "XX": Trouble.LATE,
    "28": Trouble.WRONG, "3D": Trouble.WRONG, "3F": Trouble.WRONG, "42501": Trouble.WRONG,
}
"""Whole states before classes, which are their first two characters (PostgreSQL manual, appendix A)."""


def trouble_of(error: Exception) -> Trouble:
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        return _BY_STATE.get(state) or _BY_STATE.get(state[:2], Trouble.OURS)
    if isinstance(error, asyncpg.ClientConfigurationError):
        return Trouble.WRONG
    if isinstance(error, asyncpg.InterfaceError):
        return Trouble.OURS if isinstance(error, ValueError) else Trouble.LOST
    # InternalClientError: no server takes writes, or the connection was ended at a moment asyncpg did not foresee.
    return Trouble.LOST if isinstance(error, (asyncpg.InternalClientError, OSError)) else Trouble.OURS


_KINDS = {Trouble.RACE: Kind.TRY_LATER, Trouble.REFUSED: Kind.CONFLICT, Trouble.LOST: Kind.TRY_LATER,
          Trouble.LATE: Kind.TRY_LATER, Trouble.WRONG: Kind.CONFIGURATION, Trouble.OURS: Kind.UNAVAILABLE}
_HINTS = {
    Trouble.REFUSED: "look at what is there with `list` and `show`, then run it again",
    Trouble.LOST: "is the database up? see: delegator config check",
    Trouble.LATE: "look at the server's own log",
    Trouble.WRONG: "check [store] url and the rights of its user; see: delegator config check",
}


_CONSTRAINTS = {
    "23503": "what it names is not there, or is being removed, or something still refers to what is to go",
    "23505": "there is one with the same name already",
}


def told(error: Exception, name: str) -> DelegatorError:
    """The error as the rest of the program knows it: while a database is away a device is told to try later."""
    trouble = trouble_of(error)
    return DelegatorError(_KINDS[trouble], f"database {name}: {words_of(error)}", hint=_HINTS.get(trouble, ""))


def words_of(error: Exception) -> str:
    """Why, in one line without values: detail and context may quote them, and so may what is said of a value of ours.
    The name of a class alone is no reason."""
    trouble = trouble_of(error)
    if trouble is Trouble.OURS and not isinstance(error, asyncpg.SyntaxOrAccessError):
        return f"{type(error).__name__} {getattr(error, 'sqlstate', '')}".strip()
    if trouble is Trouble.REFUSED:
        return _CONSTRAINTS.get(str(getattr(error, "sqlstate", "")), "it does not take such a value")
    if isinstance(error, DelegatorError):
        return error.detail
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TimeoutError) and not str(error):
        return "it does not answer in time: it is slow, or the network between is"
    return said(getattr(error, "message", None) or error) or f"{trouble.value} ({type(error).__name__})"
