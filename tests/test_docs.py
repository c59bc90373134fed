"""The pages are true: their commands run, their tables equal the code's, their links lead somewhere, all tests exist.

What must be run against a delegator is run against the demonstration, which is what the pages tell readers to start.
"""

from __future__ import annotations

import ast
import configparser
import contextlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from click.testing import CliRunner

from delegator.cli import NOUNS
from delegator.cli import main as command
from delegator.config import Settings
from delegator.errors import APPEARANCES, DelegatorError, Kind
from delegator.watching.metrics import Metrics
from delegator.wire import messages, soap

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXT = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
README, INTEGRATORS = TEXT["README.md"], TEXT["docs/integrators.md"]
NS = "{urn:delegator:provisioning:1}"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def rows(text: str, heading: str, columns: int) -> list[list[str]]:
    """The cells of the table below a heading."""
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ")[0]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines()
             if line.startswith("|")]
    assert all(len(line) == columns for line in lines), [line for line in lines if len(line) != columns]
    return lines[2:]


def shape(element: ElementTree.Element) -> tuple[Any, ...]:
    return element.tag, tuple(shape(child) for child in element)


def anchor(heading: str) -> str:
    """As forges make it: lower case, punctuation dropped, blanks to dashes."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


# --- every page ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", TEXT)
def test_every_link_inside_the_project_leads_somewhere(page: str) -> None:
    prose = re.sub(r"^```.*?^```", "", TEXT[page], flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if target.startswith("https://"):
            continue
        name, _, place = target.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if place:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert place in map(anchor, headings), f"{page}: {target}"


def test_every_page_is_found_from_the_readme() -> None:
    """Nobody has to list a folder to find a page."""
    seen, left = set(), ["README.md"]
    while left:
        page = left.pop()
        seen.add(page)
        for target in re.findall(r"\]\(([^)#\s]+\.md)[^)]*\)", TEXT[page]):
            if not target.startswith("https://"):
                path = ((ROOT / page).parent / target).resolve()
                left += [name for name in [str(path.relative_to(ROOT))] if name not in seen]
    assert seen == set(TEXT)


def test_no_package_registry_is_named_anywhere() -> None:
    """Where packages come from is the machine's business: a mirror must do as well."""
    hosts = ["py" + "pi.org", "python" + "hosted.org", "np" + "mjs.", "docker" + ".io", "qu" + "ay.io", "gh" + "cr.io",
             "crates" + ".io", "proxy.go" + "lang.org", "rubygems" + ".org", "repo1." + "maven", "anaconda" + ".org"]
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True,
                             check=False).stdout.splitlines()
    files = [ROOT / name for name in tracked] or PAGES
    for path in files:
        if path.is_file():
            text = path.read_bytes().decode("utf-8", "replace")
            assert not [host for host in hosts if host in text], path


