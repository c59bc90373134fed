"""What becomes of every code block of every page: which test runs it, which one proves it otherwise, or why none can.

The invariant: each block of each page has exactly one entry, found by how the block begins (samples that begin alike
share theirs); an entry without a block is an error, too. `Left` is for what a machine for tests cannot be, with the
reason and with who answers for it instead.
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
CUSTOMERS, CALLBACKS, OPERATORS = Ran("test_customers"), Ran("test_callbacks"), Ran("test_operators")
POLICIES, CLAIMS, BILLING, AUDIT = Ran("test_policies"), Ran("test_claims"), Ran("test_billing"), Ran("test_audit")
PKI, DEVICES, ENROLMENT = Ran("test_pki"), Ran("test_device_makers"), Ran("test_enrolment")
NOTIFICATIONS, DOMAINS, SCALE = Ran("test_notifications"), Ran("test_domain_association"), Ran("test_scale")
CLIENTS = Ran("test_a3_each_client_of_the_page_is_refused_put_off_and_served")
KEYS = Proven("tests/pages/test_samples.py::test_every_key_of_the_settings_on_a_page_is_one")
LINES = Proven("tests/test_docs.py::test_every_line_of_the_integrators_page_works")
SPOKEN = Proven("tests/test_docs.py::test_the_samples_of_the_integrators_page_are_what_is_spoken")
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
    "docs/operators.md": {
        "python3 -m venv": Left("fetches all it is built on; what a wheel installs as: tests/test_supply.py"),
        "make wheel": Proven(
            "tests/test_supply.py::test_the_wheel_is_the_same_bytes_wherever_and_whenever_it_is_built"),
        "python -m pki init --name": OPERATORS,
        "delegator serve": OPERATORS,
        "delegator policies add rollout": OPERATORS,
        "delegator rules add berlin": OPERATORS,
        "delegator customers change acme": OPERATORS,
        "delegator rules add asia": OPERATORS,
        "cat > shipment.csv": OPERATORS,
        "cat > factory.csv": OPERATORS,
        "delegator devices show SN-11": OPERATORS,
        "delegator explain ABC1234": OPERATORS,
        "install -m 644 deploy": Left("needs a machine that systemd boots; units: tests/test_deploy.py"),
        "[server]\ncertificate": KEYS,
        "delegator backup": OPERATORS,
        "systemctl stop": Left("needs a machine that systemd boots; the scene stops it by SIGTERM, too"),
        "delegator restore": OPERATORS,
        "python -m pki server delegator --alt delegator.example.com --alt 127.0.0.1 --renew": OPERATORS,
        "delegator config new-key": OPERATORS,
        "[sealing]": OPERATORS,
        "delegator sealing rotate": OPERATORS,
        "python -m pki init --dir var/pki-2": OPERATORS,
        "[server]\nca": OPERATORS,
        "python -m pki server delegator --alt delegator.example.com --alt 127.0.0.1 --dir": OPERATORS,
        "cat var/pki-2/ca.crt": OPERATORS,
        "python -m pki device ABC1234": OPERATORS,
    },
    "docs/policies.md": {
        "delegator policies add rollout": POLICIES,
        "delegator policies add racks": POLICIES,
        "delegator policies try rollout": POLICIES,
    },
    "docs/claims.md": {
        "stateDiagram": Proven("tests/store/test_lifecycle.py::test_A4_the_page_of_claims_is_drawn_from_the_table"),
        "delegator devices return": CLAIMS,
        "delegator transfers offer": CLAIMS,
        "openssl genpkey": CLAIMS,
        "delegator transfers statement": CLAIMS,
        "delegator transfers show": CLAIMS,
        "python -m pki device ABC1234 --renew": CLAIMS,
    },
    "docs/billing.md": {
        "delegator plans add standard": BILLING,
        "delegator usage --month": BILLING,
        "CUSTOMER ": Proven("tests/cli/test_usage.py::test_A11_the_page_shows_what_the_commands_print"),
        "month,customer": Proven("tests/cli/test_usage.py::test_A11_the_page_shows_what_the_commands_print"),
        "delegator usage close": BILLING,
        "delegator usage reconcile": BILLING,
    },
    "docs/audit.md": {
        "delegator audit list": AUDIT,
        "delegator audit verify --head": AUDIT,
    },
    "docs/pki.md": {
        "python -m pki init --name": PKI,
        "python -m pki init --dir /secure/pki": PKI,
        "python -m pki server delegator.example.com --alt localhost --alt 127.0.0.1 --renew": PKI,
        "openssl req": PKI,
        "python -m pki device --from": PKI,
        "python -m pki revoke": PKI,
        "python -m pki show ABC1234": PKI,
        "cat issuing-1.crt": Left("python -m pki makes no such authorities; trees: tests/pki/test_trust.py"),
    },
    "docs/device-makers.md": {
        "python3 scripts/build_device.py": DEVICES,
        "#!/bin/sh": DEVICES,
        "python3 dist/delegator-device.pyz status": DEVICES,
        "openssl_conf": Proven("tests/device/test_tpm.py::test_the_configuration_of_the_page_is_the_one_tried"),
        "[Unit]": Proven("tests/pages/test_samples.py::test_the_unit_of_the_page_starts_the_client"),
    },
    "docs/enrolment.md": {
        "delegator explain": ENROLMENT,
        "python -m pki init": ENROLMENT,
        "[server]": ENROLMENT,
        "delegator enrolments list": ENROLMENT,
        "delegator enrolments export": ENROLMENT,
        "delegator claims contested": ENROLMENT,
    },
    "docs/notifications.md": {
        "pip install": NOTIFICATIONS,
        "[server]": NOTIFICATIONS,
        "delegator delegates add acme-small": NOTIFICATIONS,
        "delegator delegates add acme-hooks": NOTIFICATIONS,
        "delegator notifications list": NOTIFICATIONS,
        "openssl cms": NOTIFICATIONS,
        '{"type"': NOTIFICATIONS,
    },
    "docs/domain-association.md": {
        "7.2.0.192": Proven("tests/net/test_dns.py::test_a5_an_address_leads_to_the_longest_domain_with_a_delegate"),
        "[domains]": DOMAINS,
        "delegator policies add by-dns": DOMAINS,
    },
    "docs/scale.md": {
        "                       devices": Left("a drawing; tests/e2e/test_haproxy.py sets up what it shows"),
        "CREATE ROLE": SCALE,
        "[store]": SCALE,
        "synchronous_standby_names": Proven(
            "tests/store/engines/postgres/test_trouble.py::test_R_later_a_failover_to_a_standby_loses_nothing"),
        "SET delegator.customer": SCALE,
    },
    "docs/watching.md": {
        '{"ready"': Proven("tests/pages/test_samples.py::test_the_readiness_of_the_page_is_what_is_told"),
        "scrape_configs": Proven("tests/pages/test_samples.py::test_the_scraping_of_the_page_is_taken_by_prometheus"),
    },
    "docs/integrators.md": {
        "scripts/soap-call.sh": LINES,
        "user_name:": LINES,
        "cat > request.xml": LINES,
        "{\n": LINES,
        "import requests": CLIENTS,
        "<?php": CLIENTS,
        "curl --silent": CLIENTS,
        "using System": CLIENTS,
        "const fs": CLIENTS,
        "export PKCS12_PASSWORD": CLIENTS,
        "import java": CLIENTS,
        '<?xml version="1.0" encoding="utf-8"?>\n': SPOKEN,
    },
    "README.md": {
        "make demo": Left("these are the suite itself, and what .ci/run does after it; the demonstration runs below"),
        "  THE DEVICE": Left("a drawing of what every scene here goes through, from the device to its owner"),
        "curl": Ran("test_readme"),
        "<?xml": Proven("tests/test_docs.py::test_the_curl_line_of_the_readme_gives_the_answer_of_the_readme"),
    },
    "CONTRIBUTING.md": {
        "make venv": Left("the suite itself, in an environment that these commands have made before it could begin"),
    },
    "docs/schema.md": {
        "": Proven("tests/test_schema_page.py::test_A4_the_page_is_drawn_from_a_database_that_was_made_from_nothing"),
    },
    "docs/schema-postgres.md": {
        "": Proven("tests/test_schema_page.py::test_A4_so_is_that_of_postgresql"),
    },
    "docs/adding.md": {
        "make check": Left("the checks and a part of the suite themselves; test_ids.py looks at the files it names"),
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
