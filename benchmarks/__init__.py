"""Measurements of the delegator beside others, on one machine, in one run. See docs/performance.md."""
