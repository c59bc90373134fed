"""Whether this device could be activated, without asking for anything: its files, its clock, and each delegator.

The invariant: nothing is written, no claim is opened, and no credential is asked for: a delegator is asked for its
description (WSDL), which it gives to whoever shows a certificate that it accepts.
Must not live here: the activation (flow).
"""

from __future__ import annotations

import stat
import time
from pathlib import Path
from typing import NamedTuple

from delegator.device import reasons, tls
from delegator.device.addresses import Address
from delegator.device.channel import Peer
from delegator.device.exchange import Limit, Request, exchange
from delegator.device.reasons import Failure, Misconfigured, Reason
from delegator.device.settings import Settings

_DESCRIPTION = 1024 * 1024
"""Bytes a delegator's description may have."""


class Finding(NamedTuple):
    """One thing that was looked at. `reason` is why an activation would fail there, None if it would not."""

    what: str
    words: str
    reason: Reason | None = None


def look(settings: Settings) -> list[Finding]:
    """Every delegator is tried, also after one that answers. Raises Misconfigured for files that cannot be used."""
    context = tls.delegator_context(settings.certificate, settings.key, settings.ca)
    return [_files(settings.key), _clock(), *(_reach(settings, address, context) for address in settings.addresses)]


def _files(key: str) -> Finding:
    """Once they were loaded. Who else may read the key is said and no reason: a device may have one user alone."""
    others = stat.S_IMODE(Path(key).stat().st_mode) & 0o077
    remark = f"; others may read the key: `chmod 600 {key}`" if others else ""
    return Finding("files", f"factory CA, certificate and key can be used{remark}")


def _clock() -> Finding:
    shown = time.strftime("%Y-%m-%d %H:%M", time.gmtime())
    if tls.clock_is_set():
        return Finding("clock", f"it shows {shown}Z")
    return Finding("clock", f"it is not set (it shows {shown}Z): certificates are judged by the build time")


def _reach(settings: Settings, address: Address, context: tls.Context) -> Finding:
    name = settings.server_name or address.host
    try:
        answer = exchange(Peer(address, name, settings.proxy), context, Request("GET", "/?wsdl", ()),
                          Limit(settings.timeout, _DESCRIPTION))
    except Failure as failure:
        return Finding(str(address), str(failure), failure.reason)
    except Misconfigured:
        raise
    except Exception as error:
        return Finding(str(address), reasons.shown(f"{type(error).__name__}: {error}"), reasons.ANSWER_NOT_UNDERSTOOD)
    if b"definitions" not in answer.body:
        return Finding(str(address), f"HTTP status {answer.status}, and no description of a delegator",
                       reasons.ANSWER_NOT_UNDERSTOOD)
    return Finding(str(address), "it proves itself, and accepts this device's certificate")
