"""`delegator explain`: asks why, and lays out the answer.

The invariant: everything shown comes from the explanation; exit code 0 means a credential would be given, 5 not.
Must not live here: working the answer out (explanation).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from delegator.cli import console, forms, policy_words, shapes
from delegator.cli.console import Output
from delegator.cli.session import looking, settings
from delegator.errors import APPEARANCES, DelegatorError, Kind
from delegator.model import Device, IdentityKind, Location
from delegator.routing import registered
from delegator.store import Store
from pki.errors import PkiError

if TYPE_CHECKING:
    from delegator.cli.explanation import Counts, Explanation, Question
    from delegator.cli.lately import Event, Lately
    from delegator.policy import Applied

_NOWHERE = ""
"""An address that is not known: it stands in no network."""
_DEVICE = "device"
"""The profile of pki.profiles that a device's own certificate has."""
_REFUSED = APPEARANCES[Kind.NOT_ENTITLED].exit_code


@console.command("explain", "delegator explain ABC1234 --at 2026-03-01T08:00:00Z --from 192.0.2.7")
@click.argument("tag", type=forms.tag)
@click.option("--at", type=forms.moment, metavar="TIME", help="When it asks; now unless said.")
@click.option("--from", "peer", type=forms.ip, metavar="IP", help="From which address; unknown unless said.")
@click.option("--identity", type=click.Choice([kind.value for kind in IdentityKind]), default="own",
              show_default=True, help="With which certificate.")
@click.option("--model", type=forms.model_name, help="The model it says; else the one it is registered with.")
@click.option("--serial", type=forms.serial, help="The serial number it says; else the registered one.")
@click.option("--mac", type=forms.mac, multiple=True, help="A MAC address it says; else the registered ones.")
@click.option("--domain", type=forms.domain, help="The domain it says it is in.")
@looking
async def command(store: Store, tag: str, at: datetime | None, peer: str | None, identity: str, model: str | None,
                  serial: str | None, mac: tuple[str, ...], domain: str | None) -> Output:
    """Why the device TAG would, or would not, be given a credential.

    Answers with the code that serves devices, and changes nothing. Where reverse DNS is enabled and nothing else leads
    to an owner, the DNS is asked about the address given with --from.
    """
    from delegator.cli.explanation import Question, explain
    from delegator.cli.lately import lately
    from delegator.net.reverse import load_domains

    domains = load_domains(settings().domains)
    device = await _as_registered(store, Device(tag, serial, mac, model))
    question = Question(device, Location(domain=domain), peer or _NOWHERE, IdentityKind(identity),
                        at or datetime.now(UTC))
    explanation = await explain(store, question, domains)
    unsaid = peer is None and any(rule.network for rule in await store.rules())
    words = (*await _meant(store, explanation),
             *_asked_dns(explanation, domains is not None), *_not_located(explanation), *_words(explanation, unsaid))
    delegate = None if explanation.judgement is None else explanation.judgement.route.delegate.name
    before = await lately(store, tag, delegate)
    revoked = await _revoked(store, tag, before)
    data = {**_data(explanation), "certificate": _certificate(before, revoked),
            "last_time": _last_time(before.callback)}
    return Output(data, [*_lines(explanation), *_before(before, revoked)], words,
                  _REFUSED if explanation.verdict.error else 0)


async def _revoked(store: Store, tag: str, before: Lately) -> tuple[str, ...]:
    """The serials that are known to be of this tag, and that the revocation list of the settings names; none where it
    cannot be read here. It holds serials alone, so what else it names is nobody's to say."""
    from delegator.parts import load_trust
    from pki.trust import Refusal

    known = {one.serial for one in await store.enrolments.of_tag(tag)} | _in_ledger(tag)
    known |= {before.refused.serial} if before.refused is not None else set()
    try:
        trust = load_trust(settings())
    except DelegatorError:
        return ()
    now = datetime.now(UTC)
    return tuple(sorted(one for one in known if one and trust.refuse(int(one, 16), now) is Refusal.REVOKED))