def test_every_command_in_a_page_exists() -> None:
    """`make X`, `delegator NOUN VERB` and their options, wherever they are shown."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    helps: dict[str, str] = {}
    for page, text in TEXT.items():
        code = "\n".join([*blocks(text, "[a-z]*"), *re.findall(r"`([^`\n]+)`", text)]).replace("\\\n", " ")
        assert set(re.findall(r"^make ([a-z-]+)", code, re.MULTILINE)) <= targets, page
        for words in re.findall(r"^(?:\$ )?delegator ((?:[a-z-]+ ?){1,2})", code, re.MULTILINE):
            noun = words.split()[0]
            assert noun in NOUNS, f"{page}: delegator {words}"
            helps.setdefault(noun, CliRunner().invoke(command, [noun, "--help"]).output)
            assert "Usage:" in helps[noun]


# --- the first screen ---------------------------------------------------------------------------------------------


def test_the_readme_begins_with_what_it_is_and_the_two_commands() -> None:
    what, commands = README.split("```sh\n", 1)
    sentences = re.findall(r"[.!](?=\s|$)", what.split("\n", 1)[1])
    assert len(sentences) == 3
    assert commands.splitlines()[0].startswith("make demo ")
    assert commands.splitlines()[1].startswith("make test ")
    for makes in ("demo", "test"):
        assert re.search(rf"^{makes}:.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """`make demo ARGS=--keep` as the README says it, in a folder of its own and on a free port."""
    root = tmp_path_factory.mktemp("readme")
    with (root / "words").open("w") as words, subprocess.Popen(
            [sys.executable, "-m", "delegator", "demo", "--keep", "--json", "--port", "0"], cwd=root, stderr=words,
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, (root / "words").read_text()
            yield root, json.loads(line)
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()


def run(line: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    tools = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(["/bin/sh", "-c", line], cwd=cwd, capture_output=True, text=True, check=False, timeout=30,
                          env={**os.environ, "PATH": tools})


@pytest.mark.counterpart("curl")
def test_the_curl_line_of_the_readme_gives_the_answer_of_the_readme(
        demonstration: tuple[Path, dict[str, Any]]) -> None:
    """Word for word but for the port; the answer has the same elements in the same order, twice the same."""
    root, scene = demonstration
    (line,) = (block for block in blocks(README, "sh") if block.startswith("curl "))
    (printed,) = blocks(README, "xml")
    line = line.replace(":4433", f":{scene['delegator']['port']}")
    first, second = (run(line, root).stdout for _ in range(2))
    assert first == second
    assert shape(ElementTree.fromstring(first.encode())) == shape(ElementTree.fromstring(printed.encode()))
    stranger = run(line.replace("ACMESRV02", "NOBODY002"), root).stdout
    assert "<d:Code>NotEntitled</d:Code>" in stranger
    other = run(line.replace("devices/ACMESRV02", "devices/NOBODY002"), root).stdout
    assert "<d:Code>IdentityRejected</d:Code>" in other
    time.sleep(0.1)  # lines of handshakes come a moment after them
    assert "not registered" in (root / "var" / "demo" / "delegator.log").read_text(), "the reason stands in the log"


def test_the_demonstration_prints_the_line_of_the_readme(demonstration: tuple[Path, dict[str, Any]]) -> None:
    root, scene = demonstration
    (line,) = (block for block in blocks(README, "sh") if block.startswith("curl "))
    wanted = line.replace("\\\n", " ").replace("var/demo", str(root / "var" / "demo")).replace(
        ":4433", f":{scene['delegator']['port']}")
    told, until = "", time.monotonic() + 15
    while "Ctrl-C ends" not in told and time.monotonic() < until:
        time.sleep(0.05)
        told = (root / "words").read_text()
    (printed,) = (words for words in told.splitlines() if words.strip().startswith("curl "))
    assert sorted(shlex.split(printed)) == sorted(shlex.split(wanted))


# --- the integrators' page ----------------------------------------------------------------------------------------


@pytest.fixture
def integrator(demonstration: tuple[Path, dict[str, Any]], tmp_path: Path) -> tuple[Path, str]:
    """A folder with the files the page speaks of, and the page with this delegator's name, port and a tag in it."""
    _, scene = demonstration
    own = scene["devices"][0]
    for name, source in (("device.crt", own["cert"]), ("device.key", own["key"]),
                         ("factory-ca.crt", scene["delegator"]["ca"])):
        shutil.copy(source, tmp_path / name)
    page = INTEGRATORS.replace("delegator.example.com:4433", f"localhost:{scene['delegator']['port']}").replace(
        "delegator.example.com", "localhost").replace("ABC1234", own["tag"])
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    return tmp_path, page.replace("scripts/soap_call.py", f"{sys.executable} scripts/soap_call.py")


@pytest.mark.counterpart("curl", "openssl")
def test_every_line_of_the_integrators_page_works(integrator: tuple[Path, str]) -> None:
    folder, page = integrator
    ran = blocks(page.split("\n## A client in your language\n")[0], "sh")  # the rest: tests/pages/test_stacks.py
    assert len(ran) == 3
    users = set()
    for block in ran:
        done = run("set -e\n" + block, folder)
        assert done.returncode == 0, (block, done.stderr)
        users |= set(re.findall(r"(?:user_name: |\"user_name\": \"|<UserName>)([\w-]+)", done.stdout))
    assert len(users) == 1, "all of them get the same answer"
    (python,) = blocks(page, "python")
    done = subprocess.run([sys.executable, "-c", python], cwd=folder, capture_output=True, text=True, check=False,
                          timeout=30)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] in users


def test_the_samples_of_the_integrators_page_are_what_is_spoken() -> None:
    """Each sample is read by the product, and the faults are those it writes."""
    answer, late, refused, question, reply = (
        block.replace("...\n", "") for block in blocks(INTEGRATORS, "xml"))
    (asked,) = re.findall(r"<<'END'\n(.*?)END\n", INTEGRATORS, re.DOTALL)
    request = soap.parse(asked.encode()).operation
    assert messages.read(request, messages.Service.DELEGATOR)
    assert messages.read_answer(request, soap.parse(answer.encode()).operation)
    asks_delegate = soap.parse(question.encode()).operation
    assert messages.read(asks_delegate, messages.Service.DELEGATE)
    assert messages.read_answer(asks_delegate, soap.parse(reply.encode()).operation)
    faults = (soap.Version.V11, Kind.TRY_LATER, late), (soap.Version.V12, Kind.NOT_ENTITLED, refused)
    for version, kind, sample in faults:
        written = soap.render_fault(version, soap.fault_of(DelegatorError(kind, "x"))).decode()
        assert written.replace("\n", "") == sample.replace("\n", "")


