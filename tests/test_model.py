"""Values: one that exists is valid, and a secret never shows (R-valid, R-secret; look-alikes stop before any
look-up)."""

from __future__ import annotations

import copy
import json
import logging
import pprint
import traceback
from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.model import (
    AddressChange,
    CallbackWay,
    Claim,
    ClaimState,
    Confirmation,
    Credential,
    CredentialRequest,
    Delegate,
    Device,
    HostedCallback,
    IdentityKind,
    LocalCallback,
    Location,
    Policy,
    Registration,
    Result,
    Secret,
    SoapCallback,
    SshCallback,
    normal_mac,
)

CLAIM_ID = "0123456789abcdef" * 2
LOOK_ALIKES = ["abc1234", "ABC1234 ", " ABC1234", "ABC1234\n", "ABC1234\r", "ABC1234\0", "АBC1234", "ＡBC1234",
               "ABC١234", "ABC\u200b1234", "ABC-1234", "ABC1234'", "%41BC1234", "ABC1", "A" * 21, ""]
"""Of ABC1234: lower case, blanks, ends of line, NUL, Cyrillic A, full-width A, Arabic 1, zero width, too short."""


@pytest.mark.parametrize("tag", LOOK_ALIKES)
@pytest.mark.parametrize("kind", [Device, lambda tag: Registration("acme", tag)], ids=["device", "registration"])
def test_A4_a_service_tag_is_taken_byte_for_byte_and_look_alikes_are_refused(tag, kind):
    with pytest.raises(ValueError, match="service tag"):
        kind(tag)


@given(st.text(max_size=24))
def test_A4_only_five_to_twenty_capitals_and_digits_are_a_tag(text):
    fits = 5 <= len(text) <= 20 and set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
    try:
        assert Device(text).service_tag == text
        assert fits
    except ValueError:
        assert not fits


@pytest.mark.parametrize("said", ["00:1a:2b:3c:4d:5e", "00-1A-2B-3C-4D-5E", "001a2b3C4d5E"])
def test_A3_a_mac_address_has_one_form_inside_whatever_form_it_came_in(said):
    assert normal_mac(said) == "00:1A:2B:3C:4D:5E"
    assert Device("ABC1234", mac_addresses=(said,)).mac_addresses == ("00:1A:2B:3C:4D:5E",)
    assert Registration("acme", mac_addresses=(said, said)).mac_addresses == ("00:1A:2B:3C:4D:5E",)


@pytest.mark.parametrize("said", ["", "00:1a:2b:3c:4d", "00:1a:2b:3c:4d:5e:6f", "00:1a-2b:3c:4d:5e",
                                  "001a.2b3c.4d5e", "0:1a:2b:3c:4d:5e", "00:1a:2b:3c:4d:5g",
                                  "00:1a:2b:3c:4d:5e\n", "٠0:1a:2b:3c:4d:5e"])
def test_A3_what_is_not_six_pairs_is_no_mac_address(said):
    with pytest.raises(ValueError, match="MAC address"):
        normal_mac(said)


@given(st.binary(min_size=6, max_size=6), st.sampled_from(["", ":", "-"]), st.booleans())
def test_A3_the_form_of_a_mac_address_is_settled_once(octets, separator, upper):
    said = separator.join(f"{octet:02X}" if upper else f"{octet:02x}" for octet in octets)
    assert normal_mac(normal_mac(said)) == normal_mac(said) == octets.hex(":").upper()


@pytest.mark.parametrize("facts", [
    {"serial_number": "-1"}, {"serial_number": "S\n"}, {"serial_number": "S" * 65}, {"serial_number": ""},
    {"model": " R740"}, {"model": "R740\n"}, {"model": "<b>"}, {"model": ""}])
def test_A3_other_facts_of_a_device_have_a_form_too(facts):
    with pytest.raises(ValueError):
        Device("ABC1234", **facts)
    with pytest.raises(ValueError):
        Registration("acme", "ABC1234", **facts)


@pytest.mark.parametrize("place", [
    {"ip_address": "192.0.2.256"}, {"ip_address": "192.0.2.1\n"}, {"ip_address": ""}, {"ip_address": "fe80::1%eth0"},
    {"ip_address": "fe80::1%\n<script>"}, {"host_name": "a b"}, {"host_name": "-a"}, {"host_name": "a\n"},
    {"domain": "a..b"}, {"domain": "x" * 64}, {"domain": ".".join(["x" * 60] * 5)}, {"domain": "müller.example"}])
def test_A3_a_location_that_is_none_is_refused(place):
    with pytest.raises(ValueError):
        Location(**place)


def test_A3_a_changed_address_is_an_address():
    device = Device("ABC1234")
    assert AddressChange(device, "2001:db8::1", "192.0.2.1").new_address == "2001:db8::1"
    for new, old in (("192.0.2", None), ("192.0.2.1", "nowhere"), ("fe80::1%\0", None)):
        with pytest.raises(ValueError):
            AddressChange(device, new, old)


@pytest.mark.parametrize("text", ["x" * 15, "x" * 129, "x" * 16 + "\n", "х" * 16, "x" * 15 + " ", ""])
def test_R_bound_a_transaction_id_is_long_plain_and_not_repeated_in_the_refusal(text):
    with pytest.raises(ValueError) as refusal:
        CredentialRequest(Device("ABC1234"), Secret(text))
    assert not text or text not in str(refusal.value)


