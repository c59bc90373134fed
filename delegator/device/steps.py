"""The four steps of a device: ask, fetch, apply, confirm. Each takes the state at its phase and gives the next.

The line of the first step stays open for the last one, while the two in between take their time.
The invariant: a step's results are on the disk before it returns, and each step may be repeated: a power cut
repeats at most one. Must not live here: when a step is due, and what its failure leads to (flow).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from delegator.device import asking, enrolling, hook, messages, reasons
from delegator.device.answers import Answer, check_credential, read_answer, read_confirmation
from delegator.device.contents import opened
from delegator.device.document import Document
from delegator.device.exchange import Line
from delegator.device.fetching import fetch
from delegator.device.reasons import Failure
from delegator.device.settings import Settings
from delegator.device.state import (
    CREDENTIAL,
    PROVISIONING,
    TRUST_ANCHOR,
    Folder,
    Phase,
    State,
)

log = logging.getLogger("delegator.device")


def _ask(settings: Settings, folder: Folder, state: State, line: Line) -> State:
    log.info("212 asking for a provisioning credential")
    body = messages.ask(settings.identity, state.transaction_id, asking.certificate_request(settings, state))
    by, answer = asking.call(settings, state, messages.ASK, body, read_answer,
                             settings.addresses + state.alternates, line)
    check_credential(answer.credential, settings.limits, basic=answer.delegate is not None)
    log.info("216 got a credential, claim %s", answer.claim_id)
    own = _keep(settings, folder, state, answer)
    if own != state.own:  # whoever confirms with its own certificate shows that it has it
        line.close()
    url = answer.delegate.url if answer.delegate else ""
    return state._replace(phase=Phase.ISSUED, claim_id=answer.claim_id, delegate_url=url,
                          alternates=(by, *answer.alternates), own=own)


def _keep(settings: Settings, folder: Folder, state: State, answer: Answer) -> bool:
    """Everything that came, on the disk; whether this device shows its own certificate from now on."""
    folder.save_credential(answer.credential, answer.claim_id)
    if answer.delegate is None:
        folder.remove(TRUST_ANCHOR)
    else:
        folder.write(TRUST_ANCHOR, answer.delegate.trust_anchor.encode())
    if settings.own is None or not answer.handshake_certificate:
        return state.own
    kept = enrolling.keep(settings.own, state.service_tag, answer.handshake_certificate)
    if kept:
        log.info("216 got a certificate of its own, which is shown from now on")
    return kept or state.own


def _fetch(settings: Settings, folder: Folder, state: State, _line: Line) -> State:
    if not state.delegate_url:
        folder.remove(PROVISIONING)
        return state._replace(phase=Phase.FETCHED)
    credential, anchor = folder.load_credential(), folder.read(TRUST_ANCHOR)
    if credential is None or anchor is None:
        raise Failure(reasons.NO_CREDENTIAL, "the stored credential or trust anchor is gone")
    check_credential(credential, settings.limits, basic=True)
    log.info("218 fetching the provisioning data from %s", state.delegate_url)
    with folder.replacing(PROVISIONING) as new:
        fetch(state.delegate_url, anchor.decode("utf-8", "replace"), credential,
              min(settings.timeout, settings.budget), new.write)
    return state._replace(phase=Phase.FETCHED)


def _apply(settings: Settings, folder: Folder, state: State, _line: Line) -> State:
    if not settings.hook:
        log.warning("no hook: credential and data are left in %s for whoever applies them", folder.path)
        return state._replace(phase=Phase.APPLIED)
    log.info("217 applying with %s", settings.hook[0])
    if folder.load_credential() is None:
        raise Failure(reasons.NO_CREDENTIAL, "the stored credential is gone")
    facts = _facts(folder, state)
    if facts.provisioning is not None:
        _look_at(facts.provisioning)
    hook.apply(settings.hook, facts, settings.hook_timeout, folder.lock)
    return state._replace(phase=Phase.APPLIED)


def _look_at(provisioning: Path) -> None:
    """What is on the disk may have been damaged there, and a hook is not to find that out."""
    document = Document()
    try:
        with opened(provisioning) as file:
            while piece := file.read(_PIECE):
                document.feed(piece)
        document.close()
    except (OSError, ValueError) as error:
        raise Failure(reasons.DELEGATE_FAILED, f"the stored document: {reasons.system_words(error)}") from None


_PIECE = 64 * 1024


def _facts(folder: Folder, state: State) -> hook.Facts:
    provisioning = folder.path / PROVISIONING if state.delegate_url else None
    return hook.Facts(folder.path, folder.path / CREDENTIAL, provisioning, state.service_tag, state.claim_id,
                      state.delegate_url)


def tell(settings: Settings, state: State, cause: Failure, line: Line) -> None:
    """The hook failed, and the delegator should know. What it answers changes nothing: the hook is the reason."""
    try:
        _say(settings, state, messages.FAILED, str(cause), line)
    except Failure as failure:
        log.warning("the delegator could not be told: %s", failure)


def _confirm(settings: Settings, folder: Folder, state: State, line: Line) -> State:
    log.info("218 telling the delegator that this device is deployed")
    _say(settings, state, messages.DEPLOYED, None, line)
    return state._replace(phase=Phase.CONFIRMED)


def _say(settings: Settings, state: State, result: str, detail: str | None, line: Line) -> None:
    body = messages.confirm(state.claim_id, result, state.transaction_id, detail)
    asking.call(settings, state, messages.CONFIRM, body, read_confirmation,
                state.alternates + settings.addresses, line)  # first the one that knows the claim


Step = Callable[[Settings, Folder, State, Line], State]

STEPS: dict[Phase, Step] = {
    Phase.ASKING: _ask,
    Phase.ISSUED: _fetch,
    Phase.FETCHED: _apply,
    Phase.APPLIED: _confirm,
}
