"""Explanations and trials as plain data: what `--json` prints, and what a page or an answer by HTTP is made of.

The invariant: everything that is shown comes from the explanation or the trial; nothing is worked out anew.
Must not live here: working it out (explanation, trial), layout (the door).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from delegator.desk import policy_words, shapes

if TYPE_CHECKING:
    from delegator.desk.explanation import Counts, Explanation, Question
    from delegator.desk.lately import Event, Lately
    from delegator.desk.trial import Call, Change, Fate, Tally, Trial
    from delegator.policy import Applied

NOWHERE = ""
"""An address that is not known: it stands in no network."""


def whole(one: Explanation) -> shapes.Shape:
    """An explanation with all there is to it."""
    judgement, verdict, claim = one.judgement, one.verdict, one.claim
    registration = one.registration
    return {
        **asked(one.question), "allowed": verdict.error is None,
        "registration": None if registration is None else shapes.owned(registration),
        "route": _route(one),
        "policies": [] if judgement is None else [
            {"policy": each.policy.name, "holder": each.holder, "says": policy_words.said(each.policy)}
            for each in judgement.policies],
        "reasons": [{"why": why, "text": text} for why, text in verdict.reasons],
        "limits": limits(one), "claim": None if claim is None else shapes.claim(claim),
        "told": told(one)}


def asked(question: Question) -> shapes.Shape:
    return {"service_tag": question.device.service_tag, "at": shapes.at(question.at),
            "from": None if question.peer_address == NOWHERE else question.peer_address,
            "identity": question.identity.value,
            "says": {"serial_number": question.device.serial_number, "model": question.device.model,
                     "mac_addresses": list(question.device.mac_addresses), "domain": question.location.domain}}


def _route(explanation: Explanation) -> shapes.Shape | None:
    if explanation.judgement is None:
        return None
    route = explanation.judgement.route
    return {"customer": route.delegate.customer, "delegate": route.delegate.name,
            "callback": route.delegate.way.value, "because": route.because}


def limits(explanation: Explanation) -> list[shapes.Shape]:
    """Per policy: places taken, claims opened in the last hour, and attempts used, each of those there are. Claims
    are counted by the hour only where a policy limits that."""
    if explanation.judgement is None:
        return []
    counts = explanation.counts
    return [{"policy": one.policy.name, "holder": one.holder, "taken": counts.places.get(one.holder, 0),
             "max_devices": one.policy.max_devices, "claims_this_hour": _this_hour(counts, one),
             "claims_per_hour": one.policy.claims_per_hour, "attempts_used": counts.attempts,
             "attempts": one.policy.attempts} for one in explanation.judgement.policies]


def _this_hour(counts: Counts, one: Applied) -> int | None:
    pace = counts.paces.get(one.holder)
    return None if pace is None else sum(many for _, many in pace)


def told(explanation: Explanation) -> shapes.Shape:
    """What goes back to the device, in the fault's name and in one sentence."""
    error = explanation.verdict.error
    if error is None:
        return {"fault": None, "retry_after": None, "sentence": f"The device is given {explanation.verdict.given}."}
    look = error.appearance
    later = f", and to ask again after {error.retry_after} s" if error.retry_after else ""
    return {"fault": look.fault, "retry_after": error.retry_after,
            "sentence": f'The device is told {look.fault} ("{look.message.rstrip(".")}"){later}.'}


def certificate(before: Lately, revoked: tuple[str, ...]) -> shapes.Shape:
    """What can be said of the device's certificate, which is judged by TLS before a device can ask."""
    return {"judged": False, "revoked": list(revoked), "last_refused": last_time(before.refused)}


def last_time(event: Event | None) -> shapes.Shape | None:
    return None if event is None else {"at": shapes.at(event.at), "words": event.words, "row": event.row or None}


# --- trials -------------------------------------------------------------------------------------------------------


def fate(one: Fate) -> shapes.Shape:
    return {"device": one.name, "present": one.present.value, "changed": one.changed.value,
            "becomes": one.becomes.value, "present_reasons": _reasons(one.present_reasons),
            "changed_reasons": _reasons(one.changed_reasons)}


def _reasons(reasons: Iterable[tuple[str, str]]) -> list[shapes.Shape]:
    return [{"why": why, "text": text} for why, text in reasons]


def summary(change: Change, call: Call, trial: Trial, tally: Tally) -> dict[str, Any]:
    from delegator.desk.trial import Becomes, Told

    whys = sorted({*tally.present_reasons, *tally.changed_reasons})
    return {
        "policy": shapes.policy(change.policy), "at": shapes.at(call.at), "from": call.peer or None,
        "identity": call.identity.value, "devices": tally.devices, "without_tag": tally.without_tag,
        "becomes": {one.name.lower(): tally.becomes[one] for one in Becomes},
        "verdicts": {one.value: {"present": tally.present[one], "changed": tally.changed[one]} for one in Told},
        "reasons": {why: {"present": tally.present_reasons[why], "changed": tally.changed_reasons[why]}
                    for why in whys},
        "places": _places(change, trial, tally)}


def _places(change: Change, trial: Trial, tally: Tally) -> list[shapes.Shape]:
    """Of everybody who would name the policy: places as they stand, and how many devices could take one. Each of those
    is allowed on its own; together they may be more than there are places."""
    tables, name = trial.tables, change.policy.name
    holders = [*(f"customer/{one.name}" for one in tables.customers.values() if one.policy == name),
               *(f"delegate/{one.name}" for one in tables.directory.delegates.values() if one.policy == name)]
    most = change.policy.max_devices
    return [{"holder": holder, "taken": trial.places.get(holder, 0), "max_devices": most,
             "left": None if most is None else max(0, most - trial.places.get(holder, 0)),
             "wanted": tally.wanting[holder]} for holder in sorted(holders)]
