"""Settings: one tree, every key with a default, every mistake told with the path to it (R-settings)."""

from __future__ import annotations

from typing import get_args, get_type_hints

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.config import Limits, Log, Sealing, Server, Settings, Store, as_toml, load
from delegator.errors import DelegatorError, Kind


def written(folder, text: str | bytes):
    path = folder / "delegator.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(path, environment=()) -> DelegatorError:
    with pytest.raises(DelegatorError) as error:
        load(path, dict(environment))
    assert error.value.kind is Kind.CONFIGURATION
    return error.value


def test_R_settings_everything_has_a_default(tmp_path):
    assert load(None, {}) == load(written(tmp_path, ""), {}) == Settings()
    assert Settings().server.port == 4433


def test_R_settings_the_file_overrides_defaults_and_the_environment_the_file(tmp_path):
    path = written(tmp_path, "[server]\nport = 1\nhost = '::1'\n[log]\njson = false\n")
    settings = load(path, {"DELEGATOR_SERVER__PORT": "2", "DELEGATOR_LOG__JSON": "true",
                           "DELEGATOR_LIMITS__HANDSHAKE": "2.5"})
    assert (settings.server.port, settings.server.host, settings.log.json) == (2, "::1", True)
    assert settings.limits.handshake == 2.5
    assert settings.server.key == Server().key


def test_R_settings_variables_that_are_not_ours_change_nothing():
    ours = {"DELEGATOR_HOME": "/x", "SERVER__PORT": "1", "XDELEGATOR_SERVER__PORT": "1", "PATH": "__"}
    assert load(None, ours) == Settings()


@pytest.mark.parametrize(("text", "named"), [
    ("[server]\nprot = 1", ("prot", "$.server")),
    ("[sever]\nport = 1", ("sever",)),
    ("port = 1", ("port",)),
    ("[limits]\nidle = 'soon'", ("$.limits.idle",)),
    ("[limits]\nidle = 0", ("$.limits.idle",)),
    ("[limits]\nconnections = 0", ("$.limits.connections",)),
    ("[server]\nport = 65536", ("$.server.port",)),
    ("[server]\nport = -1", ("$.server.port",)),
    ("[server]\nhost = 5", ("$.server.host",)),
    ("[sealing]\nolder_key_files = 'one.key'", ("$.sealing.older_key_files",)),
    ("[sealing]\nolder_key_files = [1]", ("$.sealing.older_key_files[0]",)),
    ("server = 4433", ("$.server",)),
    ("[server.tls]\nport = 1", ("tls", "$.server"))])
def test_R_settings_a_mistake_is_told_with_the_file_and_the_path_to_the_key(tmp_path, text, named):
    path = written(tmp_path, text)
    error = refusal(path)
    assert [word for word in (str(path), *named) if word not in error.detail] == []
    assert error.hint


@pytest.mark.parametrize(("variable", "value", "named"), [
    ("DELEGATOR_SERVER__PROT", "1", "prot"), ("DELEGATOR_SEVER__PORT", "1", "sever"),
    ("DELEGATOR_SERVER__PORT", "many", "$.server.port"), ("DELEGATOR_SERVER__PORT", "", "$.server.port"),
    ("DELEGATOR_LOG__JSON", "perhaps", "$.log.json"), ("DELEGATOR_LOG__LEVEL", "verbose", "$.log.level"),
    ("DELEGATOR_SERVER__TLS__PORT", "1", "tls__port")])
def test_R_settings_a_mistake_in_the_environment_is_told_too(variable, value, named):
    assert named in refusal(None, {variable: value}).detail


def test_R_settings_a_variable_does_not_hide_that_a_section_is_no_table(tmp_path):
    assert "$.server" in refusal(written(tmp_path, "server = 4433"), {"DELEGATOR_SERVER__PORT": "1"}).detail


@pytest.mark.parametrize("text", ["[server", "port == 1", "[log]\nlevel = 'x", b"\xff\xfe", "[log]\n[log]\n"])
def test_R_settings_a_broken_file_is_named(tmp_path, text):
    path = written(tmp_path, text)
    error = refusal(path)
    assert error.detail.startswith(f"configuration {path}")
    assert error.hint


def test_R_settings_a_missing_file_is_named_with_the_way_to_write_one(tmp_path):
    error = refusal(tmp_path / "nowhere.toml")
    assert error.detail == f"configuration {tmp_path / 'nowhere.toml'}: No such file or directory"
    assert error.hint.startswith("write one with: delegator config write ")
    assert "is not a file but a folder" in refusal(tmp_path).detail


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12).filter(
    lambda text: not text.startswith("credential:"))  # which is read as the place of a file
seconds = st.floats(0.001, 3600)
trees = st.builds(
    Settings,
    server=st.builds(Server, host=texts, port=st.integers(0, 65535), certificate=texts, key=texts, url=texts),
    store=st.builds(Store, path=texts),
    sealing=st.builds(Sealing, key_file=texts, older_key_files=st.lists(texts, max_size=3).map(tuple)),
    limits=st.builds(Limits, handshake=seconds, idle=seconds, connections=st.integers(1, 10**9)),
    log=st.builds(Log, level=st.sampled_from(get_args(get_type_hints(Log)["level"])), json=st.booleans()))


@given(trees)
def test_R_settings_what_is_shown_is_read_back_the_same(tmp_path_factory, settings):
    path = written(tmp_path_factory.getbasetemp(), as_toml(settings))
    assert load(path, {}) == settings


@pytest.mark.parametrize("section", Settings.__struct_fields__)
def test_R_settings_every_key_can_be_set_by_its_variable(section):
    """For each key of each section: set to its own default in words, nothing changes."""
    values = msgspec.to_builtins(getattr(Settings(), section))
    for key, value in values.items():
        if not isinstance(value, list | tuple | dict) and value is not None:
            said = str(value).lower() if isinstance(value, bool) else str(value)
            assert load(None, {f"DELEGATOR_{section}__{key}".upper(): said}) == Settings()
