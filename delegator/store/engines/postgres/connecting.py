"""How the database is reached: the settings' URL as connections, wherever the server that takes writes is just now.

A URL may name several servers. They are asked side by side, because one that has lost its network answers nothing at
all, and asked one after the other it would use up the time of those behind it.
The invariants: a password is in no setting, argument or log; outside this machine nothing is said without TLS unless
the settings say so; no file is waited for in the loop.
Must not live here: statements (driver), what to do when nobody answers (pool).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from delegator.errors import DelegatorError, Kind
from delegator.model.places import is_loopback, normal_host
from delegator.net.aside import aside
from delegator.secrecy import read_secret
from delegator.store.engines.postgres.fencing import QUESTION, UNTOLD, Fence, Seen, Writer, chosen, refused
from delegator.store.engines.postgres.installed import asyncpg
from delegator.store.engines.postgres.troubles import Trouble, trouble_of
from pki.disk import read_start

CONNECT = 2.0
"""Seconds to reach a server and log in: three round trips and TLS. Less than the patience of a device."""
OTHERS = 0.5
"""Seconds that the others have, once one that was promoted since we looked has answered."""
_SCHEMES = ("postgresql", "postgres")


class Server(msgspec.Struct, frozen=True):
    """What is needed to connect; made from settings by `server_of`. `hosts` are its servers with their ports, none
    where the environment names them; `timeout` is for one statement, in seconds."""

    url: str
    password_file: str
    timeout: float
    hosts: tuple[tuple[str, int], ...]
    tls: str | None

    @property
    def name(self) -> str:
        """The URL as it may be shown."""
        return self.url.partition("?")[0]


def server_of(url: str, password_file: str = "", timeout: float = 5.0) -> Server:
    """Raises DelegatorError (CONFIGURATION) for what is no URL of PostgreSQL."""
    try:
        parts = urlsplit(url)
        said = parse_qs(parts.query, strict_parsing=bool(parts.query))
        hosts = _hosts(parts.netloc.rpartition("@")[2]) or _hosts(
            said.get("host", [""])[-1], said.get("port", ["5432"])[-1])
    except ValueError as error:
        raise _wrong(f"is no address: {error}") from None
    if parts.scheme not in _SCHEMES:
        raise _wrong("does not begin with postgresql://")
    told = "sslmode" in said or "service" in said or "PGSSLMODE" in os.environ or "PGSERVICE" in os.environ
    elsewhere = any(not _is_here(host) for host, _ in hosts)
    return Server(url, password_file, timeout, hosts, "verify-full" if elsewhere and not told else None)


def _wrong(detail: str) -> DelegatorError:
    return DelegatorError(Kind.CONFIGURATION, f"[store] url: {detail}",
                          hint="for example: postgresql://delegator@db.example/delegator")


_HOST = re.compile(r"\[(?P<six>[^]]+)\](?::(?P<a>\d+))?|(?P<name>[^:\[\]]+)(?::(?P<b>\d+))?")


def _hosts(text: str, ports: str = "5432") -> tuple[tuple[str, int], ...]:
    """The servers in a list of HOST[:PORT] with commas between them; `ports` are for those that name none."""
    default, hosts = ports.split(","), []
    for place, one in enumerate(text.split(",") if text else ()):
        found = _HOST.fullmatch(one)
        if found is None:
            raise ValueError(text)
        port = found["a"] or found["b"] or default[min(place, len(default) - 1)]
        if not 0 < int(port) < 65536:
            raise ValueError(f"{port} is no port")
        host = unquote(found["six"] or found["name"])
        hosts.append((host if host.startswith("/") else normal_host(host), int(port)))
    return tuple(hosts)


def _is_here(host: str) -> bool:
    """Whether what is said to it stays on this machine."""
    return host.startswith("/") or is_loopback(host)


def _password(server: Server) -> str | None:
    """Read for each connection, so that a new password needs no restart. Raises DelegatorError (CONFIGURATION)."""
    if not server.password_file:
        return None
    return read_secret(Path(server.password_file), "[store] password_file",
                       "name a file that holds the password and nothing else").reveal()


_FILES = {"sslrootcert": ("PGSSLROOTCERT", "~/.postgresql/root.crt"), "sslcrl": ("PGSSLCRL", "~/.postgresql/root.crl"),
          "sslcert": ("PGSSLCERT", "~/.postgresql/postgresql.crt"),
          "sslkey": ("PGSSLKEY", "~/.postgresql/postgresql.key"), "passfile": ("PGPASSFILE", "~/.pgpass"),
          "servicefile": ("PGSERVICEFILE", "~/.pg_service.conf")}
"""What asyncpg reads of files: by the name in the URL, else by the variable, else in the home directory. Those that a
service file names in its turn are not looked at."""
_LARGEST = 1 << 20


def _files(server: Server) -> Iterator[Path]:
    said = parse_qs(urlsplit(server.url).query)
    for name, (variable, otherwise) in _FILES.items():
        with contextlib.suppress(RuntimeError):  # there is no home directory
            yield Path(said.get(name, [os.environ.get(variable) or otherwise])[-1]).expanduser()


def _looked_through(server: Server) -> str | None:
    """The password, once every file that a connection needs was read. asyncpg reads its own in the loop and has no
    other way; read just before, they are in the kernel's memory, and a disk that does not answer has shown here."""
    password = _password(server)
    for path in _files(server):
        with contextlib.suppress(OSError):  # asyncpg tells it
            read_start(path, _LARGEST)
    return password


