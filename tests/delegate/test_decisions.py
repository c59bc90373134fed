"""The delegate's pure parts: credentials, templates, attempts, settings, an entry's standing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from lxml import etree
from msgspec.structs import force_setattr

from delegator.delegate import access, credentials, provisioning
from delegator.delegate.access import allowed, read_basic
from delegator.delegate.entries import Entry, Standing
from delegator.delegate.settings import load
from delegator.errors import DelegatorError, Kind
from delegator.model import Device, Location, Result, Secret
from delegator.store.migrate import schema_files

ROOT = Path(__file__).parents[2]
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_credentials_fit_old_service_processors_and_differ():
    made = [credentials.compose(NOON) for _ in range(500)]
    assert len({one.user_name for one in made}) == len({one.password.reveal() for one in made}) == 500
    for one in made:
        word = one.password.reveal()
        assert one.user_name.startswith("p-")
        assert len(one.user_name) <= 16
        assert (len(word), word[0].isalpha(), word.isascii()) == (20, True, True)
        assert sum(character in credentials.SPECIAL for character in word) == 1
        assert all(any(test(character) for character in word) for test in (str.isupper, str.islower, str.isdigit))


def test_values_are_escaped_in_text_and_attributes_and_other_braces_stay():
    device = Device("SRV0001", None, (), "R1 (2)")
    force_setattr(device, "model", """<&>"']]>""")
    text = provisioning.filled("<a b='{model}' c=\"{model}\">{model}{serial}{0}{tag}</a>", device)
    root = etree.fromstring(text)
    assert (root.get("b"), root.get("c"), root.text) == (device.model, device.model, f"{device.model}{{0}}SRV0001")


def test_a_value_that_looks_like_a_mark_is_filled_in_once_at_most():
    device = Device("SRV0001", "SN1", (), "R1")
    force_setattr(device, "model", "{tag}")
    assert provisioning.filled("{model}", device) == "{tag}"


def test_the_example_and_the_built_in_template_are_in_order(tmp_path):
    provisioning.check(ROOT / "examples" / "delegate")


def test_a_folder_that_is_not_there_is_found_at_the_start(tmp_path):
    with pytest.raises(DelegatorError, match="not there: there is no such folder") as error:
        provisioning.check(tmp_path / "not there")
    assert "mkdir -p" in error.value.hint


def test_a_broken_template_is_found_at_the_start(tmp_path):
    (tmp_path / "default.xml").write_text("<Provisioning/>")
    with pytest.raises(DelegatorError, match="devices refuse it: the root element is Provisioning in no namespace"):
        provisioning.check(tmp_path)


def test_a_file_that_devices_would_not_read_is_broken(tmp_path, monkeypatch):
    monkeypatch.setattr(provisioning, "LARGEST", 64)
    text = f"<Provisioning xmlns='urn:delegator:provisioning:1'>{'x' * 64}</Provisioning>"
    (tmp_path / "SRV0001.xml").write_text(text)
    with pytest.raises(DelegatorError, match="larger than"):
        provisioning.document(tmp_path, Device("SRV0001"))


OURS = 'xmlns="urn:delegator:provisioning:1"'
NAMES = 2500
"""Different names of six letters, and a device takes no more than 2 473 of them."""


@pytest.mark.parametrize(("inside", "why"), [
    ("".join(f"<n{number:05}/>" for number in range(NAMES)), "too many different names: more than 262144 characters"),
    ("<e/>" + "".join(f'<e a{number:05}=""/>' for number in range(NAMES)), "too many different names"),
    ("<e>" * 200 + "</e>" * 200, "more than 200 elements inside each other"),
    (f'<e a="{"x" * 90_000}"/>', "markup of more than 65536 bytes in one piece"),
    (f'<e xmlns="{"x" * 257}"/>', "the name of a namespace has more than 256 characters"),
    ("<e " + " ".join(f'xmlns:p{number}="u{number}"' for number in range(501)) + "/>", "more than 500 prefixes"),
    ("<p:e/>", "the prefix p is declared nowhere")])
