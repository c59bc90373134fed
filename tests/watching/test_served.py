"""Whether devices are served, by what they were told: the rule, the words, the bounds (T-C15)."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from msgspec.structs import replace

from delegator.provisioning.handshake import _TO_ASK
from delegator.store import Outcome
from delegator.store.engines.postgres.turns import sent_away
from delegator.trail import CALLBACK_FAILED, Step, Trail
from delegator.watching.served import (
    _AT_A_DELEGATE,
    BETTER_ELSEWHERE,
    ENOUGH,
    MOST,
    OURS,
    RECENT,
    UNKNOWN,
    WINDOW,
    WORDS,
    Answer,
    Answers,
    Teller,
    Told,
    as_answers,
    judge,
    lasted,
    tag_of,
    together,
)
from pki.trust import Refusal

NOW = 10_000.0
SERVED, DELEGATE, HELD_UP, AWAY = Told.SERVED, Told.DELEGATE, Told.HELD_UP, Told.UNAVAILABLE


def trail(tag: str = "TAG0001", outcome: str = "Answered", *, at: float = NOW, customer: str | None = "acme",
          identity: str | None = "own", reasons: tuple[str, ...] = (), registered: bool = True, note: str = "",
          step: Step = Step.CLAIMED, **more: str) -> Trail:
    made = Trail("1f-1", "192.0.2.7", reasons=reasons, registered=registered and customer is not None)
    made.facts |= {"tag": tag, "outcome": outcome, **more}
    made.facts |= {name: said for name, said in (("customer", customer), ("identity", identity)) if said}
    if note:
        made.mark(step, round(at * 1e9), note)
    made.mark(Step.ANSWERED, round(at * 1e9))
    return made


def refused(tag: str, refusal: Refusal, genuine: bool = True) -> Trail:
    made = trail("", "TlsRefused", customer=None, identity=None, refusal=refusal.value, certificate=f"CN={tag},O=Maker")
    made.genuine = genuine
    return made


def told(*groups: tuple[str, Told, int], at: float = NOW) -> list[Answer]:
    """So many devices of a customer that were told this."""
    return [Answer(at, what, customer) for customer, what, many in groups for _ in range(many)]


def each(what: Told, many: int, at: float = NOW) -> list[Answer]:
    """So many devices, each of another customer."""
    return [Answer(at, what, f"customer-{number}") for number in range(many)]


# --- the rule -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", [one for one in Told if one is not SERVED], ids=lambda one: one.name)
def test_TC15_more_than_half_of_twenty_devices_is_told_whatever_the_cause(what: Told) -> None:
    verdict = judge(each(what, 11) + each(SERVED, 9), NOW)
    assert (verdict.serving, verdict.most, verdict.devices, verdict.unserved_devices) == (False, what, 20, 11)
    assert WORDS[what] in verdict.words()
    assert judge(each(what, 10) + each(SERVED, 10), NOW).serving, "half is not more than half"
    assert judge(each(what, ENOUGH - 1), NOW).serving, "nineteen are not twenty"


def test_TC15_what_most_were_told_is_the_most_frequent_of_what_was_not_served() -> None:
    assert judge(each(SERVED, 9) + each(DELEGATE, 4) + each(HELD_UP, 7), NOW).most is HELD_UP


@pytest.mark.parametrize("others", [[], told(("globex", SERVED, 30)), told(("globex", SERVED, 1)),
                                    told(("globex", DELEGATE, 1)), told(("globex", DELEGATE, 4))])
@pytest.mark.parametrize("what", [one for one in Told if one not in (SERVED, *OURS)], ids=lambda one: one.name)
def test_TC15_no_single_customer_speaks_for_all(what: Told, others: list[Answer]) -> None:
    """A thousand devices of one customer whose delegate is dead: its own words, and everything else as before."""
    verdict = judge(told(("acme", what, 1000)) + others, NOW)
    assert verdict.serving
    assert verdict.unserved == {"acme": what}


@pytest.mark.parametrize("what", OURS, ids=lambda one: one.name)
def test_TC15_a_cause_of_ours_is_told_also_where_one_customers_devices_alone_ask(what: Told) -> None:
    assert judge(told(("acme", what, 20)), NOW).most is what
    assert judge(told(("acme", what, 30), ("globex", what, 1)), NOW).most is what
    assert judge(told((UNKNOWN, what, 20)), NOW).most is what, "the store cannot even say whose they are"
    assert judge(told(("acme", what, 1000), ("globex", SERVED, 30)), NOW).serving, "others are served"


def test_TC15_two_customers_are_not_one() -> None:
    assert not judge(told(("acme", DELEGATE, 1000), ("globex", DELEGATE, 5)), NOW).serving
    assert not judge(told(("acme", DELEGATE, 8), ("globex", DELEGATE, 8), ("umbra", SERVED, 8)), NOW).serving
    few = ("globex", DELEGATE, 5), ("globex", SERVED, 6)
    assert judge(told(("acme", DELEGATE, 1000), *few), NOW).serving, "who has its own trouble speaks for nobody"


def test_TC15_a_minute_is_looked_back() -> None:
    old = told(("acme", AWAY, 20), at=NOW - WINDOW)
    assert judge(old, NOW) == judge([], NOW)
    assert not judge(told(("acme", AWAY, 20), at=NOW - WINDOW + 0.1), NOW).serving


def test_TC15_only_this_machines_clock_and_files_make_it_unready_and_no_one_customer() -> None:
    """A load balancer takes an instance out that another one would do better than; where all would do as badly, devices
    are told when to come again."""
    for what in Told:
        teller = Teller()
        teller.look(each(what, 30), NOW, {})
        assert bool(teller.wrong(NOW)) is (what in BETTER_ELSEWHERE)
        teller.look(told(("acme", what, 1000)), NOW, {})
        assert teller.wrong(NOW) == {}


# --- the words ----------------------------------------------------------------------------------------------------


def test_TC15_it_is_said_once_since_when_and_again_how_long_it_took() -> None:
    teller = Teller()
    assert teller.look(each(SERVED, 30), NOW, {}) == []
    first = teller.look(each(AWAY, 30), NOW + 2, {AWAY: "the database is away"})
    assert first == ["devices are not being served: of 30 devices in a minute 30 were not served; most were told "
                     "Unavailable, as the store takes nothing, or by a fault of ours; because: the database is away"]
    assert teller.look(each(AWAY, 31), NOW + 30, {AWAY: "in other words"}) == []
    assert teller.unserved(NOW + 32)["devices"].startswith("not being served for 30 s: of 31 devices in a minute 31")
    assert "the database" not in str(teller.unserved(NOW + 32)), "details may name a device, and stay in the log"
    assert teller.look(each(SERVED, 30, NOW + 132), NOW + 132, {}) == [
        "devices are served again, after 2 min 10 s"]
    assert teller.unserved(NOW + 132) == {}


def test_TC15_another_cause_is_said_too() -> None:
    teller = Teller()
    teller.look(each(AWAY, 30, NOW), NOW, {})
    (line,) = teller.look(each(HELD_UP, 30, NOW + 40), NOW + 40, {})
    assert line.startswith("devices are not being served, for 40 s: ")


def test_TC15_a_customer_has_words_of_its_own() -> None:
    teller = Teller()
    dead = told(("acme", DELEGATE, 100), ("globex", SERVED, 30))
    (line,) = teller.look(dead, NOW, {DELEGATE: "delegate acme-1: no answer"})
    assert line == ("devices of customer acme are not being served: most were told TryLater, as their delegates gave "
                    "no credential; because: delegate acme-1: no answer")
    assert teller.verdict.serving
    assert list(teller.unserved(NOW)) == ["devices of customer acme"]
    assert teller.look(told(("acme", SERVED, 100)), NOW + 9, {}) == [
        "devices of customer acme are served again, after 9 s"]


@pytest.mark.parametrize(("bad", "left"), [
    (told(("acme", AWAY, 15), ("globex", AWAY, 15)), []), (told(("acme", AWAY, 30)), told(("acme", AWAY, 19))),
    (told(("acme", DELEGATE, 30), ("globex", SERVED, 40)), told(("globex", SERVED, 40)))],
    ids=["nobody asks any more", "too few ask", "one customer's ask no more"])
def test_TC15_where_too_few_ask_to_tell_nobody_is_said_to_be_served_again(
        bad: list[Answer], left: list[Answer]) -> None:
    """Devices that were told to come later come later: that is no sign that it is over."""
    teller = Teller()
    assert len(teller.look(bad, NOW, {})) == 1
    (line,) = teller.look([one._replace(at=NOW + 90) for one in left], NOW + 90, {})
    assert "too few to tell whether they are served, after 1 min 30 s" in line
    assert "served again" not in line


def test_TC15_it_is_over_when_enough_devices_are_served_lately_whoever_has_not_come_back() -> None:
    teller = Teller()
    bad = [one._replace(customer=f"other-{number}") for number, one in enumerate(each(AWAY, 200, NOW))]
    teller.look(bad, NOW, {})
    late = NOW + RECENT + 1
    assert teller.look(bad + each(SERVED, 19, late), late, {}) == []
    assert teller.look(bad + each(SERVED, 20, late), late, {}) == ["devices are served again, after 11 s"]


# --- who counts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "counted"), [
    (trail(), SERVED), (trail(outcome="NotEntitled"), SERVED),
    (trail(outcome="Unavailable"), AWAY), (trail(outcome="TryLater"), HELD_UP),
    (trail(outcome="TryLater", reasons=(f"{CALLBACK_FAILED}no answer",)), DELEGATE),
    (trail(outcome="TryLater", note=Outcome.OVER_LIMIT.value), Told.LIMITED),
    (trail(outcome="TryLater", note="policy p refuses", step=Step.DECIDED), Told.LIMITED),
    (trail(outcome="TryLater", note=Outcome.BUSY.value), Told.BUSY),
    (trail(outcome="TryLater", reasons=sent_away("database d", "customer/acme", is_slow=False).reasons), Told.CROWDED),
    (trail(outcome="TryLater", reasons=sent_away("database d", "customer/acme", is_slow=True).reasons), HELD_UP),
    (trail(outcome="TryLater", note=Outcome.UNSURE.value), HELD_UP)])
def test_TC15_what_counts_as_what(made: Trail, counted: Told) -> None:
    answers = Answers()
    answers.note(made)
    (answer,) = answers.seen(NOW).values()
    assert (answer.told, answer.customer) == (counted, "acme")


def test_TC15_a_crowd_of_one_owners_says_nothing_of_the_delegator() -> None:
    """No customer can make an instance look as if it served nobody; a store that is slow for all does."""
    assert judge(told(("acme", Told.CROWDED, 30)), NOW).most is None
    assert judge(told(("acme", HELD_UP, 30)), NOW).most is HELD_UP
    assert judge(each(Told.CROWDED, 30), NOW).most is Told.CROWDED, "of many owners at once"


NOBODY = {
    "who proved no tag": trail(outcome="Unavailable", identity=None, customer=None),
    "a shared certificate that was refused": trail(outcome="NotEntitled", identity="shared"),
    "a shared certificate that only says a tag": trail(outcome="Unavailable", identity="shared", customer=None),
    "no certificate of ours": refused("TAG0001", Refusal.EXPIRED, genuine=False),
    "an unknown authority": refused("TAG0001", Refusal.UNKNOWN_CA, genuine=False),
    "two names": refused("TAG0001,CN=TAG0002", Refusal.EXPIRED),
    "an unsold device that was refused": trail(outcome="NotEntitled", customer=None),
    "what only a rule gives something": trail(registered=False)}


@pytest.mark.parametrize("who", NOBODY)
def test_TC15_nobody_else_counts(who: str) -> None:
    answers = Answers()
    answers.note(NOBODY[who])
    assert answers.seen(NOW) == {}
    assert answers.unknown(10) == []


@pytest.mark.parametrize("made", [
    trail(outcome="Unavailable", customer=None), trail(outcome="TryLater", registered=False),
    *(refused("TAG0001", refusal) for refusal in Refusal)])
def test_TC15_whoever_was_turned_away_before_anybody_looked_is_looked_up(made: Trail) -> None:
    answers = Answers()
    answers.note(made)
    assert answers.seen(NOW) == {}, "until it is known"
    assert answers.unknown(10) == ["TAG0001"] == [tag_of(made)]
    answers.learn({"TAG0001": None})
    assert (answers.seen(NOW), answers.unknown(10)) == ({}, []), "nobody's"
    answers.note(made)
    answers.learn({"TAG0001": "acme"})
    assert [one.customer for one in answers.seen(NOW).values()] == ["acme"]


def test_TC15_what_cannot_be_looked_up_counts_until_it_can() -> None:
    answers = Answers()
    answers.note(trail(outcome="Unavailable", customer=None))
    answers.learn({"TAG0001": UNKNOWN})
    assert len(answers.seen(NOW)) == 1
    answers.ask_again()
    assert (answers.seen(NOW), answers.unknown(1)) == ({}, ["TAG0001"])


def test_TC15_a_device_counts_once_by_its_last_answer() -> None:
    answers = Answers()
    for second, outcome in enumerate(["TryLater"] * 50 + ["Answered"]):
        answers.note(trail(outcome=outcome, at=NOW - 51 + second))
    assert [one.told for one in answers.seen(NOW).values()] == [SERVED]
    answers.note(trail(outcome="NotEntitled", identity="shared"))
    assert [one.told for one in answers.seen(NOW).values()] == [SERVED], "a thief that only says the tag says nothing"


def test_TC15_an_answer_that_comes_when_its_device_has_left_is_none() -> None:
    """Each device asks once and leaves after half a minute; a store that hangs has told nobody anything."""
    answers = Answers()
    slow = [trail(f"SLOW{number:03}", "", at=NOW - 40) for number in range(24)]
    for number, one in enumerate(slow):
        answers.begun(one, NOW - 30 if number < 20 else NOW - 29)
    answers.begun(trail("NOBODY1", "", customer=None, identity=None), NOW - 31)
    answers.wait_no_longer(NOW)
    assert [one.told for one in answers.seen(NOW).values()] == [Told.LATE] * 20
    for one in slow:
        one.facts["outcome"] = "Answered"
        one.mark(Step.ANSWERED, round((NOW + 0.5) * 1e9))
        answers.note(one)
    assert sorted(one.told for one in answers.seen(NOW).values()) == [SERVED] * 4 + [Told.LATE] * 20
    assert len(answers._under_way) == 1


@pytest.mark.parametrize("step", [Step.CLAIMED, Step.PASSED_OVER], ids=["the first one", "who stands in"])
@pytest.mark.parametrize("ends", [False, True], ids=["still asked", "answered after all"])
def test_TC15_an_answer_that_is_late_by_a_customers_delegates_is_its_own(step: Step, ends: bool) -> None:
    """Four silent delegates, ten seconds each: else that customer's devices would speak for all."""
    answers = Answers()
    for number in range(ENOUGH):
        made = Trail(f"1f-{number}", "192.0.2.7", registered=True)
        made.facts |= {"tag": f"SLOW{number:03}", "identity": "own", "customer": "acme"}
        made.mark(Step.CLAIMED, round((NOW - 39) * 1e9), Outcome.OPENED.value)
        if ends or step is Step.PASSED_OVER:
            made.mark(Step.PASSED_OVER, round((NOW - 29) * 1e9), "delegate acme-1: no answer within 10 s")
            made.unanswered.append("acme-1")
        answers.begun(made, NOW - 40)
        if ends:
            made.facts["outcome"] = "Answered"
            made.mark(Step.ANSWERED, round(NOW * 1e9))
            answers.note(made)
    answers.wait_no_longer(NOW)
    seen = answers.seen(NOW)
    assert {one.told for one in seen.values()} == {DELEGATE}
    assert len(seen) == ENOUGH
    assert judge(seen.values(), NOW).serving


