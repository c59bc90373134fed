"""What lies in deploy/: units that systemd accepts, a board and alerts that Prometheus can read. A10.

That their metrics are really exported is shown in tests/e2e/test_watching.py, by a delegator that serves devices.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from delegator.config import Settings
from delegator.net.systemd import DEVICES

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
UNITS = DEPLOY / "systemd"
ALLOCATOR = Path("delegator.service.d") / "allocator.conf"
"""Beside the unit where its library is."""
RULES, BOARD = DEPLOY / "prometheus" / "delegator.rules.yml", DEPLOY / "grafana" / "delegator.json"
MOST_EXPOSED = {"delegator.service": 1.5, "delegator-backup.service": 1.0}
"""As systemd-analyze counts it: 10 is a service without any bounds, a usual one has 9."""


def lines_of(unit: str) -> list[tuple[str, str]]:
    text = (UNITS / unit).read_text(encoding="utf-8")
    return [(key, value) for key, _, value in (line.partition("=") for line in text.splitlines()
                                               if line and line[0] not in "#[")]


# --- systemd ------------------------------------------------------------------------------------------------------


@pytest.mark.counterpart("systemd-analyze")
@pytest.mark.parametrize("allocator", [False, True], ids=["as it is", "with the allocator"])
def test_systemd_accepts_the_units(tmp_path: Path, allocator: bool) -> None:
    """Every line is understood; the program that they start is one that is there."""
    if allocator:
        shutil.copytree(UNITS / ALLOCATOR.parent, tmp_path / ALLOCATOR.parent)
    program = tmp_path / "delegator"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for unit in UNITS.glob("delegator*.*"):
        if unit.suffix in (".service", ".socket", ".timer"):
            (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/delegator/bin/delegator", str(program)))
    units = sorted(str(path) for path in tmp_path.glob("delegator*.*") if path.is_file())
    assert len(units) == 4
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", *units], capture_output=True, text=True,
                          timeout=60, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.counterpart("systemd-analyze")
@pytest.mark.parametrize("unit", MOST_EXPOSED)
def test_the_services_are_bounded(unit: str) -> None:
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNITS / unit)],
                          capture_output=True, text=True, timeout=60, check=True)
    (exposure,) = re.findall(r"exposure level for \S+: ([\d.]+)", done.stdout)
    assert float(exposure) <= MOST_EXPOSED[unit], done.stdout


def test_the_units_fit_the_program() -> None:
    """Names and times that both sides know."""
    service, socket_unit = dict(lines_of("delegator.service")), dict(lines_of("delegator.socket"))
    assert service["Type"] == "notify"
    assert service["ExecStart"].split()[1:] == ["--config", "/etc/delegator/delegator.toml", "serve"]
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert float(service["TimeoutStopSec"]) > Settings().limits.drain
    assert int(service["LimitNOFILE"]) > Settings().limits.connections
    assert socket_unit["FileDescriptorName"] == DEVICES
    assert socket_unit["ListenStream"] == str(Settings().server.port)
    assert socket_unit["Accept"] == "no"


def test_the_allocator_is_no_part_of_the_unit_itself() -> None:
    """A machine without the library has no line about it in its journal."""
    assert "LD_PRELOAD" not in (UNITS / "delegator.service").read_text()
    assert lines_of(str(ALLOCATOR)) == [("Environment", "LD_PRELOAD=libmimalloc.so.2")]


def test_every_key_that_is_handed_over_is_named_in_the_manual() -> None:
    manual = (ROOT / "docs" / "operators.md").read_text(encoding="utf-8")
    names = [value.split(":")[0] for key, value in lines_of("delegator.service") if key == "LoadCredential"]
    assert len(names) == 3
    for name in names:
        assert f'"credential:{name}"' in manual


# --- Prometheus and Grafana ---------------------------------------------------------------------------------------


def expressions() -> dict[str, str]:
    """Every query of the board and the alerts, by where it stands."""
    board = json.loads(BOARD.read_text(encoding="utf-8"))
    found = {f"board, {panel['title']}, {target['refId']}": target["expr"]
             for panel in board["panels"] for target in panel["targets"]}
    for query in (one["query"] for one in board["templating"]["list"] if one["type"] == "query"):
        found[f"board, {query}"] = query
    rules = re.split(r"^ +- alert: ", RULES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for rule in rules:
        name, text = rule.split("\n", 1)
        (found[f"alert {name}"],) = re.findall(r"^ +expr: (?:>-\n)?(.*?)(?=^ +(?:for|labels):)", text,
                                               re.DOTALL | re.MULTILINE)
    return found


def selectors(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics in a query, each with the labels that are asked of it."""
    for name, labels in re.findall(r"\b((?:delegator|process)_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)\s*[=!]", labels)) - {"instance", "job"}


def test_the_board_and_the_alerts_ask_for_labels_by_name() -> None:
    assert len(expressions()) > 35
    for where, expression in expressions().items():
        assert list(selectors(expression)) or expression.startswith('up{job="delegator"}'), where


@pytest.mark.counterpart("promtool")
def test_prometheus_accepts_the_alerts() -> None:
    done = subprocess.run(["promtool", "check", "rules", str(RULES)], capture_output=True, text=True, timeout=30,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_says_what_to_do() -> None:
    rules = re.split(r"^ +- alert: ", RULES.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for rule in rules:
        assert re.search(r"^ +severity: |labels: \{severity: (page|ticket)\}", rule, re.MULTILINE), rule
        assert "summary: " in rule
        assert "action: " in rule
