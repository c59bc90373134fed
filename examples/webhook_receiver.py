"""The smallest receiver of a delegator's webhook that a customer can start from: standard library only.

    python webhook_receiver.py --certificate receiver.crt --key receiver.key --secret-file webhook.secret --port 8443

Each new notification is one JSON line on standard output. It refuses what is not signed with the secret or was
signed more than five minutes ago, and takes what it has seen already as read: the delegator sends each one at least
once. Seen ids are kept in memory here; keep them in your database, beside what you do with the notification.
"""

import sys

if sys.version_info < (3, 10):  # a sentence, where an older one would show a traceback
    sys.stderr.write("webhook_receiver.py needs Python 3.10 or newer, not %d.%d\n" % sys.version_info[:2])
    sys.exit(3)

import argparse
import hashlib
import hmac
import json
import re
import socket
import ssl
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

WINDOW = 300  # seconds that the two clocks may differ
LARGEST = 64 * 1024
SIGNATURE = re.compile(r"t=(\d{1,12}),v1=([0-9a-f]{64})")


def refusal(header: str, body: bytes, secret: bytes, now: float) -> str | None:
    """Why not to believe it, or None. The time is part of what is signed, so it cannot be changed either."""
    found = SIGNATURE.fullmatch(header)
    if found is None:
        return "no signature"
    wanted = hmac.new(secret, found[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    if not hmac.compare_digest(wanted, found[2]):  # in constant time: how far it fits must not be told
        return "wrong signature"
    return None if abs(now - int(found[1])) <= WINDOW else "too old"


class Receiver(BaseHTTPRequestHandler):
    timeout = 10  # seconds for a silent peer, its TLS handshake included
    seen: ClassVar[set[str]] = set()

    def setup(self) -> None:
        self.request.settimeout(self.timeout)
        self.request.do_handshake()
        super().setup()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", "0"))
        if length > LARGEST:
            return self.answer(413, "too large")
        body = self.rfile.read(length)
        why = refusal(self.headers.get("Delegator-Signature", ""), body, OPTIONS.secret, time.time())
        if why is not None:
            return self.answer(403, why)
        notification = json.loads(body)
        if notification["id"] not in self.seen:
            self.seen.add(notification["id"])
            print(json.dumps(notification), flush=True)
        return self.answer(204)

    def answer(self, status: int, why: str = "") -> None:
        self.send_response(status)
        if status != 204:  # 204 has no body, and no length (RFC 9110 section 8.6)
            self.send_header("Content-Length", str(len(why)))
        self.end_headers()
        self.wfile.write(why.encode())

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """At an IPv6 address too; `::` is everywhere, IPv4 included."""

    def __init__(self, place: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in place[0] else socket.AF_INET
        super().__init__(place, handler)

    def handle_error(self, _: object, address: tuple[str, int]) -> None:
        """One line for a peer that hangs up or speaks no TLS, instead of a traceback."""
        print(f"{address[0]}: {sys.exc_info()[1]!r}", file=sys.stderr)

    def server_bind(self) -> None:
        if self.address_family is socket.AF_INET6 and socket.has_dualstack_ipv6():
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--certificate", required=True, help="yours, with its issuer behind it (PEM)")
    parser.add_argument("--key", required=True)
    parser.add_argument("--secret-file", required=True, type=Path, help="the secret, on its only line")
    parser.add_argument("--host", default="::" if socket.has_dualstack_ipv6() else "0.0.0.0",  # noqa: S104
                        help="where to listen; built in is everywhere: the delegator comes from outside")
    parser.add_argument("--port", type=int, default=8443)
    found = parser.parse_args()
    found.secret = secret_in(found.secret_file)
    return found


def secret_in(path: Path) -> bytes:
    """What the delegator reads of such a file: one line, without its end, and without the mark that editors of Windows
    put in front of it."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        sys.exit(f"{path}: {error}")
    line = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not line.strip() or any(character < " " for character in line):
        sys.exit(f"{path} must hold the secret on one line, and nothing else")
    return line.encode()


if __name__ == "__main__":
    OPTIONS = options()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(OPTIONS.certificate, OPTIONS.key,
                            password=lambda: sys.exit(f"{OPTIONS.key} is encrypted, and nobody is asked for its pass "
                                                      "phrase; take it off: openssl pkey -in KEY -out NEW"))
    server = Server((OPTIONS.host, OPTIONS.port), Receiver)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(f"listening on port {server.server_address[1]}", file=sys.stderr, flush=True)
    server.serve_forever()
