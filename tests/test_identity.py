"""Identity before anything: what a certificate proves about the device that shows it (R-identity, R-bound, A2, A3)."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from delegator.errors import DelegatorError, Kind
from delegator.identity import SHARED_NAME, binding, identify, secret_binding
from delegator.model import SERVICE_TAG, IdentityKind, PeerCertificate, Secret

TAG, SECRET = "ABC1234", Secret("0123456789abcdef")


def certificate(*names: str, key: str = "aa" * 32) -> PeerCertificate:
    return PeerCertificate(names, 7, key)


def refused(shown: PeerCertificate | None, tag: str = TAG) -> str:
    with pytest.raises(DelegatorError) as refusal:
        identify(shown, tag, SECRET)
    assert refusal.value.kind is Kind.IDENTITY
    return refusal.value.detail


def test_A2_the_own_certificate_proves_the_tag_and_binds_to_its_key():
    identity = identify(certificate(TAG), TAG, SECRET)
    assert (identity.kind, identity.service_tag, identity.binding) == (IdentityKind.OWN, TAG, "key:" + "aa" * 32)


def test_A2_the_shared_certificate_proves_no_tag_and_binds_to_the_secret():
    identity = identify(certificate("shared-device"), TAG, SECRET)
    assert (identity.kind, identity.binding) == (IdentityKind.SHARED, secret_binding(SECRET))
    assert identity.binding == identify(certificate("shared-device", key="bb" * 32), TAG, SECRET).binding


@given(st.text(max_size=40))
def test_R_identity_any_name_but_the_tag_itself_or_a_shared_one_is_turned_away(name):
    assume(name != TAG and not SHARED_NAME.fullmatch(name))
    assert TAG in refused(certificate(name))


@pytest.mark.parametrize("name", ["abc1234", "ABC1234 ", "ABC1234\n", "ABC1234\0", "АBC1234", "ABC1234\0.evil", "*",
                                  "ABC*", "", "shared-device\n", "Shared-Device", "shared-device-", "shared-deviсe",
                                  "shared-device-A", "shared-device-" + "x" * 33, "not-shared-device"])
def test_R_identity_look_alikes_of_a_tag_or_of_the_shared_name_are_turned_away(name):
    refused(certificate(name))


@pytest.mark.parametrize("names", [(), (TAG, TAG), (TAG, "ABC1235"), ("shared-device", TAG), (TAG, "shared-device")])
def test_R_identity_none_or_several_common_names_are_no_name(names):
    assert f"{len(names)} common names" in refused(certificate(*names))


def test_R_identity_no_certificate_no_identity():
    assert refused(None) == "no certificate was shown"


@given(st.from_regex(SHARED_NAME, fullmatch=True), st.from_regex(SERVICE_TAG, fullmatch=True))
def test_A2_a_shared_name_can_never_be_a_tag(shared, tag):
    assert not SERVICE_TAG.fullmatch(shared)
    assert not SHARED_NAME.fullmatch(tag)


def test_R_identity_a_refusal_repeats_a_hostile_name_only_cut_and_escaped():
    detail = refused(certificate("\x1b[2J\n" + "x" * 500))
    assert detail.isascii()
    assert detail.isprintable()
    assert len(detail) < 160


def test_R_bound_the_binding_of_a_secret_is_a_hash_and_differs_with_it():
    assert SECRET.reveal() not in secret_binding(SECRET)
    assert secret_binding(SECRET) == secret_binding(Secret(SECRET.reveal()))
    assert secret_binding(SECRET) != secret_binding(Secret("0123456789abcdeF"))


def test_R_bound_who_confirms_is_bound_as_who_asked():
    """The binding of a confirmation equals that of the request, for either certificate."""
    for shown in (certificate(TAG), certificate("shared-device-b7")):
        assert binding(shown, SECRET) == identify(shown, TAG, SECRET).binding


def test_R_bound_a_shared_certificate_without_its_secret_is_bound_to_nothing():
    assert binding(certificate("shared-device"), None) is None
    assert binding(certificate(TAG), None) == "key:" + "aa" * 32


@pytest.mark.parametrize("shown", [None, certificate(), certificate(TAG, "shared-device")])
def test_R_bound_nobody_confirms_without_one_clear_name(shown):
    with pytest.raises(DelegatorError):
        binding(shown, SECRET)
