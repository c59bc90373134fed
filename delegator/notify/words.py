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
_SHOWN = {IdentityKind.SHARED: "the certificate that devices share",
          IdentityKind.OWN: "another certificate for this device", None: "unknown"}


def message_id(notification: Notification) -> str:
    """The same for every try of the same thing, so that receivers can drop duplicates."""
    of = "provisioned" if notification.notice is Notice.PROVISIONED else f"contested-{notification.created_at:%Y%m%d}"
    return f"{notification.claim_id}.{of}.{notification.kind.value}"


def letter(notification: Notification, customer: Customer, sender: str, recipient: str) -> Letter:
    """The mail. Its date is when the claim was issued: a retry is the same mail (RFC 5322 section 3.6.4)."""
    frame, subject = _LETTERS[notification.notice]
    text = frame.format(
        service_tag=notification.service_tag, peer=notification.peer or "unknown",
        claimed=notification.claimed_address or "not told", time=f"{notification.created_at:%Y-%m-%d %H:%M:%S} UTC",
        customer=f"{one_line(customer.title)} ({customer.name})", delegate=notification.delegate,
        delegator=notification.delegator, claim=notification.claim_id, shown=_SHOWN[notification.identity],
        most=MOST_A_DAY)
    return Letter(sender, recipient, subject.format(notification.service_tag), text,
                  notification.created_at, message_id(notification), notification.delegator)


_LETTERS = {Notice.PROVISIONED: (_TEXT, "Device {} was provisioned"),
            Notice.SECOND_CLAIMANT: (_SECOND, "Somebody else asked for device {}")}


def body(notification: Notification) -> bytes:
    """The webhook's JSON; every try is the same bytes."""
    identity = {} if notification.identity is None else {"identity": notification.identity.value}
    return msgspec.json.encode({
        "type": notification.notice.value, **identity, "id": message_id(notification),
        "claim_id": notification.claim_id, "service_tag": notification.service_tag, "peer_address": notification.peer,
        "claimed_address": notification.claimed_address,
        "time": f"{notification.created_at:%Y-%m-%dT%H:%M:%SZ}", "customer": notification.customer,
        "delegate": notification.delegate, "delegator": notification.delegator}, order="sorted")


def one_line(text: str) -> str:
    """A customer's own words, without line breaks and other controls."""
    return "".join(char if char.isprintable() else " " for char in text)