async def _read(server: Server) -> str | None:
    """Aside, within the time of a connection. Raises TimeoutError, DelegatorError (CONFIGURATION)."""
    try:
        return await aside(partial(_looked_through, server), f"reading the files for database {server.name}", CONNECT)
    except DelegatorError as error:
        if error.kind is Kind.UNAVAILABLE:
            raise TimeoutError(error.detail) from None
        raise


async def connect(server: Server, fence: Fence | None = None) -> Any:
    """A connection to the first server that answers and takes writes; with a `fence` to the one that was promoted
    last. Raises what asyncpg raises, OSError, TimeoutError, or DelegatorError: CONFIGURATION for the password's file,
    TRY_LATER where no server may be written to."""
    password = await _read(server)
    tries = [asyncio.ensure_future(_connect(server, host, password)) for host in server.hosts or (None,)]
    taken = None
    try:
        taken = await (_first(tries) if fence is None else _newest(tries, fence))
        return taken
    finally:
        for one in tries:
            if not one.cancel() and not one.cancelled() and not one.exception() and one.result() is not taken:
                one.result().terminate()


async def reach(server: Server, host: tuple[str, int] | None) -> Any:
    """A connection to one of its servers, whether that takes writes or not."""
    return await _connect(server, host, await _read(server), "any")


async def writer_at(connection: Any) -> Writer | None:
    """What takes writes there, None for a standby. Raises what asyncpg raises."""
    said = await connection.fetchrow(QUESTION)
    return None if said["timeline"] is None else Writer(*said)


async def _newest(tries: Sequence[asyncio.Future[Any]], fence: Fence) -> Any:
    """Of the servers that take writes the one that was promoted last. Who knows of one waits for no other when that
    one answers, and for `OTHERS` where a newer one does; who knows of none waits for all."""
    await fence.learn()
    reached: list[tuple[Any, Writer]] = []
    errors: list[BaseException] = []
    waiting: set[asyncio.Future[Any]] = set(tries)
    until: float | None = None
    while waiting:
        left = None if until is None else max(0.0, until - time.monotonic())
        done, waiting = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            try:
                async with asyncio.timeout(CONNECT):
                    writer = await writer_at(one.result())
            except Exception as error:
                if getattr(error, "sqlstate", "") in UNTOLD:
                    return one.result()
                errors.append(error)
            else:
                reached += [] if writer is None else [(one.result(), writer)]
        fit = [writer for _, writer in reached if not refused(writer, fence.seen)]
        if not done or any(Seen.of(one) == fence.seen for one in fit):
            break
        if fit and fence.seen is not None and until is None:
            until = time.monotonic() + OTHERS
    if not reached:
        raise _telling(errors)
    connection, writer = reached[chosen([one for _, one in reached], fence.seen)]
    fence.belongs(connection, writer)
    return connection


async def _first(tries: Sequence[asyncio.Future[Any]]) -> Any:
    """What the first of them comes to that succeeds. Where none does, raises what tells an operator most."""
    waiting: set[asyncio.Future[Any]] = set(tries)
    errors: list[BaseException] = []
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for one in done:
            error = one.exception()
            if error is None:
                return one.result()
            errors.append(error)
    raise _telling(errors)


def _telling(errors: Sequence[BaseException]) -> BaseException:
    if not errors:
        return OSError("no server takes writes")
    return max(errors, key=lambda error: isinstance(error, Exception) and trouble_of(error) is not Trouble.LOST)


async def _connect(server: Server, address: tuple[str, int] | None, password: str | None,
                   wanted: str = "read-write") -> Any:
    host, port = address or (None, None)
    patience = f"{server.timeout * 1000:.0f}"
    return await asyncpg.connect(
        server.url, host=host, port=port, password=password, ssl=server.tls, timeout=CONNECT,
        target_session_attrs=wanted, max_cached_statement_lifetime=0,
        server_settings={"application_name": "delegator", "statement_timeout": patience,
                         "idle_in_transaction_session_timeout": f"{2 * server.timeout * 1000:.0f}",
                         "default_transaction_isolation": "read committed"})
