"""Callback `hosted`: there is no server of the customer's; the credential is set here, fixed or by a pattern.

In a pattern `{tag}` becomes the service tag and `{random}` twenty random characters of A-Z a-z 0-9 - _ (120 bits).
The invariant: it needs nobody else, so opening and issuing the claim can share one commit.
Must not live here: sealing, notification of the administrator.
"""

from __future__ import annotations

import secrets
from datetime import datetime

from delegator.errors import DelegatorError, Kind
from delegator.model import Callback, Credential, Delegate, DelegateRequest, HostedCallback, Secret

_RANDOM_BYTES = 15


def _filled(pattern: str, tag: str) -> str:
    """Plain replacement, not str.format: a pattern is a customer's text and may hold any other brace."""
    if "{" not in pattern:
        return pattern
    filled = pattern.replace("{tag}", tag)
    return filled.replace("{random}", secrets.token_urlsafe(_RANDOM_BYTES)) if "{random}" in filled else filled


def compose(request: DelegateRequest, settings: Callback, not_after: datetime) -> Credential:
    """The credential for one claim. Raises DelegatorError (UNAVAILABLE) where the settings make none: an older release
    took more of them."""
    assert isinstance(settings, HostedCallback)
    tag = request.device.service_tag
    try:
        return Credential(_filled(settings.user_name, tag), Secret(_filled(settings.password.reveal(), tag)), not_after)
    except ValueError as error:
        raise DelegatorError(Kind.UNAVAILABLE, f"hosted settings for device {tag}: {error}",
                             hint="delegator delegates change NAME --hosted USER --password-prompt") from None


async def reach(delegate: Delegate, needs: object) -> str:
    return "its settings are kept here, so there is nobody to reach"


def check(callback: Callback) -> None:
    """All that can be known of it its own fields say."""


def remarks(callback: Callback) -> tuple[str, ...]:
    return ()


def lacking() -> DelegatorError | None:
    return None
