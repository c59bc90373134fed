"""The smallest delegate that a customer can start from: standard library only, mutual TLS, idempotent.

    python delegate_minimal.py --certificate delegate.crt --key delegate.key --ca factory-ca.crt \
        --delegator delegator.example --data provisioning --port 8443

One port for both who call. The delegator posts RequestCredential and NotifyDeployed, and shows its certificate. A
device gets /provisioning with its credential (HTTP Basic), and shows no certificate: so one is asked for here, and may
be missing. A device is given `provisioning/<TAG>.xml`, else the DOCUMENT below. Passwords stand in claims.db as they
are: keep that file to yourself. `delegator delegate serve` is a whole one: sealed passwords, and a limit on guesses.
"""

import sys

if sys.version_info < (3, 11):  # a sentence, where an older one would show a traceback
    sys.stderr.write("delegate_minimal.py needs Python 3.11 or newer, not %d.%d\n" % sys.version_info[:2])
    sys.exit(3)

import argparse
import base64
import hmac
import secrets
import socket
import sqlite3
import ssl
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

OURS = "urn:delegator:provisioning:1"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
TABLE = "CREATE TABLE IF NOT EXISTS claims (claim_id TEXT PRIMARY KEY, tag, user_name, password, not_after, result)"
DOCUMENT = f"""<?xml version="1.0" encoding="utf-8"?>
<Provisioning xmlns="{OURS}">
  <ServiceTag>{{tag}}</ServiceTag>
</Provisioning>
"""  # the root is ours; what stands in it is between you and your devices


def moment(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def request_credential(operation: ElementTree.Element, database: sqlite3.Connection) -> str:
    claim = operation.findtext(f"{{{OURS}}}ClaimId"), operation.findtext(f"{{{OURS}}}Device/{{{OURS}}}ServiceTag")
    fresh = f"p-{secrets.token_hex(5)}", f"Aa1-{secrets.token_hex(8)}", moment(datetime.now(UTC) + timedelta(hours=24))
    with database:  # on disk before it is answered; a claim asked again keeps what it was given first
        database.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?, ?, NULL)", (*claim, *fresh))
    row = database.execute("SELECT user_name, password, not_after FROM claims WHERE claim_id = ? AND tag = ?",
                           claim).fetchone()
    if row is None:
        raise LookupError("this claim is another device's")
    values = zip(("UserName", "Password", "NotAfter"), row, strict=True)
    return f"<Credential>{''.join(f'<{name}>{escape(value)}</{name}>' for name, value in values)}</Credential>"


def notify_deployed(operation: ElementTree.Element, database: sqlite3.Connection) -> str:
    with database:
        database.execute("UPDATE claims SET result = ? WHERE claim_id = ?", (
            operation.findtext(f"{{{OURS}}}Result"), operation.findtext(f"{{{OURS}}}ClaimId")))
    return ""


OPERATIONS = {"RequestCredential": request_credential, "NotifyDeployed": notify_deployed}


def whose(authorization: str, database: sqlite3.Connection) -> str | None:
    """The tag of the device that shows a credential in force, else None."""
    scheme, _, pair = authorization.partition(" ")
    try:
        user_name, _, password = base64.b64decode(pair, validate=True).decode().partition(":")
    except ValueError:
        return None
    row = database.execute("SELECT tag, password FROM claims WHERE user_name = ? AND not_after > ? AND "
                           "result IS NOT 'Deployed'", (user_name, moment(datetime.now(UTC)))).fetchone()
    known = row is not None and hmac.compare_digest(row[1].encode(), password.encode())  # in constant time
    return row[0] if known and scheme.lower() == "basic" else None


class Delegate(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # seconds for a silent peer, its TLS handshake included

    def setup(self) -> None:
        self.request.settimeout(self.timeout)
        self.request.do_handshake()
        super().setup()

    def do_GET(self) -> None:
        if self.path != "/provisioning":
            return self.answer(404)
        with closing(sqlite3.connect(OPTIONS.database)) as database:
            tag = whose(self.headers.get("Authorization", ""), database)
        if tag is None:  # one answer for no credential, a wrong one, and one that is over
            return self.answer(401, headers=(("WWW-Authenticate", 'Basic realm="provisioning", charset="UTF-8"'),))
        own = OPTIONS.data / f"{tag}.xml"
        return self.answer(200, own.read_bytes() if own.exists() else DOCUMENT.format(tag=tag).encode())

    def do_POST(self) -> None:
        octets = self.rfile.read(min(int(self.headers.get("Content-Length", 0)), 65536))
        shown = self.request.getpeercert() or {}
        names = {value for kind, value in shown.get("subjectAltName", ()) if kind == "DNS"}
        if OPTIONS.delegator not in names:  # every device has a certificate of this authority; the name decides
            return self.answer(403)
        envelope = ElementTree.fromstring(octets)  # noqa: S314 - from the delegator alone, see above
        operation = envelope.find(f"{{{SOAP}}}Body")[0]
        name = operation.tag.removeprefix(f"{{{OURS}}}")
        try:
            with closing(sqlite3.connect(OPTIONS.database)) as database:
                inner = OPERATIONS[name](operation, database)
        except LookupError:
            return self.answer(500)
        return self.answer(200, (f'<s:Envelope xmlns:s="{SOAP}"><s:Body><{name}Response xmlns="{OURS}">{inner}'
                                 f"</{name}Response></s:Body></s:Envelope>").encode())

    def answer(self, status: int, body: bytes = b"", headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.send_response(status)
        for name, value in (("Content-Type", "text/xml; charset=utf-8"), ("Content-Length", str(len(body))), *headers):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """At an IPv6 address too; `::` is everywhere, IPv4 included."""

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, handler)

    def server_bind(self) -> None:
        if self.address_family is socket.AF_INET6 and socket.has_dualstack_ipv6():
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def handle_error(self, _: object, address: tuple[str, int]) -> None:
        """One line for a peer that hangs up or speaks no TLS, instead of a traceback."""
        print(f"{address[0]}: {sys.exc_info()[1]!r}", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A minimal delegate.")
    for option in ("--certificate", "--key", "--ca", "--delegator"):
        parser.add_argument(option, required=True)
    parser.add_argument("--data", type=Path, default=Path("provisioning"), help="the folder with <TAG>.xml")
    parser.add_argument("--database", default="claims.db")
    parser.add_argument("--host", default="::" if socket.has_dualstack_ipv6() else "0.0.0.0",  # noqa: S104
                        help="where to listen; built in is everywhere: devices come from outside")
    parser.add_argument("--port", type=int, default=8443)
    OPTIONS = parser.parse_args()
    sqlite3.connect(OPTIONS.database).execute(TABLE).connection.close()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=OPTIONS.ca)
    context.verify_mode = ssl.CERT_OPTIONAL  # a device shows none when it fetches its settings
    context.load_cert_chain(OPTIONS.certificate, OPTIONS.key,
                            password=lambda: sys.exit(f"{OPTIONS.key} is encrypted, and nobody is asked for its pass "
                                                      "phrase; take it off: openssl pkey -in KEY -out NEW"))
    server = Server((OPTIONS.host, OPTIONS.port), Delegate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"listening on port {server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()
