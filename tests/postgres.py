"""A real PostgreSQL for tests, from the system's packages: a cluster in a folder of its own, started and ended here.

It listens on a Unix socket alone and does not mind who connects. Where servers crash and fail over it syncs to disk as
it would in earnest; for the contract, which no crash of a server is a part of, it does not (IN_NO_DANGER). Each test
has a database to itself: a copy of a template that holds the schema, or one that another test is done with and that was
emptied, which is quicker. PostgreSQL refuses to run as root: where tests do, it runs as the user of Debian's package.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from delegator.store.engines.postgres.connecting import server_of
from delegator.store.engines.postgres.driver import open_postgres
from delegator.store.migrate import bring_up_to_date

OWNER = "delegator"
IN_NO_DANGER = {"fsync": "off", "full_page_writes": "off", "autovacuum": "off", "jit": "off"}
"""Settings of a server whose machine never fails: its commits take a third of the time."""
_SETTINGS = {"listen_addresses": "''", "fsync": "on", "max_connections": "120", "shared_buffers": "32MB",
             "wal_level": "replica", "log_min_messages": "warning"}


def programs() -> str:
    """Where Debian keeps the servers, newest last; for a PATH."""
    return ":".join(str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin")))


def program(name: str) -> str:
    found = shutil.which(name, path=f"{programs()}:{os.environ['PATH']}")
    assert found is not None, name
    return found


def _user() -> dict[str, Any]:
    """As whom servers run: ourselves, or somebody else than root."""
    if os.geteuid():
        return {}
    entry = pwd.getpwnam("postgres")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def run(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """A program of PostgreSQL's, as the user that servers run as."""
    return subprocess.run([program(str(arguments[0])), *map(str, arguments[1:])], check=check, text=True, cwd="/",
                          capture_output=True, env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, **_user())


def _spoken_to(*arguments: object) -> subprocess.Popen[bytes]:
    """One that goes on, to be written to and read from."""
    return subprocess.Popen([program(str(arguments[0])), *map(str, arguments[1:])], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/",
                            env={"PATH": os.environ["PATH"], "LC_ALL": "C"}, **_user())