def _in_ledger(tag: str) -> set[str]:
    """The serials of this device's certificates, where the factory's own folder is on this machine."""
    from pki.ledger import LEDGER, Ledger

    try:
        issued = Ledger(Path(settings().server.ca).parent / LEDGER).issued_to(tag)
    except PkiError:
        return set()
    return {one.serial for one in issued if one.profile == _DEVICE}


def _certificate(before: Lately, revoked: tuple[str, ...]) -> shapes.Shape:
    """What can be said of the device's certificate, which is judged by TLS before a device can ask."""
    return {"judged": False, "revoked": list(revoked), "last_refused": _last_time(before.refused)}


def _last_time(event: Event | None) -> shapes.Shape | None:
    return None if event is None else {"at": shapes.at(event.at), "words": event.words, "row": event.row or None}


def _before(before: Lately, revoked: tuple[str, ...]) -> list[str]:
    """What the audit and the list say of what no question can answer."""
    said = ["certificate is not judged here: TLS does that, before the device can ask"]
    if before.refused is not None:
        said.append(f"refused     by TLS at {shapes.at(before.refused.at)}, so it did not come to ask: "
                    f"{console.plain(before.refused.words)}")
    said += [f"revoked     serial {one} of this tag stands in the revocation list" for one in revoked]
    if before.callback is not None:
        said.append(f"last time   {console.plain(before.callback.words)}, at {shapes.at(before.callback.at)}")
    return said


async def _meant(store: Store, explanation: Explanation) -> tuple[str, ...]:
    """A tag that is registered and looks like this one, which is not."""
    from delegator.cli.nearest import spellings

    if explanation.registration is None:
        for one in spellings(explanation.question.device.service_tag):
            if await store.fleet.called(one):
                return (f"note: nothing is registered under that tag; did you mean {one}?",)
    return ()


async def _as_registered(store: Store, device: Device) -> Device:
    """A device that says what it is registered with, where the question does not say otherwise."""
    found = registered(device, (await store.find(device)).registrations)
    if found is None or found[0].service_tag is None:
        return device
    known = found[0]
    return msgspec.structs.replace(device, serial_number=device.serial_number or known.serial_number,
                               mac_addresses=device.mac_addresses or known.mac_addresses,
                               model=device.model or known.model)


def _words(explanation: Explanation, unsaid: bool) -> tuple[str, ...]:
    error = explanation.verdict.error
    note = ("note: rules by network were not matched; say the device's address with --from",) if unsaid else ()
    return (*note, f"  next: {error.hint}") if error is not None and error.hint else note


def _not_located(explanation: Explanation) -> tuple[str, ...]:
    """A policy asks from where, and the question does not say."""
    asks = explanation.judgement is not None and any(
        one.policy.networks or one.policy.domains for one in explanation.judgement.policies)
    unknown = explanation.question.peer_address == _NOWHERE
    return ("note: a policy asks where the device calls from; say its address with --from",) if asks and unknown else ()


def _asked_dns(explanation: Explanation, enabled: bool) -> tuple[str, ...]:
    """Why a device that nobody registered and no rule matches was not looked up in the DNS."""
    if explanation.judgement is not None or explanation.registration is not None:
        return ()
    if not enabled:
        return ("note: reverse DNS was not asked, it is off: [domains] enabled",)
    unknown = explanation.question.peer_address == _NOWHERE
    return ("note: reverse DNS was not asked; say the device's address with --from",) if unknown else ()


