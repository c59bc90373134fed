"""asyncpg, which only those need whose settings name a PostgreSQL: where it is missing, what to install is said.

Must not live here: anything that uses it.
"""

from __future__ import annotations

from delegator.errors import DelegatorError, Kind, extra

try:
    import asyncpg
except ModuleNotFoundError:
    raise DelegatorError(Kind.CONFIGURATION, "[store] url needs asyncpg, which is not installed",
                         hint=extra("postgres")) from None

__all__ = ["asyncpg"]
