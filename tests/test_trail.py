"""The trail: steps in the order of the patent's figure 2, as data and in plain words (R-trail)."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator.trail import Step, Trail, from_kept, tell

WALK = [Step.CONNECTED, Step.AUTHENTICATED, Step.ASKED, Step.IDENTIFIED, Step.ROUTED, Step.DECIDED, Step.CLAIMED,
        Step.CALLED_BACK, Step.ISSUED, Step.ANSWERED]


def walked(*steps: Step) -> Trail:
    trail = Trail("c1", "192.0.2.7")
    for number, step in enumerate(steps):
        trail.mark(step, 1_000_000_000 + number * 1_500_000, f"note {number}")
    return trail


def test_the_good_walk_has_the_block_numbers_of_figure_2_in_order():
    assert [mark.step.block for mark in walked(*WALK).marks] == [205, 210, 212, 213, 213, 214, 214, 215, 215, 216]


def test_every_step_has_a_place_of_its_own_but_those_of_a_delegate_which_take_turns():
    places = {step.order for step in Step if step is not Step.PASSED_OVER}
    assert sorted(places) == list(range(1, len(Step)))
    assert Step.PASSED_OVER.order == Step.CALLED_BACK.order


@given(st.lists(st.sampled_from(Step), max_size=8))
def test_a_step_back_is_a_bug_and_leaves_no_mark(steps):
    """Whatever is tried, the record stays in order and holds exactly the steps that did not go back."""
    trail, taken = Trail("c1", "peer"), []
    for at, step in enumerate(steps):
        if taken and step.order < taken[-1].order:
            with pytest.raises(ValueError, match=f"step {step.name} after {taken[-1].name}"):
                trail.mark(step, at)
        else:
            trail.mark(step, at)
            taken.append(step)
    assert [mark.step for mark in trail.marks] == taken


@given(st.lists(st.tuples(st.sampled_from(Step), st.text()), max_size=8), st.text(), st.dictionaries(
    st.sampled_from(["tag", "customer", "delegate", "identity"]), st.text()), st.lists(st.text()))
def test_a_trail_is_plain_data_that_json_can_hold(steps, peer, facts, reasons):
    trail = Trail("c1", peer, facts=facts, reasons=tuple(reasons))
    for at, (step, note) in enumerate(sorted(steps, key=lambda pair: pair[0].order)):
        trail.mark(step, at * 1_000_000, note)
    data = json.loads(json.dumps(trail.as_data()))
    assert data == trail.as_data()
    assert data.items() >= {"connection": "c1", "peer": peer, "reasons": reasons, **facts}.items()
    assert len(tell(data)) == len(steps)


def test_times_run_from_the_first_step_to_the_last():
    trail = walked(*WALK)
    assert trail.milliseconds == 13.5
    assert [step["at_ms"] for step in trail.as_data()["steps"]][:3] == [0.0, 1.5, 3.0]
    assert walked().milliseconds == walked(Step.CONNECTED).milliseconds == 0.0


def test_it_is_told_in_plain_words_a_line_a_step():
    trail = Trail("c1", "192.0.2.7")
    trail.mark(Step.CONNECTED, 0)
    trail.mark(Step.REFUSED, 2_340_000, "no certificate was shown")
    assert tell(trail.as_data()) == [
        " 1.     0.0 ms  The device connected  [block\u00a0205]",
        " 2.     2.3 ms  The device was turned away: no certificate was shown  [block\u00a0210]"]


@pytest.mark.parametrize("step", Step)
def test_words_are_a_short_plain_sentence(step):
    assert step.words[0].isupper()
    assert len(step.words) <= 80
    assert "_" not in step.words


def test_the_patents_blocks_are_all_walked():
    assert {step.block for step in Step} == {205, 210, 212, 213, 214, 215, 216, 218}


def test_A4_a_row_of_audit_holds_the_steps_and_what_it_has_no_column_for():
    trail = walked(*WALK)
    trail.facts = {"tag": "ABC1234", "customer": "acme", "delegate": "small", "outcome": "Answered", "identity": "own"}
    assert not trail.on_record
    kept = json.loads(json.dumps(trail.as_kept()))
    assert trail.on_record
    assert set(kept) == {"identity", "connection", "steps"}
    assert from_kept(kept)["steps"] == trail.as_data()["steps"]
    assert tell(from_kept(kept)) == tell(trail.as_data())
