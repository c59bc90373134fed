"""Fuzzers: every reader of strangers' bytes, with the law it must keep whatever the bytes are. `make fuzz` runs them.

Lives here: the table of targets, two ways to run them (hypothesis, and atheris where it is installed), and the corpus:
small files, each of which once led somewhere new. tests/test_fuzz.py runs the corpus with every suite.
Invariant: a target reads bytes and either returns or raises what its law forbids; it keeps nothing between two inputs.
Must not live here: examples of what is refused and why (tests/wire, tests/hostility.py).
"""

from delegator import engine

engine.load()
