"""What the pages only show is what is spoken, and every block of every page has its place in the plan."""

from __future__ import annotations

import ast
import base64
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from delegator import config
from delegator.callbacks.answers import credential_in
from delegator.delegate import provisioning
from delegator.device import fetching, options, reasons
from delegator.device.answers import Credential
from delegator.device.envelope import HttpAnswer, parse_xml
from delegator.device.messages import NAMESPACE

from . import plans
from .bases import block
from .reading import PAGES, ROOT, Block, blocks_of


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


SCENES = {name for path in Path(__file__).parent.glob("test_*.py") for name in functions(path)}


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_every_page_has_its_place_in_the_plan(page: str) -> None:
    """A block that nobody runs, and an entry without a block, are seen here, before anything slow is run."""
    blocks = blocks_of(page)
    for one in blocks:
        how = plans.place(one)
        if isinstance(how, plans.Ran):
            assert how.test in SCENES, one.name
        elif isinstance(how, plans.Proven):
            file, _, test = how.test.partition("::")
            assert test.rpartition("::")[2] in functions(ROOT / file), one.name
        else:
            assert len(how.because) > 40, one.name
    for start in plans.PLAN.get(page, {}):
        assert any(one.text.startswith(start) for one in blocks), f"{page} has no block that begins with {start!r}"


def test_the_plan_knows_only_pages_that_there_are() -> None:
    assert set(plans.PLAN) <= set(PAGES)


def test_a_block_that_nobody_knows_is_an_error() -> None:
    (one, *_) = blocks_of("docs/customers.md")
    with pytest.raises(LookupError, match="say there which test runs it"):
        plans.place(type(one)(one.page, 99, "", "sh", "rm -rf /\n"))


def test_the_fetch_of_the_page_is_what_a_device_sends(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = []
    monkeypatch.setattr(fetching, "exchange", lambda *words: sent.append(words) or HttpAnswer(404, None, b""))
    monkeypatch.setattr(fetching.tls, "delegate_context", lambda anchor: None)
    first, *headers = block("docs/customers.md", "GET /provisioning").splitlines()
    told = dict(line.split(": ", 1) for line in headers)
    user, _, password = base64.b64decode(told["Authorization"].split()[1]).decode().partition(":")
    with pytest.raises(reasons.Failure):
        fetching.fetch(f"https://{told['Host']}/provisioning", "", Credential(user, password, None), 5.0, print)
    ((peer, _, request, *_),) = sent
    assert first == f"{request.method} {request.target} HTTP/1.1"
    assert dict(request.headers) == {name: value for name, value in told.items() if name != "Host"}
    assert str(peer.address) == told["Host"]


def test_the_document_of_the_page_is_one_that_devices_take(tmp_path: Path) -> None:
    """The same holds for the example's, by the delegate's own check; and for the form that the page tells."""
    body = block("docs/customers.md", "<?xml").encode()
    assert parse_xml(body, reasons.DELEGATE_FAILED).tag == f"{{{NAMESPACE}}}Provisioning"
    assert provisioning._checked(body, "the page") == body
    provisioning.check(ROOT / "examples" / "delegate")


def test_the_answers_of_the_page_are_read() -> None:
    both = [credential_in(block("docs/callbacks.md", start).encode(), "ABC1234")
            for start in ("<Credential", '{"user_name"')]
    assert both[0] == both[1]
    assert (both[0].user_name, both[0].password.reveal()) == ("temp-ABC1234", "a & b")


def test_the_unit_of_the_page_starts_the_client() -> None:
    unit = block("docs/device-makers.md", "[Unit]")
    (line,) = re.findall(r"^ExecStart=(.*?)\n(?=\w|\n)", unit, re.DOTALL | re.MULTILINE)
    program = shlex.split(line.replace("\\\n", " "))
    at = program.index("activate")
    assert program[:at] == ["/usr/bin/python3", "-I", "-S", "/usr/lib/delegator-device.pyz"]
    assert options.settings(options.parser().parse_args(program[at:])).identity.service_tag == "ABC1234"


async def test_the_readiness_of_the_page_is_what_is_told() -> None:
    """Its members, and the words of what is wrong, as the code says them."""
    shown = json.loads(block("docs/watching.md", '{"ready"'))
    source = "".join((ROOT / "delegator" / name).read_text() for name in ("watching/ops.py", "watching/readiness.py"))
    assert all(f'"{name}"' in source for name in shown)
    (part, words), = shown["wrong"].items()
    assert f'"{part}"' in source
    assert "the revocation list ended at" in words


@pytest.mark.counterpart("promtool")
def test_the_scraping_of_the_page_is_taken_by_prometheus(tmp_path: Path) -> None:
    path = tmp_path / "prometheus.yml"
    path.write_text(block("docs/watching.md", "scrape_configs").replace(
        "/etc/prometheus", str(ROOT / "deploy" / "prometheus")))
    done = subprocess.run(["promtool", "check", "config", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


SETTINGS = [one for page in PAGES for one in blocks_of(page) if one.language == "toml"]


@pytest.mark.parametrize("one", SETTINGS, ids=lambda one: one.name)
def test_every_key_of_the_settings_on_a_page_is_one(one: Block, tmp_path: Path) -> None:
    """An unknown key is an error that names it; files are not looked for."""
    path = tmp_path / "delegator.toml"
    path.write_text(one.text)
    config.load(path, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
