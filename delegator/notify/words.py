"""What an administrator is told: the words of the mail and the JSON of the webhook. Pure.

The invariants: no credential is in reach of this room; every value stands on its own line after its name, without
anything that could end the line or look like another one.
Must not live here: MIME and signatures (wire.mail), sending (net).
"""

from __future__ import annotations

import msgspec

from delegator.model import Customer, IdentityKind, Notice, Notification
from delegator.store.contested import MOST_A_DAY
from delegator.wire.mail import Letter

_TEXT = """\
Device {service_tag} was given its credential.

  service tag   {service_tag}
  called from   {peer}
  its address   {claimed}
  time          {time}
  customer      {customer}
  delegate      {delegate}
  delegator     {delegator}
  claim         {claim}

The address is what the device says itself. The credential is in no mail.
If you expect no such device, ask the manufacturer, naming the claim.
"""

_SECOND = """\
Somebody else asked for device {service_tag}, and was refused.

  service tag   {service_tag}
  asked from    {peer}
  showing       {shown}
  time          {time}
  customer      {customer}
  delegate      {delegate}
  delegator     {delegator}
  claim         {claim}

The claim is the one that holds the device; nothing of it was given away.
If you have just reset this device or changed its main board, tell the
manufacturer, naming the claim. Else somebody tries to pass as your device.
You are told once a day for each device, and of {most} devices a day at most.
"""
_SHOWN = {IdentityKind.SHARED.value: "the certificate that devices share",
          IdentityKind.OWN.value: "another certificate for this device"}


def letter(notification: Notification, customer: Customer | None, sender: str, recipient: str) -> Letter:
    """The mail. Its date is when it happened: a retry is the same mail (RFC 5322 section 3.6.4)."""
    body = notification.body
    frame, subject = _LETTERS.get(notification.event, _AS_WRITTEN)
    said = {name: body.get(name) or "" for name in ("title", "text")}
    facts = {
        "service_tag": body.get("service_tag") or "unknown", "peer": body.get("peer") or "unknown",
        "claimed": body.get("claimed_address") or "not told", "time": f"{notification.at:%Y-%m-%d %H:%M:%S} UTC",
        "customer": "nobody" if customer is None else f"{one_line(customer.title)} ({customer.name})",
        "delegate": notification.recipient, "delegator": _delegator(notification), "claim": notification.subject,
        "shown": _SHOWN.get(body.get("identity") or "", "unknown"), "most": MOST_A_DAY,
        "title": one_line(said["title"]), "text": said["text"]}
    return Letter(sender, recipient, subject.format_map(facts), frame.format_map(facts), notification.at,
                  notification.message_id, _delegator(notification))


def _delegator(notification: Notification) -> str:
    return notification.body.get("delegator") or "delegator.invalid"


_LETTERS = {Notice.PROVISIONED.value: (_TEXT, "Device {service_tag} was provisioned"),
            Notice.SECOND_CLAIMANT.value: (_SECOND, "Somebody else asked for device {service_tag}")}
_AS_WRITTEN = ("{text}", "{title}")
"""Of any other event: whoever wrote the message gave it its words."""


def body(notification: Notification) -> bytes:
    """The webhook's JSON; every try is the same bytes."""
    known: dict[str, str | None] = {
        "type": notification.event, "id": notification.message_id, "time": f"{notification.at:%Y-%m-%dT%H:%M:%SZ}",
        "customer": notification.customer}
    if notification.claim_id is None:
        return msgspec.json.encode({**notification.body, **known, "subject": notification.subject}, order="sorted")
    facts = dict(notification.body)
    return msgspec.json.encode({
        "claim_id": notification.claim_id, "peer_address": facts.pop("peer", None), "claimed_address": None,
        "delegate": notification.recipient, **facts, **known}, order="sorted")


def one_line(text: str) -> str:
    """A customer's own words, without line breaks and other controls."""
    return "".join(char if char.isprintable() else " " for char in text)
