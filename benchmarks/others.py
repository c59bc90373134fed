"""What an engineer would otherwise write for the same work: `python -m benchmarks.others starlette|aiohttp DIR`.

Client certificates and revocation list checked by the standard library's TLS, SOAP read with lxml, the device and its
customer's window looked up, a claim committed with synchronous=FULL by aiosqlite, a credential in the answer. Well
made, no more and no less: what both share stands in Shop, each framework is as it ships.
The invariant: nothing of the delegator is used, so that it is compared with others.
Must not live here: measurement.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import aiosqlite
from lxml import etree

HOST = "127.0.0.1"
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)
_SCHEMA = """
CREATE TABLE IF NOT EXISTS customers (name TEXT PRIMARY KEY, opens INTEGER NOT NULL, closes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS devices (tag TEXT PRIMARY KEY, customer TEXT NOT NULL REFERENCES customers (name));
CREATE TABLE IF NOT EXISTS claims (id TEXT PRIMARY KEY, tag TEXT NOT NULL UNIQUE, password TEXT NOT NULL,
                                   at INTEGER NOT NULL);
"""
_ANSWER = ('<?xml version="1.0" encoding="utf-8"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/">'
           '<s:Body><GetProvisioningCredentialResponse xmlns="urn:delegator:provisioning:1"><Credential><UserName>root'
           "</UserName><Password>{password}</Password></Credential><ClaimId>{claim}</ClaimId>"
           "</GetProvisioningCredentialResponse></s:Body></s:Envelope>")


class Refused(Exception):
    """The device gets no credential."""


class Shop:
    """The work, over a database of its own."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def open(cls, path: Path, tags: list[str]) -> Shop:
        connection = await aiosqlite.connect(path, isolation_level=None)
        await connection.execute("PRAGMA journal_mode = WAL")
        await connection.execute("PRAGMA synchronous = FULL")
        await connection.executescript(_SCHEMA)
        await connection.execute("INSERT INTO customers VALUES ('acme', 0, ?1)", (2**40,))
        await connection.execute("BEGIN")
        await connection.executemany("INSERT INTO devices VALUES (?1, 'acme')", [(tag,) for tag in tags])
        await connection.commit()
        return cls(connection)

    async def answer(self, certificate: dict[str, Any] | None, body: bytes) -> bytes:
        """Raises Refused."""
        tag = self._asked(body)
        names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
        if names != [tag]:
            raise Refused("not its certificate")
        now = int(time.time())
        rows = await self._connection.execute_fetchall(
            "SELECT customer FROM devices JOIN customers ON name = customer WHERE tag = ?1 AND opens <= ?2 "
            "AND closes > ?2", (tag, now))
        if not list(rows):
            raise Refused("nobody's device, or not now")
        claim, password = secrets.token_hex(16), f"{tag}-{secrets.token_urlsafe(15)}"
        async with self._one_at_a_time:
            await self._connection.execute("BEGIN IMMEDIATE")
            await self._connection.execute("INSERT INTO claims VALUES (?1, ?2, ?3, ?4)", (claim, tag, password, now))
            await self._connection.commit()
        return _ANSWER.format(password=password, claim=claim).encode()

    @staticmethod
    def _asked(body: bytes) -> str:
        try:
            found = etree.fromstring(body, _PARSER).find(".//{urn:delegator:provisioning:1}ServiceTag")
        except etree.XMLSyntaxError:
            raise Refused("no XML") from None
        if found is None or not found.text:
            raise Refused("no service tag")
        return str(found.text)


def context(place: Path) -> ssl.SSLContext:
    """TLS as the standard library ships it, with the factory's devices alone let in."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.verify_mode = ssl.CERT_REQUIRED
    made.load_cert_chain(place / "server.crt", place / "server.key", password="")
    made.load_verify_locations(place / "ca.crt")
    made.load_verify_locations(place / "list.pem")
    made.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    return made


async def with_starlette(place: Path, sock: socket.socket, shop: Shop) -> None:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    class WithCertificate(HttpToolsProtocol):
        """uvicorn tells an application nothing of the peer's certificate."""

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self.app_state = {**self.app_state, "certificate": transport.get_extra_info("peercert")}

    async def provision(request: Request) -> Response:
        try:
            answer = await shop.answer(request.state.certificate, await request.body())
        except Refused as error:
            return Response(str(error), 403)
        return Response(answer, media_type="text/xml; charset=utf-8")

    settings = uvicorn.Config(Starlette(routes=[Route("/", provision, methods=["POST"])]), http=WithCertificate,
                              log_level="warning", access_log=False)
    settings.load()
    settings.ssl = context(place)
    await uvicorn.Server(settings).serve(sockets=[sock])


async def with_aiohttp(place: Path, sock: socket.socket, shop: Shop) -> None:
    from aiohttp import web

    async def provision(request: web.Request) -> web.Response:
        assert request.transport is not None
        try:
            answer = await shop.answer(request.transport.get_extra_info("peercert"), await request.read())
        except Refused as error:
            return web.Response(text=str(error), status=403)
        return web.Response(body=answer, content_type="text/xml", charset="utf-8")

    application = web.Application()
    application.router.add_post("/", provision)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.SockSite(runner, sock, ssl_context=context(place)).start()
    await asyncio.Event().wait()


WAYS: dict[str, Callable[[Path, socket.socket, Shop], Coroutine[Any, Any, None]]] = {
    "starlette": with_starlette, "aiohttp": with_aiohttp}


async def _serve(way: str, place: Path) -> None:
    tags = (place / "tags").read_text().split()
    shop = await Shop.open(place / f"{way}.db", tags)
    with socket.create_server((HOST, 0), backlog=1024) as sock:
        print(json.dumps({"port": sock.getsockname()[1]}), flush=True)
        await WAYS[way](place, sock, shop)


def main() -> int:
    """Serve until ended."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.others", description=__doc__.partition("\n")[0])
    parser.add_argument("way", choices=sorted(WAYS))
    parser.add_argument("place", type=Path, help="a folder with server.crt, server.key, ca.crt, list.pem and tags")
    said = parser.parse_args()
    asyncio.run(_serve(said.way, said.place))
    return 0


if __name__ == "__main__":
    sys.exit(main())
