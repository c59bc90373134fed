"""What an administrator is told: the words of the mail and the JSON of the webhook. Pure.

The invariants: no credential is in reach of this room; every value stands on its own line after its name, without
anything that could end the line or look like another one.
Must not live here: MIME and signatures (wire.mail), sending (net).
"""

from __future__ import annotations

import msgspec

from delegator.model import Customer, Notification
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


def message_id(notification: Notification) -> str:
    """The same for every try of the same thing, so that receivers can drop duplicates."""
    return f"{notification.claim_id}.provisioned.{notification.kind.value}"


def letter(notification: Notification, customer: Customer, sender: str, recipient: str) -> Letter:
    """The mail. Its date is when the claim was issued: a retry is the same mail (RFC 5322 section 3.6.4)."""
    text = _TEXT.format(
        service_tag=notification.service_tag, peer=notification.peer or "unknown",
        claimed=notification.claimed_address or "not told", time=f"{notification.created_at:%Y-%m-%d %H:%M:%S} UTC",
        customer=f"{one_line(customer.title)} ({customer.name})", delegate=notification.delegate,
        delegator=notification.delegator, claim=notification.claim_id)
    return Letter(sender, recipient, f"Device {notification.service_tag} was provisioned", text,
                  notification.created_at, message_id(notification), notification.delegator)


def body(notification: Notification) -> bytes:
    """The webhook's JSON; every try is the same bytes."""
    return msgspec.json.encode({
        "type": "provisioned", "id": message_id(notification), "claim_id": notification.claim_id,
        "service_tag": notification.service_tag, "peer_address": notification.peer,
        "claimed_address": notification.claimed_address,
        "time": f"{notification.created_at:%Y-%m-%dT%H:%M:%SZ}", "customer": notification.customer,
        "delegate": notification.delegate, "delegator": notification.delegator}, order="sorted")


def one_line(text: str) -> str:
    """A customer's own words, without line breaks and other controls."""
    return "".join(char if char.isprintable() else " " for char in text)
