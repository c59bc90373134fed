"""The layers and all modes: who plays, who makes it be called, and what it does when it behaves.

The invariant: a layer's modes are played against one server, whose settings are the layer's.
Must not live here: what modes do.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from benchmarks.isolation import callers, delegates, names, relays, shells
from benchmarks.isolation.modes import Mode


class Kind(enum.Enum):
    """Why the peer and the server speak; the value is how the attacker is to be run."""

    DELEGATE = "called"
    """A device asks, and its delegate is called."""
    TOLD = "told"
    """A device was answered, and an administrator is told of it."""
    NAMES = "names"
    """A device that nobody registered comes from a new address."""
    CALLS = "calls"
    """It calls itself."""


@dataclass(frozen=True, slots=True)
class Layer:
    """`plays` is whom the peer stands for, `well` how it behaves well; `laws` are the quick tests that say, without a
    clock, how much of such a peer is digested."""

    name: str
    kind: Kind
    plays: str
    well: Any
    laws: tuple[str, ...]


_DELEGATE = "a customer's SOAP delegate, or whoever answers at its address"
_ANSWERS = "tests/callbacks/test_answers.py::test_"
_SSH = "tests/callbacks/test_ssh.py::test_"
_SSH_FLOODS = "tests/callbacks/test_ssh_floods.py::test_"
_PROVISIONING = "tests/delegate/test_provisioning.py::test_"
_DNS = "tests/net/test_dns.py::test_"
_MAIL = "tests/net/test_mail.py::test_"
_SHELLS = "tests/net/test_shells.py::test_"
_TURNS = "tests/net/test_turns.py::test_"
_BOUNDS = "tests/wire/test_bounds.py::test_"
_DNS_MESSAGE = "tests/wire/test_dns_message.py::test_"
_DNS_WEIGHT = "tests/wire/test_dns_weight.py::test_"
_RECORDS = "tests/wire/test_records.py::test_"
_SOAP = "tests/wire/test_soap.py::test_"
_WALK = "tests/net/test_walk.py::test_"
LAYERS: dict[str, Layer] = {one.name: one for one in (
    Layer("tcp", Kind.DELEGATE, _DELEGATE, delegates.well, (
        _TURNS + "TB10_of_a_peer_that_is_called_one_piece_in_each_turn",
        _SHELLS + "every_call_ends_within_its_budget")),
    Layer("tls 1.2", Kind.DELEGATE, _DELEGATE, delegates.well, (
        _RECORDS + "TB10_hello_requests_without_end_end_the_handshake",
        _RECORDS + "a_handshake_may_come_in_small_fragments_but_not_without_end")),
    Layer("tls 1.3", Kind.DELEGATE, _DELEGATE, delegates.well, (
        _RECORDS + "TB10_a_delegate_that_only_changes_its_key_ends_the_call",
        _RECORDS + "bytes_around_data_are_bounded_too")),
    Layer("http", Kind.DELEGATE, _DELEGATE, delegates.well, (
        _BOUNDS + "TB10_an_answer_that_does_not_end_is_refused_within_a_number_of_bytes",)),
    Layer("soap", Kind.DELEGATE, _DELEGATE, delegates.well, (
        _SOAP + "hostile_bytes_are_refused_with_a_reason",
        _ANSWERS + "TC10_the_limit_is_that_of_the_reader",
        _SOAP + "TC3_attributes_are_counted_before_expat_reads_them")),
    Layer("ssh", Kind.DELEGATE, "a customer's SSH delegate", shells.well, (
        _SSH + "TB6_a_command_that_writes_without_end_is_stopped",
        _SSH_FLOODS + "TB11_a_flood_of_packets_ends_the_call_and_most_of_it_is_never_digested",
        _SSH_FLOODS + "TB11_output_in_scraps_is_taken_in_batches_once_it_has_had_its_quick_pieces",
        _SSH_FLOODS + "TB11_sixteen_floods_are_given_no_more_in_a_turn_than_one_and_a_good_server_is_served_meanwhile",
    )),
    Layer("webhook", Kind.TOLD, "a customer's receiver of webhooks", delegates.refuses, (
        _TURNS + "TB10_of_a_peer_that_is_called_one_piece_in_each_turn",
        _BOUNDS + "TB10_an_answer_that_does_not_end_is_refused_within_a_number_of_bytes")),
    Layer("smtp", Kind.TOLD, "the mail relay", relays.refuses, (
        _MAIL + "A7c_a_silent_relay_costs_its_time_limit",)),
    Layer("dns", Kind.NAMES, "the owner of a reverse zone", names.well, (
        _DNS_WEIGHT + "more_than_that_is_refused",
        _DNS + "TB4_a_datagram_is_as_long_as_was_asked_for_at_most",
        _DNS + "TB4_names_behind_pointers_are_not_expanded",
        _DNS_MESSAGE + "TB4_nothing_is_expanded_before_it_was_weighed",
        _DNS_WEIGHT + "TB4_all_answers_of_one_look_up_share_one_bound",
        _WALK + "TB4_one_address_costs_a_number_of_questions")),
    Layer("device", Kind.CALLS, "a device with one valid certificate", callers.well["device"], (
        _RECORDS + "TB10_a_device_may_change_its_key_a_few_times_and_not_for_ever",
        _BOUNDS + "TB10_a_request_that_does_not_end_is_refused_within_a_number_of_bytes",
        _TURNS + "TB10_of_a_peer_that_calls_one_piece_in_each_turn")),
    Layer("stranger", Kind.CALLS, "a stranger at the devices' port", callers.well["stranger"], (
        _RECORDS + "a_handshake_may_come_in_small_fragments_but_not_without_end",
        _TURNS + "TB10_of_a_peer_that_calls_one_piece_in_each_turn")),
    Layer("ops", Kind.CALLS, "a caller of the operators' port", callers.well["ops"], (
        _BOUNDS + "TB10_a_request_that_does_not_end_is_refused_within_a_number_of_bytes",)),
    Layer("proxy", Kind.CALLS, "who reaches a port that is for load balancers", callers.well["proxy"], (
        _BOUNDS + "TB10_a_proxy_header_is_decided_within_its_own_length",)),
    Layer("reference", Kind.CALLS, "a stranger at the reference delegate", callers.well["reference"], (
        _RECORDS + "TB10_a_device_may_change_its_key_a_few_times_and_not_for_ever",
        _PROVISIONING + "guesses_at_one_user_are_limited_and_the_right_one_waits_too")),
)}
MODES: tuple[Mode, ...] = (*delegates.MODES, *shells.MODES, *delegates.WEBHOOKS, *relays.MODES, *names.MODES,
                           *callers.MODES)