def test_TC15_what_is_waited_for_at_a_delegate_is_named_as_the_store_names_it() -> None:
    assert set(_AT_A_DELEGATE) == {one.value for one in _TO_ASK}


def test_TC15_a_connection_that_was_kept_for_long_makes_no_answer_late() -> None:
    answers, made = Answers(), trail(at=NOW)
    made.marks.insert(0, replace(made.marks[0], step=Step.CONNECTED, at=1))
    answers.begun(made, NOW - 1)
    answers.note(made)
    assert [one.told for one in answers.seen(NOW).values()] == [SERVED]


def test_TC15_memory_is_bounded_whoever_asks() -> None:
    answers = Answers()
    for number in range(MOST * 3):
        answers.note(trail(f"TAG{number:05}", "Unavailable", customer=None))
    assert len(answers.unknown(MOST * 3)) == MOST
    assert sys.getsizeof(answers._last) + MOST * 300 < 1_000_000
    assert len(answers.why()) <= len(Told)
    assert answers.seen(NOW + WINDOW) == {}
    assert answers.unknown(1) == [], "what is older than the window is forgotten"


# --- several workers ----------------------------------------------------------------------------------------------


def test_TC15_twenty_devices_over_four_workers_are_twenty_and_five_that_ask_at_each_are_five() -> None:
    def at_workers(asked: Iterable[tuple[int, str]]) -> list[Answer]:
        workers = [Answers() for _ in range(4)]
        for worker, tag in asked:
            workers[worker].note(trail(tag, "Unavailable"))
        return together(as_answers(json.loads(json.dumps(one.as_list(NOW)))) for one in workers)
    spread = at_workers((number % 4, f"TAG{number:04}") for number in range(20))
    assert not judge(spread, NOW).serving
    few = at_workers(itertools.product(range(4), (f"TAG{number:04}" for number in range(5))))
    assert judge(few, NOW).devices == 5


def test_TC15_the_last_answer_counts_whichever_worker_gave_it() -> None:
    early, late = Answers(), Answers()
    early.note(trail(outcome="Unavailable", at=NOW - 5))
    late.note(trail(at=NOW - 1))
    for order in ((early, late), (late, early)):
        assert [one.told for one in together(one.seen(NOW) for one in order)] == [SERVED]


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.4, "59 s"), (130, "2 min 10 s"), (600, "10 min 0 s")])
def test_TC15_how_long_in_words(seconds: float, words: str) -> None:
    assert lasted(seconds) == words


def test_TC15_every_answer_has_its_words() -> None:
    assert set(WORDS) == set(Told)


@pytest.mark.parametrize("what", [one for one in Told if one is not Told.SERVED])
def test_TC15_the_page_says_what_to_do_about_each(what: Told) -> None:
    page = Path(__file__).parents[2].joinpath("docs/watching.md").read_text(encoding="utf-8")
    assert f"| `{WORDS[what]}` | " in page
