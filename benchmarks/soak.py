"""Whether the delegator stays as it is under load and faults: `make soak`, explained in docs/performance.md.

The invariant: OpenSSL is loaded with the load client's settings, and no server we start inherits them.
Must not live here: the soak itself (benchmarks.soaking).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Soak the tree this file lies in, wherever the command is called from."""
    sys.path[0] = str(HERE.parent)
    os.environ["OPENSSL_CONF"] = str(HERE / "openssl-client.cnf")
    import cryptography.hazmat.bindings._rust  # noqa: F401 - loads OpenSSL
    del os.environ["OPENSSL_CONF"]
    from benchmarks import soaking

    return soaking.main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
