"""A delegator that believes a clock sooner than after the product's minute. For tests of what it does then.

Usage: believing.py SECONDS [arguments of `delegator`]. The product has no such switch: its constant is set from
outside, before anybody reads it. How long a minute is, is proven with a clock that is told the time
(tests/clockwork/test_clocks.py), and by these tests with THOROUGH in the environment.
"""

from __future__ import annotations

import sys

from delegator import engine
from delegator.clockwork import clocks

if __name__ == "__main__":
    engine.load()
    clocks.STOOD = float(sys.argv.pop(1))
    from delegator.cli import main
    main()
