"""Measurements of the delegator beside others, on one machine, in one run. See docs/performance.md.

The invariant: OpenSSL is loaded with the load client's settings, and no server we start inherits them.
"""

from __future__ import annotations

from pathlib import Path

from delegator import engine

engine.load(Path(__file__).with_name("openssl-client.cnf"))
