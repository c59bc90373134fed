"""Secrets at rest: sealed for one row under one key, opened nowhere else (R-sealed)."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from delegator.errors import DelegatorError, Kind
from delegator.sealing import ID_BYTES, SealingKey, create_key_file, read_key_file

OLD, NEW = b"o" * 32, b"n" * 32
KEY = SealingKey(NEW)
TEXT, ROW = "user root, password <&>\"' correct horse", "claims/0123"
SEALED = KEY.seal(TEXT, ROW)
texts = st.text(st.characters(exclude_categories=["Cs"]))


def closed(key: SealingKey, sealed: bytes, row: str, kind: Kind = Kind.UNAVAILABLE) -> DelegatorError:
    with pytest.raises(DelegatorError) as refusal:
        key.open(sealed, row)
    assert refusal.value.kind is kind
    assert TEXT not in refusal.value.detail
    return refusal.value


@given(texts, texts)
def test_R_sealed_what_is_sealed_opens_for_its_row(text, row):
    assert KEY.open(KEY.seal(text, row), row) == text


@given(texts, texts)
def test_R_sealed_copied_to_another_row_it_does_not_open(row, other):
    assume(row != other)
    assert "moved from another row" in closed(KEY, KEY.seal(TEXT, row), other).detail


@given(st.integers(0, len(SEALED) - 1), st.integers(1, 255))
def test_R_sealed_any_changed_byte_closes_it(place, change):
    kind = Kind.CONFIGURATION if place < ID_BYTES else Kind.UNAVAILABLE  # then it names another key
    closed(KEY, SEALED[:place] + bytes([SEALED[place] ^ change]) + SEALED[place + 1:], ROW, kind)


@pytest.mark.parametrize("length", [0, 1, 4, 5, 15, 16, 31, len(SEALED) - 1])
def test_R_sealed_cut_off_anywhere_it_stays_closed_and_says_so(length):
    closed(KEY, SEALED[:length], ROW)


def test_R_sealed_a_rotated_key_seals_with_the_new_and_opens_the_old():
    rotated, before = SealingKey(NEW, OLD), SealingKey(OLD)
    assert rotated.open(before.seal(TEXT, ROW), ROW) == TEXT
    assert KEY.open(rotated.seal(TEXT, ROW), ROW) == TEXT
    error = closed(KEY, before.seal(TEXT, ROW), ROW, Kind.CONFIGURATION)
    assert "unknown key" in error.detail
    assert "older_key_files" in error.hint


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=8))
def test_R_sealed_nothing_of_the_text_nor_of_the_key_stands_in_what_is_sealed(text):
    sealed = KEY.seal(text, ROW)
    assert text.encode() not in sealed
    assert NEW[:8] not in sealed
    assert len(sealed) == len(text.encode()) + 4 + 12 + 16


def test_R_sealed_no_two_seals_share_a_nonce():
    sealed = [KEY.seal(TEXT, ROW) for _ in range(1000)]
    assert len({one[4:16] for one in sealed}) == 1000
    assert len({one[:4] for one in sealed}) == 1


def test_R_sealed_a_key_does_not_show_itself():
    assert "nnnn" not in repr(KEY) + str(vars(KEY))


# --- the key's file -----------------------------------------------------------------------------------------------


def test_R_sealed_a_new_key_is_random_private_and_never_overwritten(tmp_path):
    path, other = tmp_path / "sealing.key", tmp_path / "other.key"
    umask = os.umask(0)
    try:
        create_key_file(path)
        create_key_file(other)
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(read_key_file(path)) == 32
    assert read_key_file(path) != read_key_file(other)
    before = path.read_bytes()
    with pytest.raises(FileExistsError):
        create_key_file(path)
    assert path.read_bytes() == before


def refusal_of(path) -> DelegatorError:
    with pytest.raises(DelegatorError) as refusal:
        read_key_file(path)
    assert refusal.value.kind is Kind.CONFIGURATION
    assert str(path) in refusal.value.detail
    return refusal.value


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o610, 0o601])
def test_R_sealed_a_key_that_others_can_touch_is_refused_with_the_remedy(tmp_path, mode):
    path = tmp_path / "sealing.key"
    create_key_file(path)
    path.chmod(mode)
    assert refusal_of(path).hint == f"chmod 600 {path}"
    path.chmod(0o400)
    assert read_key_file(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"short", b"QUJD", b"\xff" * 44, b"A" * 44, b"not base64 !!" * 4,
                                     b"QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFB\nQUFB"])
def test_R_sealed_what_is_not_32_bytes_in_base64_is_no_key_and_is_not_repeated(tmp_path, content):
    path = tmp_path / "sealing.key"
    path.write_bytes(content)
    path.chmod(0o600)
    error = refusal_of(path)
    assert error.detail.startswith(f"sealing key {path}")
    assert not content.strip() or content.decode("latin-1") not in error.detail + error.hint


def test_R_sealed_a_missing_key_is_refused_with_the_way_to_make_one(tmp_path):
    assert "new-key" in refusal_of(tmp_path / "nowhere.key").hint
    refusal_of(tmp_path)
