"""A delegate as a Python function on the delegator's machine: a dict in, a dict out. Standard library and this folder.

Registered with `--local-python delegate:credential --program <this folder>`. An exception is a "no"; its text says why
in the delegator's log. What is printed goes there too, not to the device.
"""

import hashlib
import hmac
from datetime import UTC, datetime, timedelta
from pathlib import Path

SECRET = Path(__file__).with_name("secret")
"""Makes the passwords: head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' > secret; chmod 600 secret"""


def secret() -> bytes:
    """One line, without its end and without the mark that editors of Windows put in front of it."""
    text = SECRET.read_bytes().decode("utf-8-sig")
    line = text.removesuffix("\n").removesuffix("\r") if text.endswith("\n") else text
    if not line.strip() or any(character < " " for character in line):
        raise ValueError(f"{SECRET} must hold the secret on one line, and nothing else")
    return line.encode()


def credential(request: dict) -> dict:
    """The request has claim_id, service_tag, serial_number, mac_addresses, model, ip_address, host_name, domain and
    peer_address; all but the first two may be None. The same claim gets the same password."""
    password = hmac.new(secret(), request["claim_id"].encode(), hashlib.sha256).hexdigest()[:24]
    return {"user_name": f"setup-{request['service_tag']}", "password": password,
            "not_after": datetime.now(UTC) + timedelta(days=1)}
