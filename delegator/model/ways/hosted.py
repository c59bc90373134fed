"""Way `hosted`: there is no server of the customer's; the credential is set here. Its fields, and how people say them.

The invariant: what it makes is a credential for every device, the longest tag included.
Must not live here: making a credential (callbacks.hosted), telling the administrator (notify).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from delegator.model.messages import Credential
from delegator.model.notified import NotificationKind, Target
from delegator.model.secret import Secret
from delegator.model.ways.way import CallbackWay, Reached, Said
from pki.said import visible

_GAP = re.compile(r"\{[^{}]*\}")
_LONGEST = {"{tag}": "T" * 20, "{random}": "r" * 20}


class HostedCallback(Reached, frozen=True):
    """Settings kept here: a fixed password or a pattern, in which `{tag}` and `{random}` are filled per device; and
    who is told, by signed mail or by a signed HTTPS call."""

    user_name: str
    password: Secret
    mail_to: str | None = None
    webhook_url: str | None = None
    webhook_secret: Secret | None = None
    webhook_anchor: str | None = None

    way = CallbackWay.HOSTED
    shown = "{user_name}"
    forms = {  # noqa: RUF012 - read by all, changed by nobody
        "user_name": "text", "password": "password", "mail_to": "mailbox", "webhook_url": "url",
        "webhook_secret": "webhook secret", "webhook_anchor": "anchors"}
    together = {"webhook_url": "webhook_secret"}  # noqa: RUF012
    unsaid = {"password": Secret("{random}")}  # noqa: RUF012 - read by all, changed by nobody
    said = (
        Said("--hosted", "text", "No server: its user is set here. {tag} becomes the service tag.", "USER",
             fill=lambda user: {"user_name": user}),
        Said("--password-file", "password file", "Its password, or a pattern with {tag} and {random}; - is standard "
             "input. Without one each device gets a random password.", "FILE", field="password"),
        Said("--password-prompt", "password prompt", "Ask for the password on the terminal.", field="password"),
        Said("--mail-to", "mail address", "Whom to tell of each device, by signed mail; none for nobody.", "ADDRESS",
             field="mail_to", unset=True),
        Said("--webhook-url", "webhook address", "Where to tell of each device, by a signed call (https); none for "
             "nowhere.", "URL", field="webhook_url", unset=True),
        Said("--webhook-secret-file", "webhook secret file", "The secret that signs that call, 16 characters at least; "
             "- is standard input.", "FILE", field="webhook_secret", unset=True),
        Said("--webhook-anchor", "certificate file", "Who signed that receiver's certificate (PEM), if not one of the "
             "system's authorities.", "FILE", field="webhook_anchor", unset=True))

    @property
    def told_by(self) -> tuple[NotificationKind, ...]:
        if self.mail_to is None and self.webhook_url is None:
            return ()
        return self.target.told_by

    @property
    def target(self) -> Target:
        return Target(self.mail_to, self.webhook_url, self.webhook_secret, self.webhook_anchor)

    @property
    def contact(self) -> tuple[str, int] | None:
        if self.webhook_url is None:
            return None
        parts = urlsplit(self.webhook_url)
        return parts.hostname or "", parts.port or 443

    def check(self, said: Mapping[str, Any]) -> None:
        """As long as both can become, so that no device is the first to find them too long; and what is said now names
        no gap that nobody fills: it would stand in every device as it is. In a password, which may hold any brace, only
        what is a gap in another spelling. What was registered once is served as it stands."""
        filled = [self.user_name, self.password.reveal()]
        for gap, longest in _LONGEST.items():
            filled = [pattern.replace(gap, longest) for pattern in filled]
        Credential(filled[0], Secret(filled[1]))
        wrong = [one for one in _GAP.findall(said.get("user_name", "")) if one not in _LONGEST]
        if "password" in said:
            wrong += [one for one in _GAP.findall(said["password"].reveal())
                      if one not in _LONGEST and re.sub(r"\s", "", one).lower() in _LONGEST]
        if wrong:
            raise ValueError(f"{visible(wrong[0][:40])} is not known; there are {' and '.join(_LONGEST)}")
