"""How settings name a PostgreSQL: its servers, where its password is, TLS where words leave this machine
(R-settings)."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from delegator import config
from delegator.errors import DelegatorError, Kind
from delegator.store.engines.postgres import connecting
from delegator.store.engines.postgres.connecting import connect, server_of
from delegator.store.engines.postgres.installed import asyncpg
from delegator.store.engines.postgres.troubles import Trouble, trouble_of

from ....postgres import OWNER, Cluster, cluster_folder

ROOT = Path(__file__).parents[4]


@pytest.mark.parametrize(("url", "hosts", "tls"), [
    ("postgresql://u@db.example/d", (("db.example", 5432),), "verify-full"),
    ("postgresql://u@db.example:6000/d?sslmode=require", (("db.example", 6000),), None),
    ("postgres://u@one.example,two.example:6000/d", (("one.example", 5432), ("two.example", 6000)), "verify-full"),
    ("postgresql://u@[2001:db8::1]:6000,[::1]/d", (("2001:db8::1", 6000), ("::1", 5432)), "verify-full"),
    ("postgresql://u@127.0.0.1/d", (("127.0.0.1", 5432),), None),
    ("postgresql://u@localhost/d", (("localhost", 5432),), None),
    ("postgresql://u@%2Frun%2Fpostgresql/d", (("/run/postgresql", 5432),), None),
    ("postgresql:///d?host=/run/postgresql", (("/run/postgresql", 5432),), None),
    ("postgresql:///d?host=one.example,two.example&port=1,2", (("one.example", 1), ("two.example", 2)), "verify-full"),
    ("postgresql:///d?service=delegator", (), None)])
def test_R_settings_a_url_names_one_server_or_several_and_others_than_here_are_spoken_to_with_tls(
        url, hosts, tls, monkeypatch):
    for name in ("PGSSLMODE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    server = server_of(url)
    assert (server.hosts, server.tls) == (hosts, tls)
    assert "?" not in server.name


@pytest.mark.parametrize("url", ["mysql://u@db/d", "db.example", "postgresql://u@db:port/d", "postgresql://[::1/d",
                                 "postgresql://u@db/d?sslmode"])
def test_R_settings_what_is_no_url_is_told_with_the_setting_and_an_example(url):
    with pytest.raises(DelegatorError) as error:
        server_of(url)
    assert error.value.kind is Kind.CONFIGURATION
    assert "[store] url" in error.value.detail
    assert "postgresql://" in error.value.hint


@pytest.mark.parametrize("url", ["postgresql://u:secret-word@db/d", "postgresql://u@db/d?password=secret-word",
                                 "postgresql://u@db/d?sslmode=require&password=secret-word"])
def test_R_secret_a_password_in_a_url_is_refused_before_anything_can_show_it(url, tmp_path):
    for source in ({"DELEGATOR_STORE__URL": url}, {}):
        (tmp_path / "delegator.toml").write_text(f'[store]\nurl = "{url}"\n')
        with pytest.raises(DelegatorError) as error:
            config.load(None if source else tmp_path / "delegator.toml", source)
        assert error.value.kind is Kind.CONFIGURATION
        assert "password_file" in error.value.detail
        assert "secret-word" not in f"{error.value.detail} {error.value.hint} {error.value}"


def test_R_settings_urls_without_a_password_are_taken_as_they_are():
    for url in ("", "postgresql://u@one:1,two:2/d", "postgresql://u@[::1]:6000/d", "postgresql:///d?passfile=/x:y"):
        assert config.Store(url=url).url == url


async def test_R_secret_a_password_file_that_others_can_read_is_refused(tmp_path):
    file = tmp_path / "password"
    with pytest.raises(DelegatorError, match="No such file"):
        await connect(server_of("postgresql://u@localhost:1/d", str(file)))
    file.write_text("secret-word\n")
    file.chmod(0o644)
    with pytest.raises(DelegatorError) as error:
        await connect(server_of("postgresql://u@localhost:1/d", str(file)))
    assert error.value.hint == f"chmod 600 {file}"
    assert "secret-word" not in error.value.detail


@pytest.mark.parametrize("which", ["password", "root.crt"])
async def test_R_later_a_file_that_does_not_answer_keeps_the_loop_from_nothing(tmp_path, monkeypatch, which):
    """The disk answers only once the loop has gone on."""
    went_on, waited = threading.Event(), []
    password, root = tmp_path / "password", tmp_path / "root.crt"
    password.write_text("secret-word")
    password.chmod(0o600)
    root.write_text("no certificate")
    name = "read_secret" if which == "password" else "read_start"
    real = getattr(connecting, name)

    def slow(path, *said):
        if path.name == which:
            waited.append(went_on.wait(5))
        return real(path, *said)
    monkeypatch.setattr(connecting, name, slow)
    asyncio.get_running_loop().call_later(0.01, went_on.set)
    with pytest.raises(Exception, match=r"(?i)certificate|ssl|X509"):
        await connect(server_of(f"postgresql://u@localhost:1/d?sslmode=verify-full&sslrootcert={root}", str(password)))
    assert waited == [True]


async def test_R_later_a_file_that_never_answers_is_a_database_that_is_away(tmp_path, monkeypatch):
    answers_again = threading.Event()
    monkeypatch.setattr(connecting, "CONNECT", 0.05)
    monkeypatch.setattr(connecting, "_looked_through", lambda server: answers_again.wait(20) and None)
    try:
        with pytest.raises(TimeoutError, match="reading the files for database postgresql://u@localhost:1/d") as caught:
            await connect(server_of("postgresql://u@localhost:1/d"))
        assert trouble_of(caught.value) is Trouble.LOST
    finally:
        answers_again.set()


def test_R_later_every_file_that_asyncpg_reads_is_read_aside_before(tmp_path, monkeypatch):
    """Its source names them: another one there fails here."""
    source = Path(asyncpg.connect_utils.__file__).read_text()
    variables = set(re.findall(r"'(PGSSL(?:ROOTCERT|CERT|KEY|CRL)|PGPASSFILE|PGSERVICEFILE)'", source))
    assert {variable for variable, _ in connecting._FILES.values()} == variables
    of_url = set(re.findall(r"query\.pop\('(ssl\w*(?:cert|key|crl)|\w*file)'\)", source))
    assert of_url == set(connecting._FILES) - {"servicefile"}
    homes = set(re.findall(r"_dot_postgresql_path\('([^']+)'\)", source))
    at_home = {path.rpartition("/")[2] for _, path in connecting._FILES.values()}
    assert at_home - {".pgpass", ".pg_service.conf"} == homes
    for variable in variables:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PGSSLCERT", "/from/variable.crt")
    found = list(connecting._files(server_of("postgresql://u@localhost/d?sslrootcert=/from/url.crt&passfile=/pass")))
    assert list(map(str, found)) == [
        "/from/url.crt", f"{tmp_path}/.postgresql/root.crl", "/from/variable.crt",
        f"{tmp_path}/.postgresql/postgresql.key", "/pass", f"{tmp_path}/.pg_service.conf"]


def test_R_settings_without_the_extra_a_url_says_what_to_install():
    """asyncpg is looked for only where a URL is named; nothing else needs it."""
    code = ("import sys; sys.modules['asyncpg'] = None\n"
            "import asyncio; from delegator import config; from delegator.sealing import SealingKey\n"
            "from delegator.store import open_named; import delegator.serving.app, delegator.cli.checking\n"
            "try: asyncio.run(open_named(config.Store(url='postgresql:///d'), SealingKey(b'k' * 32)))\n"
            "except Exception as error: print(type(error).__name__, error.kind.value, error.hint)")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.split()[:2] == ["DelegatorError", "configuration"], done.stderr
    assert "pip install" in done.stdout


@pytest.mark.counterpart("initdb", "openssl")
async def test_R_settings_with_a_password_and_tls_as_the_settings_say(tmp_path, factory):
    """SCRAM over TLS: the password from its file, the server's certificate by anchor and name."""
    folder = factory.path
    with cluster_folder() as place:
        cluster = Cluster(place, 5432)
        cluster.make()
        for name in ("crt", "key"):
            inside = cluster.data / f"server.{name}"
            inside.write_bytes((folder / f"server/delegator.{name}").read_bytes())
            inside.chmod(0o600)
            cluster.own(inside)
        port = _free_port()
        cluster.configure(listen_addresses="'127.0.0.1,127.0.0.2'", port=str(port), ssl="on",
                          password_encryption="scram-sha-256")
        cluster.port = port
        (cluster.data / "pg_hba.conf").write_text("local all postgres trust\n"
                                                  "hostssl all all 127.0.0.0/8 scram-sha-256\n")
        cluster.start()
        try:
            cluster.sql(f"CREATE ROLE {OWNER} LOGIN PASSWORD 'the secret word'")
            cluster.sql(f"CREATE DATABASE d OWNER {OWNER}")
            password = tmp_path / "password"
            password.write_text("the secret word\n")
            password.chmod(0o600)
            good = f"postgresql://{OWNER}@localhost:{port}/d?sslmode=verify-full&sslrootcert={factory.ca_path}"
            connection = await connect(server_of(good, str(password)))
            assert await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
            await connection.close()
            password.write_text("another word")
            with pytest.raises(Exception, match="password authentication failed"):
                await connect(server_of(good, str(password)))
            with pytest.raises(Exception, match=r"(?i)certificate|hostname"):
                await connect(server_of(good.replace("localhost", "127.0.0.2"), str(password)))
        finally:
            cluster.end()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
