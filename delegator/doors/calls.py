"""One SOAP call, at whatever door: bytes become a value, which is answered; the answer or refusal becomes bytes.

Which use case answers which request is a table that the composition hands to a door. A new operation is a row in
wire.messages, a use case, and a row in that table; no door has to be changed.
The invariants: whatever is raised while a call is answered becomes one fault, which says its kind's one public sentence
and nothing of the detail; the caller reads it in the SOAP version that it spoke.
Must not live here: what to answer (the use cases), element names (wire.messages), who hears of a refusal (each door).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from delegator.errors import DelegatorError, Kind
from delegator.wire import canonical, messages, soap
from delegator.wire.http import HttpError, Request, Response, check_media

log = logging.getLogger(__name__)
R = TypeVar("R", bound=messages.Request)
P = ParamSpec("P")
"""What a door tells its use cases besides the request: who asks, and where the steps are written down."""

Operations = Mapping[type[Any], Callable[Concatenate[Any, P], Awaitable[messages.Reply]]]
"""Which use case answers which type of request."""


def operation(asked: type[R], answer: Callable[Concatenate[R, P], Awaitable[messages.Reply]]) -> Operations[P]:
    """One row of the table: here the type checker sees that the use case takes this very request. A use case that has
    nothing to say returns None, and the caller gets an empty answer."""
    return {asked: answer}


class Refusal(NamedTuple):
    """What a call that was refused is answered, the fault's code, and the error behind it with all its reasons."""

    response: Response
    code: str
    error: DelegatorError


class Call:
    """One call under way. `version` is what its caller probably speaks, until its envelope says so itself; `left_out`
    has words for each hint that was not of its form, which operators are told and the caller never."""

    __slots__ = ("asked", "left_out", "version")

    def __init__(self, version: soap.Version = soap.Version.V11) -> None:
        self.version = version
        self.left_out: list[str] = []
        self.asked: soap.Element

    def read(self, request: Request, service: messages.Service) -> messages.Request:
        """The value that was sent, of one of the service's operations. Raises DelegatorError (MALFORMED)."""
        check_media(request)
        # Most calls are written exactly as the schema writes them, and one expression reads those. None means that this
        # one is not: the full parser reads or refuses it.
        said = canonical.read(request.body, service)
        if said is not None:
            self.version, self.asked, value = said
            return value
        envelope = soap.parse(request.body)
        self.version, self.asked = envelope.version, envelope.operation
        return messages.read(self.asked, service, self.left_out)

    def answer(self, reply: messages.Reply) -> Response:
        """The reply to what was asked, as bytes. Raises DelegatorError (UNAVAILABLE) where the schema has no room."""
        body = soap.frame(self.version, messages.render_answer(self.asked, reply))
        return Response(200, {b"Content-Type": self.version.content_type}, body)

    def refuse(self, error: Exception) -> Refusal:
        """The fault for what was raised. What is no DelegatorError is a fault of ours: its traceback is logged."""
        if not isinstance(error, DelegatorError):
            log.error("a fault of ours", exc_info=error)
            error = DelegatorError(Kind.UNAVAILABLE, "unhandled, see the log")
        version = error.version if isinstance(error, soap.SoapError) else self.version
        fault = soap.fault_of(error)
        headers = {b"Content-Type": version.content_type}
        if fault.retry_after is not None:
            headers[b"Retry-After"] = b"%d" % fault.retry_after
        status = error.status if isinstance(error, HttpError) else soap.http_status(version, fault)
        return Refusal(Response(status, headers, soap.render_fault(version, fault)), fault.code, error)
