"""`delegator explain`: asks why, and lays out the answer.

The invariant: everything shown comes from the explanation; exit code 0 means a credential would be given, 5 not.
Must not live here: working the answer out (desk.explanation).
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from delegator.cli import console
from delegator.cli.console import Output
from delegator.cli.parameters import typed
from delegator.cli.session import looking, settings
from delegator.desk import explained, forms, policy_words, shapes
from delegator.errors import APPEARANCES, DelegatorError, Kind
from delegator.model import Device, IdentityKind, Location
from delegator.store import Store
from pki.errors import PkiError

if TYPE_CHECKING:
    from delegator.desk.explanation import Explanation
    from delegator.desk.lately import Lately

_DEVICE = "device"
"""The profile of pki.profiles that a device's own certificate has."""
_REFUSED = APPEARANCES[Kind.NOT_ENTITLED].exit_code


@console.command("explain", "delegator explain ABC1234 --at 2026-03-01T08:00:00Z --from 192.0.2.7")
@click.argument("tag", type=typed(forms.tag))
@click.option("--at", type=typed(forms.moment), metavar="TIME", help="When it asks; now unless said.")
@click.option("--from", "peer", type=typed(forms.ip), metavar="IP", help="From which address; unknown unless said.")
@click.option("--identity", type=click.Choice([kind.value for kind in IdentityKind]), default="own",
              show_default=True, help="With which certificate.")
@click.option("--model", type=typed(forms.model_name), help="The model it says; else the one it is registered with.")
@click.option("--serial", type=typed(forms.serial), help="The serial number it says; else the registered one.")
@click.option("--mac", type=typed(forms.mac), multiple=True, help="A MAC address it says; else the registered ones.")
@click.option("--domain", type=typed(forms.domain), help="The domain it says it is in.")
@looking
async def command(store: Store, tag: str, at: datetime | None, peer: str | None, identity: str, **says: Any) -> Output:
    """Why the device TAG would, or would not, be given a credential.

    Answers with the code that serves devices, and changes nothing. Where reverse DNS is enabled and nothing else leads
    to an owner, the DNS is asked about the address given with --from.
    """
    from delegator.desk.explanation import Question, as_registered, explain
    from delegator.desk.lately import lately
    from delegator.net.reverse import load_domains

    domains = load_domains(settings().domains)
    device = await as_registered(store, Device(tag, says["serial"], says["mac"], says["model"]))
    question = Question(device, Location(domain=says["domain"]), peer or explained.NOWHERE, IdentityKind(identity),
                        at or datetime.now(UTC))
    explanation = await explain(store, question, domains)
    unsaid = peer is None and any(rule.network for rule in await store.rules())
    words = (*await _meant(store, explanation),
             *_asked_dns(explanation, domains is not None), *_not_located(explanation), *_words(explanation, unsaid))
    delegate = None if explanation.judgement is None else explanation.judgement.route.delegate.name
    before = await lately(store, tag, delegate)
    revoked = await _revoked(store, tag, before)
    data = {**explained.whole(explanation), "certificate": explained.certificate(before, revoked),
            "last_time": explained.last_time(before.callback)}
    return Output(data, [*_lines(explanation), *_before(before, revoked)], words,
                  _REFUSED if explanation.verdict.error else 0)


async def _revoked(store: Store, tag: str, before: Lately) -> tuple[str, ...]:
    """The serials that are known to be of this tag, and that the revocation list of the settings names; none where it
    cannot be read here. It holds serials alone, so what else it names is nobody's to say."""
    from delegator.serving.parts import load_trust
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
    from delegator.desk.nearest import spellings

    if explanation.registration is None:
        for one in spellings(explanation.question.device.service_tag):
            if await store.fleet.called(one):
                return (f"note: nothing is registered under that tag; did you mean {one}?",)
    return ()


def _words(explanation: Explanation, unsaid: bool) -> tuple[str, ...]:
    error = explanation.verdict.error
    note = ("note: rules by network were not matched; say the device's address with --from",) if unsaid else ()
    return (*note, f"  next: {error.hint}") if error is not None and error.hint else note


def _not_located(explanation: Explanation) -> tuple[str, ...]:
    """A policy asks from where, and the question does not say."""
    asks = explanation.judgement is not None and any(
        one.policy.networks or one.policy.domains for one in explanation.judgement.policies)
    unknown = explanation.question.peer_address == explained.NOWHERE
    return ("note: a policy asks where the device calls from; say its address with --from",) if asks and unknown else ()


def _asked_dns(explanation: Explanation, enabled: bool) -> tuple[str, ...]:
    """Why a device that nobody registered and no rule matches was not looked up in the DNS."""
    if explanation.judgement is not None or explanation.registration is not None:
        return ()
    if not enabled:
        return ("note: reverse DNS was not asked, it is off: [domains] enabled",)
    unknown = explanation.question.peer_address == explained.NOWHERE
    return ("note: reverse DNS was not asked; say the device's address with --from",) if unknown else ()


def _lines(explanation: Explanation) -> list[str]:
    claim, question, asked = explanation.claim, explanation.question, explained.asked(explanation.question)
    stands = None if claim is None else f"{claim.claim_id}, {claim.state.value}, until {shapes.at(claim.lease_until)}"
    facts: dict[str, object] = {
        "device": question.device.service_tag,
        "asks": f"at {asked['at']}, from {asked['from'] or 'an unknown address'}, "
                f"with its {asked['identity']} certificate",
        "registered": _registered(explanation), "route": _routed(explanation), "claim": stands}
    policies = [f"policy      {one.policy.name} ({one.holder}): {'; '.join(policy_words.said(one.policy))}"
                for one in (explanation.judgement.policies if explanation.judgement else ())]
    against = [f"against     {text}" for _, text in explanation.verdict.reasons]
    counted = [f"limits      {_counted(one)}" for one in explained.limits(explanation)]
    told = explained.told(explanation)["sentence"]
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