def _data(explanation: Explanation) -> shapes.Shape:
    judgement, verdict, claim = explanation.judgement, explanation.verdict, explanation.claim
    registration = explanation.registration
    return {
        **_asked(explanation.question), "allowed": verdict.error is None,
        "registration": None if registration is None else shapes.owned(registration),
        "route": _route(explanation),
        "policies": [] if judgement is None else [
            {"policy": one.policy.name, "holder": one.holder, "says": policy_words.said(one.policy)}
            for one in judgement.policies],
        "reasons": [{"why": why, "text": text} for why, text in verdict.reasons],
        "limits": _limits(explanation), "claim": None if claim is None else shapes.claim(claim),
        "told": _told(explanation)}


def _asked(question: Question) -> shapes.Shape:
    return {"service_tag": question.device.service_tag, "at": shapes.at(question.at),
            "from": None if question.peer_address == _NOWHERE else question.peer_address,
            "identity": question.identity.value,
            "says": {"serial_number": question.device.serial_number, "model": question.device.model,
                     "mac_addresses": list(question.device.mac_addresses), "domain": question.location.domain}}


def _route(explanation: Explanation) -> shapes.Shape | None:
    if explanation.judgement is None:
        return None
    route = explanation.judgement.route
    return {"customer": route.delegate.customer, "delegate": route.delegate.name,
            "callback": route.delegate.way.value, "because": route.because}


def _limits(explanation: Explanation) -> list[shapes.Shape]:
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


def _told(explanation: Explanation) -> shapes.Shape:
    """What goes back to the device, in the fault's name and in one sentence."""
    error = explanation.verdict.error
    if error is None:
        return {"fault": None, "retry_after": None, "sentence": f"The device is given {explanation.verdict.given}."}
    look = error.appearance
    later = f", and to ask again after {error.retry_after} s" if error.retry_after else ""
    return {"fault": look.fault, "retry_after": error.retry_after,
            "sentence": f'The device is told {look.fault} ("{look.message.rstrip(".")}"){later}.'}


def _lines(explanation: Explanation) -> list[str]:
    claim, question, asked = explanation.claim, explanation.question, _asked(explanation.question)
    stands = None if claim is None else f"{claim.claim_id}, {claim.state.value}, until {shapes.at(claim.lease_until)}"
    facts: dict[str, object] = {
        "device": question.device.service_tag,
        "asks": f"at {asked['at']}, from {asked['from'] or 'an unknown address'}, "
                f"with its {asked['identity']} certificate",
        "registered": _registered(explanation), "route": _routed(explanation), "claim": stands}
    policies = [f"policy      {one.policy.name} ({one.holder}): {'; '.join(policy_words.said(one.policy))}"
                for one in (explanation.judgement.policies if explanation.judgement else ())]
    against = [f"against     {text}" for _, text in explanation.verdict.reasons]
    counted = [f"limits      {_counted(one)}" for one in _limits(explanation)]
    told = _told(explanation)["sentence"]
    return [*(f"{name:<10}  {console.plain(value)}" for name, value in facts.items()), *policies, *counted, *against,
            f"answer      {told}"]


def _registered(explanation: Explanation) -> str:
    one = explanation.registration
    if one is None:
        return "no"
    said = (("model", one.model), ("order", one.order), ("delegate", one.delegate))
    whose = f"to customer {one.customer}" + (" by its order" if one.by_order else "") if one.customer else "in stock"
    return ", ".join([whose, *(f"{name} {value}" for name, value in said if value)])


def _routed(explanation: Explanation) -> str:
    judgement = explanation.judgement
    if judgement is None:
        return "none"
    route = judgement.route
    return (f"customer {route.delegate.customer}, delegate {route.delegate.name} ({route.delegate.way.value}), "
            f"because {route.because}")


def _counted(one: shapes.Shape) -> str:
    most = "any number of" if one["max_devices"] is None else one["max_devices"]
    paced = "" if one["claims_per_hour"] is None else (
        f"{one['claims_this_hour']} of {one['claims_per_hour']} claims in this hour; ")
    return (f"{one['holder']}: {one['taken']} of {most} devices taken; {paced}"
            f"{one['attempts_used']} of {one['attempts']} attempts used")
