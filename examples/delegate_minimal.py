"""The smallest delegate that a customer can start from: standard library only, mutual TLS, idempotent.

    python delegate_minimal.py --certificate delegate.crt --key delegate.key --ca factory-ca.crt \
        --delegator delegator.example --port 8443

It answers RequestCredential and hears NotifyDeployed; serving provisioning data is up to you (see
`delegator delegate serve` for a whole one). Passwords stand in claims.db as they are: keep that file to yourself.
"""

import sys

if sys.version_info < (3, 11):  # a sentence, where an older one would show a traceback
    sys.stderr.write("delegate_minimal.py needs Python 3.11 or newer, not %d.%d\n" % sys.version_info[:2])
    sys.exit(3)

import argparse
import secrets
import sqlite3
import ssl
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.etree import ElementTree
from xml.sax.saxutils import escape

OURS = "urn:delegator:provisioning:1"
SOAP = "http://schemas.xmlsoap.org/soap/envelope/"
TABLE = "CREATE TABLE IF NOT EXISTS claims (claim_id TEXT PRIMARY KEY, tag, user_name, password, not_after, result)"


def request_credential(operation: ElementTree.Element, database: sqlite3.Connection) -> str:
    claim = operation.findtext(f"{{{OURS}}}ClaimId"), operation.findtext(f"{{{OURS}}}Device/{{{OURS}}}ServiceTag")
    fresh = f"p-{secrets.token_hex(5)}", f"Aa1-{secrets.token_hex(8)}", datetime.now(UTC) + timedelta(hours=24)
    with database:  # on disk before it is answered; a claim asked again keeps what it was given first
        database.execute("INSERT OR IGNORE INTO claims VALUES (?, ?, ?, ?, ?, NULL)",
                         (*claim, *fresh[:2], f"{fresh[2]:%Y-%m-%dT%H:%M:%SZ}"))
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


class Delegate(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # seconds for a silent peer, its TLS handshake included

    def setup(self) -> None:
        self.request.settimeout(self.timeout)
        self.request.do_handshake()
        super().setup()

    def do_POST(self) -> None:
        names = {value for kind, value in self.request.getpeercert().get("subjectAltName", ()) if kind == "DNS"}
        if OPTIONS.delegator not in names:  # every device has a certificate of this authority; the name decides
            self.send_error(403)
            return
        octets = self.rfile.read(min(int(self.headers["content-length"]), 65536))
        envelope = ElementTree.fromstring(octets)  # noqa: S314 - from the delegator alone, see above
        operation = envelope.find(f"{{{SOAP}}}Body")[0]
        name = operation.tag.removeprefix(f"{{{OURS}}}")
        database = sqlite3.connect(OPTIONS.database)
        try:
            inner = OPERATIONS[name](operation, database)
        except LookupError:
            self.send_error(500)
            return
        finally:
            database.close()
        body = (f'<s:Envelope xmlns:s="{SOAP}"><s:Body><{name}Response xmlns="{OURS}">{inner}</{name}Response>'
                "</s:Body></s:Envelope>").encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/xml; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A minimal delegate.")
    for option in ("--certificate", "--key", "--ca", "--delegator"):
        parser.add_argument(option, required=True)
    parser.add_argument("--database", default="claims.db")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - devices come from outside
    parser.add_argument("--port", type=int, default=8443)
    OPTIONS = parser.parse_args()
    sqlite3.connect(OPTIONS.database).execute(TABLE).connection.close()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=OPTIONS.ca)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(OPTIONS.certificate, OPTIONS.key,
                            password=lambda: sys.exit(f"{OPTIONS.key} is encrypted, and nobody is asked for its pass "
                                                      "phrase; take it off: openssl pkey -in KEY -out NEW"))
    server = ThreadingHTTPServer((OPTIONS.host, OPTIONS.port), Delegate)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"listening on port {server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()