def test_R_bound_sixteen_characters_are_enough_for_a_transaction_id():
    CredentialRequest(Device("ABC1234"), Secret("x" * 16))
    CredentialRequest(Device("ABC1234"), Secret("aZ0._:-" * 18))


@pytest.mark.parametrize("claim_id", ["", CLAIM_ID.upper(), CLAIM_ID[:-1], CLAIM_ID + "0", CLAIM_ID + "\n"])
def test_R_bound_a_claim_id_is_32_lower_case_hexadecimal_digits(claim_id):
    with pytest.raises(ValueError, match="claim id"):
        Confirmation(claim_id, Result.DEPLOYED)


@pytest.mark.parametrize(("user", "password"), [("", "x"), ("u", ""), ("u" * 256, "x"), ("u", "x" * 1025)])
def test_A7_a_credential_has_a_user_name_and_a_password(user, password):
    with pytest.raises(ValueError) as refusal:
        Credential(user, Secret(password))
    assert "x" * 20 not in str(refusal.value)


def test_A6_a_window_needs_a_time_zone():
    with pytest.raises(ValueError, match="time zone"):
        Policy(valid_from=datetime(2026, 1, 1))
    Policy(valid_from=datetime(2026, 1, 1, tzinfo=UTC))


def test_A6_networks_and_domains_are_kept_in_the_form_in_which_they_are_compared():
    policy = Policy(networks=("::ffff:192.0.2.0/120", "192.0.2.0/24", "2001:DB8::/32", "::/64", "10.0.0.1"),
                    domains=("Acme.Example.", "acme.example"))
    assert policy.networks == ("192.0.2.0/24", "2001:db8::/32", "::/64", "10.0.0.1/32")
    assert policy.domains == ("acme.example",)


@pytest.mark.parametrize("said", [{"networks": ("192.0.2.7/24",)}, {"networks": ("here",)}, {"domains": ("a..b",)},
                                  {"claims_per_hour": 0}])
def test_A6_a_policy_that_makes_no_sense_is_refused(said):
    with pytest.raises(ValueError):
        Policy(**said)


def test_A7_a_delegate_knows_how_it_is_called():
    assert Delegate("d", "acme", SoapCallback("d.acme.example")).way is CallbackWay.SOAP
    assert Delegate("d", "acme", HostedCallback("root", Secret("x"))).way is CallbackWay.HOSTED
    assert Delegate("d", "acme", SshCallback("d.acme.example", "ztp", Secret("x"), "k")).way is CallbackWay.SSH
    assert Delegate("d", "acme", LocalCallback("/opt/acme/credential")).way is CallbackWay.LOCAL


# --- secrets ------------------------------------------------------------------------------------------------------

HIDDEN = "correct-horse-battery"
HOLDERS = [
    Secret(HIDDEN),
    Credential("root", Secret(HIDDEN)),
    CredentialRequest(Device("ABC1234"), Secret(HIDDEN)),
    Confirmation(CLAIM_ID, Result.DEPLOYED, transaction_id=Secret(HIDDEN)),
    Delegate("d", "acme", HostedCallback("root", Secret(HIDDEN), webhook_secret=Secret(HIDDEN))),
    SshCallback("d.acme.example", "ztp", Secret(HIDDEN), "ssh-ed25519 AAAA"),
    Claim(CLAIM_ID, "ABC1234", "acme", "d", ClaimState.ISSUED, IdentityKind.OWN, 1, datetime.now(UTC),
          datetime.now(UTC), binding=HIDDEN, sealed=HIDDEN.encode()),
]


@pytest.mark.parametrize("holder", HOLDERS, ids=lambda holder: type(holder).__name__)
def test_R_secret_a_secret_never_shows_however_its_holder_is_printed(holder, caplog):
    logging.getLogger("test").warning("%s %r %a", holder, holder, [holder])
    shown = [repr(holder), str(holder), f"{holder}", f"{holder!r:>80}", "{}".format(holder), "%s" % (holder,),  # noqa: UP031, UP032
             pprint.pformat(holder), str({"key": [holder]}), caplog.text, repr(copy.deepcopy(holder))]
    assert not [text for text in shown if HIDDEN in text]


@pytest.mark.parametrize("holder", HOLDERS[:-1], ids=lambda holder: type(holder).__name__)
def test_R_secret_a_secret_is_not_written_by_accident(holder):
    """A format width, JSON by either library and a dictionary of fields all refuse, or show nothing."""
    for attempt in (lambda: f"{holder:>40}", lambda: json.dumps(holder), lambda: msgspec.json.encode(holder),
                    lambda: str(msgspec.structs.asdict(holder))):
        try:
            shown = str(attempt())
        except TypeError as error:
            shown = "".join(traceback.format_exception(error))
        assert HIDDEN not in shown


def test_R_secret_secrets_compare_by_what_they_hold_and_give_it_out_only_when_asked():
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert Secret("a").reveal() == "a"
    assert not hasattr(Secret("a"), "__dict__")


@pytest.mark.parametrize("wrong", [{"claims_per_hour": 0}, {"networks": ("not a network",)}])
def test_a_value_that_was_changed_is_looked_at_as_a_new_one_is(wrong: dict[str, object]) -> None:
    """msgspec before 0.21 let anything through here: no bound may be lowered to it again."""
    with pytest.raises(ValueError, match=r"at least 1|does not appear"):
        msgspec.structs.replace(Policy(), **wrong)
