"""A2: the table of profiles says what each kind of certificate is for."""

from __future__ import annotations

import pytest

from pki import DEVICE, FACTORY_CA, PROFILES, PkiError
from pki.profiles import LEAVES, AltNames, profile_named


def test_a2_the_table_has_the_seven_kinds() -> None:
    assert list(PROFILES) == ["factory-ca", "delegator-server", "delegate-server", "delegate-client", "shared-device",
                              "device", "mail-signer"]  # fmt: skip


def test_a2_every_leaf_has_one_purpose_signs_and_never_certifies() -> None:
    for row in LEAVES:
        assert len(row.purposes) == 1
        assert row.key_usage == {"digital_signature"}
        assert not row.is_authority


def test_a2_device_and_shared_certificates_carry_nothing_but_a_common_name_and_are_stored_alone() -> None:
    for name in ("device", "shared-device"):
        assert PROFILES[name].alt_names is AltNames.NONE
        assert not PROFILES[name].whole_chain


def test_a2_nothing_outlives_the_authority_it_needs() -> None:
    assert all(row.lifetime < FACTORY_CA.lifetime for row in LEAVES)
    assert DEVICE.lifetime.days == 20 * 365


def test_a2_no_two_kinds_share_a_folder() -> None:
    assert len({row.folder for row in LEAVES}) == len(LEAVES)


def test_a2_an_unknown_profile_is_named_with_the_choices() -> None:
    with pytest.raises(PkiError, match="choose one of factory-ca"):
        profile_named("root")