@pytest.mark.parametrize("name", ["SRV0001.xml", "default.xml"])
def test_what_devices_would_refuse_is_refused_where_it_is_read(tmp_path, inside, why, name):
    """Else it is served, and each device that has fetched it begins again and again."""
    (tmp_path / name).write_text(f"<Provisioning {OURS}>{inside}</Provisioning>")
    with pytest.raises(DelegatorError, match=f"{name}: devices refuse it: .*{why}") as error:
        provisioning.document(tmp_path, Device("SRV0001"))
    assert error.value.kind is Kind.CONFIGURATION


def test_what_devices_take_is_served(tmp_path):
    text = f"<Provisioning {OURS}>{''.join(f'<n{number:05}/>' for number in range(NAMES - 100))}</Provisioning>"
    (tmp_path / "SRV0001.xml").write_text(text)
    assert provisioning.document(tmp_path, Device("SRV0001")) == text.encode()


def test_basic_authentication_as_rfc_7617_has_it():
    assert read_basic("Basic dGVzdDoxMjPCow==") == access.Shown("test", Secret("123\u00a3"))
    assert read_basic("BASIC dTphOmI=") == access.Shown("u", Secret("a:b"))
    assert "123" not in repr(read_basic("Basic dGVzdDoxMjPCow=="))


def test_a_guess_is_under_its_user_and_its_address_and_no_name_is_longer_than_ours():
    assert allowed("x" * 10_000, "192.0.2.1") == {
        ("user", "x" * access.LONGEST): access.PER_USER, ("address", "192.0.2.1"): access.PER_ADDRESS}


@pytest.mark.parametrize(("changes", "standing"), [
    ({}, Standing.LEARNED), ({"fetched_at": NOON}, Standing.FETCHED), ({"result": Result.FAILED}, Standing.FAILED),
    ({"usable_until": NOON}, Standing.EXPIRED), ({"voided": True, "usable_until": NOON}, Standing.VOID),
    ({"result": Result.DEPLOYED, "usable_until": NOON}, Standing.DEPLOYED)])
def test_how_far_a_device_has_come(changes, standing):
    later = NOON + timedelta(hours=1)
    facts = {"usable_until": later, "voided": False, **changes}
    assert Entry("0" * 32, Device("SRV0001"), Location(), "p-1", NOON, later, **facts).standing(NOON) is standing


def test_settings_flags_win_over_environment_over_file(tmp_path):
    file = tmp_path / "delegate.toml"
    file.write_text('[delegate]\nport = 1\nhost = "a"\ndatabase = "d"\ndelegators = ["x"]\n')
    environment = {"DELEGATE_DELEGATE__PORT": "2", "DELEGATE_DELEGATE__HOST": "b", "DELEGATE_CONFIG": "ignored",
                   "DELEGATE_DELEGATE__DELEGATORS": "one.example, two.example", "DELEGATE_LOG__JSON": "true"}
    settings = load(file, environment, {"delegate": {"port": 3}})
    assert (settings.delegate.port, settings.delegate.host, settings.delegate.database) == (3, "b", "d")
    assert settings.delegate.delegators == ("one.example", "two.example")
    assert settings.log.json is True


@pytest.mark.parametrize(("text", "said"), [
    ("[delegate]\nprot = 1", "prot"), ("[delegate]\nport = 70000", r"\$.delegate.port"), ("[nothing]", "nothing"),
    ("[delegate]\ndelegators = 1", r"\$.delegate.delegators"), ("delegate = 1", r"\$.delegate"),
    ("[", "delegate.toml")])
def test_a_mistake_in_the_file_is_named_by_its_path(tmp_path, text, said):
    file = tmp_path / "delegate.toml"
    file.write_text(text)
    with pytest.raises(DelegatorError, match=said) as caught:
        load(file, {"DELEGATE_DELEGATE__HOST": "b"} if text == "delegate = 1" else {})
    assert caught.value.appearance.exit_code == 3


def test_the_example_settings_are_valid():
    settings = load(ROOT / "examples" / "delegate" / "delegate.toml", {})
    assert settings.delegate.delegators == ("delegator.example",)


def test_the_schema_is_the_delegates_own():
    assert [file.name for file in schema_files("sqlite", "delegator.delegate")] == ["0001_start"]
