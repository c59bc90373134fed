"""What OpenSSL must be told before it is loaded. Imported first, and only for that.

Two session tickets per connection, the library's default, cost 15 % of a handshake's CPU and serve nobody: we
never resume, because a resumed session would skip the checks of expiry and revocation. pyOpenSSL has no call to
switch the tickets of TLS 1.3 off; OpenSSL's own configuration file has (`NumTickets`), read once at load.
An operator's own OPENSSL_CONF is left alone.
Must not live here: anything that imports cryptography.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

CONFIGURATION = Path(__file__).with_name("openssl.cnf")
LIBRARY = "cryptography.hazmat.bindings._rust"
"""The module that OpenSSL comes with."""


def load(configuration: Path = CONFIGURATION) -> None:
    """Load OpenSSL with our settings; the variable is taken back, so that no child process inherits it."""
    if "OPENSSL_CONF" in os.environ or LIBRARY in sys.modules:
        return
    os.environ["OPENSSL_CONF"] = str(configuration)
    try:
        importlib.import_module(LIBRARY)
    finally:
        del os.environ["OPENSSL_CONF"]
