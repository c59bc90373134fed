"""How a notification leaves: signed mail through the operator's relay, a signed call to the customer's receiver.

Certificate, key and password are read at each mail: a renewed signer is used without a reload, and a file that is
not in order delays mail and nothing else.
The invariant: whatever goes wrong is a DelegatorError whose words hold no secret.
Must not live here: retries, the outbox (notify), sockets (net).
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from delegator.config import MailSettings, Settings
from delegator.errors import DelegatorError, Kind
from delegator.model import HOST_NAME, Customer, Notification, NotificationKind, Target
from delegator.model.places import normal_name
from delegator.net import mail, webhook
from delegator.net.aside import aside
from delegator.notify import Carrier, words
from delegator.outbound import Outbound
from delegator.secrecy import read_secret
from delegator.wire.mail import Signer, address, signed, signer_of
from delegator.wire.presented import presented

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MailCarrier:
    """Signed mail. `chain` and `key` are the mail signer's files; `name` is what we call ourselves at the relay."""

    settings: MailSettings
    chain: Path
    key: Path
    name: str
    now: Callable[[], datetime]

    async def deliver(self, notification: Notification, customer: Customer | None, target: Target) -> str:
        assert target.mail_to is not None
        try:
            letter = words.letter(notification, customer, self.settings.sender, target.mail_to)
            signer, relay = await aside(lambda: (self.signer(), self.relay()), "reading the mail signer's files")
            message = signed(letter, signer)
        except ValueError as error:
            raise DelegatorError(Kind.CONFIGURATION, f"mail to {notification.recipient}: {error}") from None
        return await mail.send(relay, self.settings.sender, target.mail_to, message)

    def signer(self) -> Signer:
        """Raises DelegatorError (CONFIGURATION) when it is not in order."""
        hint = f"python -m pki mail {self.settings.sender}; or name yours in [mail] certificate and key"
        try:
            return signer_of(presented(self.chain, self.key, hint), self.settings.sender, self.now())
        except DelegatorError as error:
            raise DelegatorError(error.kind, f"mail signer: {error.detail}", hint=error.hint) from None
        except ValueError as error:
            raise DelegatorError(Kind.CONFIGURATION, f"mail signer {self.chain}: {error}", hint=hint) from None

    def relay(self) -> mail.Relay:
        """Raises DelegatorError (CONFIGURATION) when its password cannot be had."""
        said = self.settings
        password = read_secret(Path(said.password_file), "[mail] password_file",
                               "name a file that holds it") if said.password_file else None
        return mail.Relay(said.host, said.port, mail.Security(said.security), self.name, said.timeout, said.user,
                          password, said.ca)


def delegator_name(settings: Settings) -> str:
    """What this delegator is called. A machine's host name may be anything; what is no host name is not shown."""
    said = normal_name(settings.server.name or socket.gethostname())
    return said if HOST_NAME.fullmatch(said) else "delegator.invalid"


def carriers(settings: Settings, outbound: Outbound, now: Callable[[], datetime]) -> dict[NotificationKind, Carrier]:
    """Every way to tell somebody that settings allow for. Mail that is not in order is logged: devices are served
    all the same, and it is tried again until it is."""
    found: dict[NotificationKind, Carrier] = {NotificationKind.WEBHOOK: WebhookCarrier(outbound, now)}
    carrier = mail_carrier(settings, delegator_name(settings), now)
    if carrier is not None:
        found[NotificationKind.MAIL] = carrier
        try:
            check(carrier)
        except DelegatorError as error:
            log.error("mail is not in order: %s; %s", error.detail, error.hint)
    return found


def mail_carrier(settings: Settings, name: str, now: Callable[[], datetime]) -> MailCarrier | None:
    """The carrier that settings name; None where no relay is named."""
    said = settings.mail
    if not said.host:
        return None
    stem = Path(settings.server.ca).parent / "mail" / said.sender
    chain = Path(said.certificate) if said.certificate else stem.with_name(f"{said.sender}.crt")
    key = Path(said.key) if said.key else stem.with_name(f"{said.sender}.key")
    return MailCarrier(said, chain, key, name, now)


def check(carrier: MailCarrier) -> str:
    """Everything a mail would need, short of the relay itself. Raises DelegatorError (CONFIGURATION)."""
    try:
        address(carrier.settings.sender)
    except ValueError as error:
        raise DelegatorError(Kind.CONFIGURATION, f"[mail] sender: {error}",
                             hint="set [mail] sender, such as delegator@example.com") from None
    mail.smtp_library()
    carrier.relay().check()
    if carrier.settings.ca:
        mail.relay_anchors(carrier.settings.ca)
    end = carrier.signer().certificate.not_valid_after_utc
    return f"signs as {carrier.settings.sender}, until {end:%Y-%m-%d}"


@dataclass(frozen=True, slots=True)
class WebhookCarrier:
    """Signed HTTPS calls."""

    outbound: Outbound
    now: Callable[[], datetime]

    async def deliver(self, notification: Notification, customer: Customer | None, target: Target) -> str:
        if target.webhook_url is None or target.webhook_secret is None:
            raise DelegatorError(Kind.CONFIGURATION, f"delegate {notification.recipient} has no webhook secret")
        to = webhook.Webhook(target.webhook_url, target.webhook_secret, target.webhook_anchor)
        return f"HTTP {await webhook.post(to, words.body(notification), self.outbound, self.now)}"