def test_the_table_of_faults_is_the_products() -> None:
    kinds = (Kind.MALFORMED, Kind.IDENTITY, Kind.NOT_ENTITLED, Kind.TRY_LATER, Kind.UNAVAILABLE)
    told = {row[0]: row[1:5] for row in rows(INTEGRATORS, "Faults", 6)}
    assert {look.fault for look in APPEARANCES.values()} == {name.strip("`") for name in told}
    for kind in kinds:
        look = APPEARANCES[kind]
        fault = soap.Fault(look.fault, look.message)
        statuses = ", ".join(str(soap.http_status(version, fault)) for version in soap.Version)
        later = "" if look.retry_after is None else str(look.retry_after)
        assert told[f"`{look.fault}`"] == [look.message, later, statuses, str(look.exit_code)]


def test_the_integrators_page_names_every_operation() -> None:
    for operation in messages.OWN.operations:
        assert operation.name in INTEGRATORS
        for part in operation.request.parts:
            assert part.name in INTEGRATORS, f"{operation.name}/{part.name}"


# --- tables -------------------------------------------------------------------------------------------------------


def packages(listed: str) -> set[str]:
    return set(re.findall(r"^([\w-]+)", listed, re.MULTILINE))


def test_the_dependencies_are_those_of_setup_cfg() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = {extra: packages(listed) for extra, listed in setup["options.extras_require"].items()}
    dev = extras.pop("dev")
    optional = set().union(*extras.values())
    wanted = {"At run time": packages(setup["options"]["install_requires"]), "Optional": optional,
              "For development": dev - optional}
    for heading, names in wanted.items():
        table = rows(TEXT["docs/dependencies.md"], heading, 4)
        assert [row[0] for row in table] == sorted(names)
        assert all(all(row) for row in table), "each has a licence, a reason, and something it was chosen over"
    pinned = {re.sub("[-_]+", "-", line.split("==")[0].lower())
              for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")}
    assert set().union(*wanted.values()) <= pinned


def test_the_manual_has_every_setting_in_its_section() -> None:
    """In the table of keys, whose rows name the section where it begins; and no key that there is not."""
    table = TEXT["docs/operators.md"].split("| key | built in | meaning |\n|---|---|---|\n")[1].split("\n\n")[0]
    said, section = [], ""
    for line in table.splitlines():
        words = re.findall(r"`([^`]+)`", line.split("|")[1])
        section = words.pop(0).strip("[]") if words[0].startswith("[") else section
        said += [(section, key) for key in words]
    assert sorted(said) == sorted((name, key) for name, keys in msgspec.to_builtins(Settings()).items() for key in keys)


def test_the_page_of_watching_has_every_metric() -> None:
    page = TEXT["docs/watching.md"].split("\n## Metrics\n")[1].split("\n## ")[0]
    ours = [one for one in Metrics().registry.collect() if one.name.startswith("delegator_")]
    names = {one.name + {"counter": "_total", "info": "_info"}.get(one.type, "") for one in ours}
    assert len(names) > 20
    assert sorted(name for name in names if f"| `{name}` |" not in page) == []


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_mission_names_tests_that_exist_and_every_element_once() -> None:
    page = TEXT["docs/mission.md"]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines()
             if re.match(r"\| [A-D]\d", line)]
    ids = [row[0] for row in table]
    wanted = [f"A{n}" for n in range(1, 14)] + [f"B{n}" for n in range(1, 7)] + [f"C{n}" for n in range(1, 6)] + [
        f"D{n}" for n in range(1, 10)]
    assert sorted(ids) == sorted([one for one in wanted if one != "A7"] + ["A7a", "A7b", "A7c", "A7d"])
    known: dict[str, set[str]] = {}
    for name, _, state, proof in table:
        tests = re.findall(r"`([\w/.]+)::(\w+)`", proof)
        assert re.fullmatch(r"done|partly: .+|not yet", state), name
        assert bool(tests) is (state != "not yet"), name
        for file, test in tests:
            assert test in known.setdefault(file, functions(ROOT / file)), f"{name}: {file}::{test}"


def test_the_decisions_are_numbered_and_listed() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("0*.md"))
    assert [int(path.name[:4]) for path in records] == list(range(1, len(records) + 1))
    index = TEXT["docs/adr/README.md"]
    for path in records:
        text = path.read_text(encoding="utf-8")
        assert f"]({path.name})" in index
        assert text.startswith(f"# {int(path.name[:4])}. ")
        assert all(f"**{part}.**" in text for part in ("Context", "Decision", "Consequence"))


def test_the_licence_is_the_one_that_setup_cfg_names() -> None:
    assert "license = Apache-2.0" in (ROOT / "setup.cfg").read_text()
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