class Cluster:
    """A server and its folder. `settings` are added to what every test cluster has."""

    def __init__(self, folder: Path, port: int = 5432, **settings: str) -> None:
        self.folder, self.port = folder, port
        self.data = folder / f"data-{port}"
        self._settings = {**_SETTINGS, **settings}
        self._numbers = itertools.count(1)
        self._done_with: list[str] = []
        self._emptying: dict[str, subprocess.Popen[bytes]] = {}
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def socket(self) -> str:
        return str(self.folder)

    def make(self) -> None:
        run("initdb", "--pgdata", self.data, "--username=postgres", "--auth=trust", "--locale=C", "--encoding=UTF8",
            "--no-instructions")
        self.configure(unix_socket_directories=f"'{self.folder}'", port=str(self.port), **self._settings)

    def follow(self, primary: Cluster) -> None:
        """Become its standby: a copy of it that is told of every commit."""
        run("pg_basebackup", "--pgdata", self.data, "--write-recovery-conf", "--checkpoint=fast", "--host",
            primary.socket, "--port", primary.port, "--username=postgres")
        self.configure(port=str(self.port))

    def promote(self) -> None:
        run("pg_ctl", "promote", "--wait", "--pgdata", self.data)

    def own(self, path: Path) -> None:
        """Give a file to the user that the server runs as."""
        user = _user()
        if user:
            os.chown(path, int(str(user["user"])), int(str(user["group"])))

    def configure(self, **settings: str) -> None:
        """Settings for the next start; those that were there before give way."""
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in settings.items())

    def start(self) -> None:
        if self._guard is None:
            self._guard = subprocess.Popen(
                ["sh", "-c", 'cat; exec "$@"', "guard", program("pg_ctl"), "stop", "--pgdata", str(self.data), "--mode",
                 "immediate"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
                start_new_session=True, **_user())
        run("pg_ctl", "start", "--wait", "--pgdata", self.data, "--log", self.folder / f"log-{self.port}",
            "--options=-c logging_collector=off")

    def stop(self, mode: str = "fast") -> None:
        """`fast` tells clients goodbye; `immediate` is a crash."""
        run("pg_ctl", "stop", "--wait", "--pgdata", self.data, "--mode", mode, check=False)

    def end(self) -> None:
        """Stop it for good. Its guard would do so too when these tests are killed: then what it reads from us ends."""
        self.stop("immediate")
        for name in list(self._emptying):
            self._let_go(name)
        if self._guard is not None:
            self._guard.communicate()

    def sql(self, statement: str, database: str = "postgres") -> str:
        """What a superuser's statement answers, as text without frills."""
        return run("psql", *self._as_superuser(database), "--command", statement).stdout.strip()

    def url(self, database: str, user: str = OWNER, *others: Cluster) -> str:
        """Also with other servers, for when this one fails."""
        hosts = ",".join(str(one.folder) for one in (self, *others))
        ports = ",".join(str(one.port) for one in (self, *others))
        return f"postgresql://{user}@/{database}?host={hosts}&port={ports}"

    def with_schema(self) -> None:
        """The owner, and a template that holds the schema as our own migration makes it."""
        self.sql(f"CREATE ROLE {OWNER} LOGIN")
        self.sql(f"CREATE DATABASE template_delegator OWNER {OWNER}")
        asyncio.run(_migrated(self.url("template_delegator")))

        self.sql(_EMPTYING, "template_delegator")

    def database(self, template: str = "template_delegator") -> str:
        """A new database's name."""
        name = f"test_{next(self._numbers)}"
        self.sql(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {OWNER}")
        return name

    @contextmanager
    def lent(self) -> Iterator[str]:
        """A database as good as new, for a test that leaves its tables as they are made."""
        name = self._done_with.pop() if self._done_with else self.database()
        self._emptied(name)
        yield name
        self._done_with.append(name)

    def _emptied(self, name: str) -> None:
        """By a psql that is kept, as a new connection has everything to learn, and longer than this takes. One whose
        connection a test has ended gives way to another."""
        for _ in range(2):
            psql = self._emptying.get(name)
            if psql is None or psql.poll() is not None:
                psql = self._emptying[name] = _spoken_to("psql", *self._as_superuser(name))
            assert psql.stdin is not None
            assert psql.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                psql.stdin.write(b"SELECT 'emptied' || seed.empty();\n")
                psql.stdin.flush()
                if psql.stdout.readline() == b"emptied\n":
                    return
            self._let_go(name)
        raise AssertionError(f"database {name} could not be emptied")

    def _let_go(self, name: str) -> None:
        with self._emptying.pop(name) as psql, contextlib.suppress(BrokenPipeError):
            assert psql.stdin is not None
            psql.stdin.close()

    def _as_superuser(self, database: str) -> tuple[object, ...]:
        return ("--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1", "--host", self.socket,
                "--port", self.port, "--username=postgres", "--dbname", database)


_EMPTYING = """
CREATE SCHEMA seed;
DO $$ DECLARE name TEXT; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('CREATE TABLE seed.%I AS TABLE public.%I', name, name);
    END LOOP;
END $$;
CREATE FUNCTION seed.empty() RETURNS text LANGUAGE plpgsql SET session_replication_role = replica AS $$
DECLARE name TEXT; BEGIN
    FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP
        EXECUTE format('DELETE FROM public.%I', name);
        EXECUTE format('INSERT INTO public.%I SELECT * FROM seed.%I', name, name);
    END LOOP;
    FOR name IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
        EXECUTE format('ALTER SEQUENCE public.%I RESTART', name);
    END LOOP;
    RETURN '';
END $$;
"""
"""Keeps what the schema begins with, and a function that brings all tables back to it. Deleting a few rows takes
milliseconds where TRUNCATE or a new copy takes hundreds."""


async def _migrated(url: str) -> None:
    driver = await open_postgres(server_of(url), 2)
    await bring_up_to_date(driver)
    await driver.close()


@contextmanager
def cluster_folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket, and open to the user that servers run as."""
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    try:
        Cluster(folder).own(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_cluster(**settings: str) -> Iterator[Cluster]:
    with cluster_folder() as folder:
        cluster = Cluster(folder, 5432, **settings)
        cluster.make()
        cluster.start()
        try:
            yield cluster
        finally:
            cluster.end()
