"""A2: `pki show` describes what is there, as openssl sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pki import Folder, Kind, PkiError, show


def test_a2_the_description_agrees_with_openssl(folder: Folder, openssl: Callable[..., str]) -> None:
    made = folder.issue("delegator-server", "d.example.com", names=["127.0.0.1"])
    described = show.describe(made.certificate_path)[0]
    text = openssl("x509", "-in", made.certificate_path, "-noout", "-fingerprint", "-sha256", "-serial")
    assert str(described["sha256"]).upper() in text
    assert str(described["serial"]).upper() in text
    assert described["names"] == ["d.example.com", "127.0.0.1"]
    assert described["key"] == "ECDSA secp256r1"


def test_a2_names_and_files_and_lists_are_found(folder: Folder, tmp_path: Path) -> None:
    made = folder.issue("device", "ABC1234")
    assert show.locate(folder, "ABC1234") == made.certificate_path
    assert show.locate(folder, "ca") == folder.ca_path
    assert show.describe(show.locate(folder, "crl"))[0]["revoked"] == 0


@pytest.mark.parametrize("word", ["nobody", "../ca", "a\0b", "/etc/passwd"])
def test_a2_a_name_that_nothing_has_is_told(folder: Folder, word: str) -> None:
    with pytest.raises(PkiError) as caught:
        show.locate(folder, word)
    assert caught.value.kind is Kind.FAILED


def test_a2_a_name_that_two_kinds_have_is_asked_about(folder: Folder) -> None:
    folder.issue("delegator-server", "d.example.com")
    folder.issue("delegate-client", "d.example.com")
    with pytest.raises(PkiError, match="ambiguous; name one of"):
        show.locate(folder, "d.example.com")


def test_a2_a_key_file_is_not_shown(folder: Folder) -> None:
    made = folder.issue("device", "ABC1234")
    assert made.key_path is not None
    with pytest.raises(PkiError, match="holds no certificate") as caught:
        show.describe(made.key_path)
    assert "PRIVATE" not in str(caught.value)


@pytest.mark.parametrize("form", ["0A:bc", "0x0abc", "abc", "0ABC"])
def test_a2_a_serial_may_be_written_as_programs_print_it(form: str) -> None:
    assert show.serials(form) == ["0abc"]
