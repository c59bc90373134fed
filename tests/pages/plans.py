"""What becomes of every code block of every page: which test runs it, which one proves it otherwise, or why none can.

The invariant: each block of each page has exactly one entry, found by how the block begins; an entry without a block is
an error, too. `Left` is for what a machine for tests cannot be, with the reason and with who answers for it instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from .reading import Block


@dataclass(frozen=True)
class Ran:
    """A scene in tests/pages runs it, and ends with a device activated."""

    test: str


@dataclass(frozen=True)
class Proven:
    """A sample, or something that is run elsewhere: file::test."""

    test: str


@dataclass(frozen=True)
class Left:
    """Not run."""

    because: str


How = Ran | Proven | Left
CUSTOMERS, CALLBACKS = Ran("test_customers"), Ran("test_callbacks")
PLAN: dict[str, dict[str, How]] = {
    "docs/customers.md": {
        "delegator policies add acme-rollout": CUSTOMERS,
        "openssl req -x509": CUSTOMERS,
        "delegator delegate serve": CUSTOMERS,
        "delegator delegate list": CUSTOMERS,
        "python3 examples/delegate_minimal.py": CUSTOMERS,
        "GET /provisioning": Proven("tests/pages/test_samples.py::test_the_fetch_of_the_page_is_what_a_device_sends"),
        "curl --silent": CUSTOMERS,
        "<?xml": Proven("tests/pages/test_samples.py::test_the_document_of_the_page_is_one_that_devices_take"),
        "mkdir -p provisioning": CUSTOMERS,
        "delegator customers add small": CUSTOMERS,
    },
    "docs/callbacks.md": {
        "delegator delegates add acme-server": CALLBACKS,
        "ssh-keygen": CALLBACKS,
        "delegator delegates scan-host-key": CALLBACKS,
        "delegator delegates add acme-hosted": CALLBACKS,
        "(umask 077": CALLBACKS,
        "server {": CALLBACKS,
        "install -m 755": CALLBACKS,
        "install -m 644": CALLBACKS,
        "<Credential": Proven("tests/pages/test_samples.py::test_the_answers_of_the_page_are_read"),
        '{"user_name"': Proven("tests/pages/test_samples.py::test_the_answers_of_the_page_are_read"),
    },
}


def place(block: Block) -> How:
    """The entry of a block. Raises LookupError where there is none, or more than one."""
    found = [how for start, how in PLAN.get(block.page, {}).items() if block.text.startswith(start)]
    if len(found) != 1:
        raise LookupError(f"{block.name}, which begins with {block.first_line!r}: {len(found)} entries in "
                          "tests/pages/plans.py; say there which test runs it")
    return found[0]
