"""One deadline for all that a request asks of the store, however many steps that takes.

A device waits for the sum of all steps; where each waited its own five seconds it was told after twenty (measured).
The deadline stands still while somebody else is asked, a delegate or the DNS, who has a budget of his own. It is a
number that goes along with the request's task; nobody is woken by it, and whoever waits in the store looks at it.
The invariants: what a request asks of the store ends by then, whatever it comes to; work of its own that a request
begins (`rounds`) has no part of its deadline.
Must not live here: how long (settings), what is given up and how (the drivers of store).
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar, Token


class Within:
    """A request with so many seconds, used in `with`. `until` is the deadline by the loop's clock, None outside."""

    __slots__ = ("_seconds", "_token", "until")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.until: float | None = None
        self._token: Token[Within | None] | None = None

    def __enter__(self) -> Within:
        self.until = asyncio.get_running_loop().time() + self._seconds
        self._token = _AT_HAND.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        _AT_HAND.reset(self._token)

    def leaves(self) -> None:
        """It asks somebody else now, and nothing of the store."""

    def returns(self) -> None:
        """It is back."""


class Elsewhere:
    """In it somebody else is asked: what that takes is added to the deadline of the request at hand."""

    __slots__ = ("_began", "_request")

    def __enter__(self) -> None:
        self._request = _AT_HAND.get()
        self._began = 0.0 if self._request is None else asyncio.get_running_loop().time()
        if self._request is not None:
            self._request.leaves()

    def __exit__(self, *_: object) -> None:
        request = self._request
        if request is not None and request.until is not None:
            request.until += asyncio.get_running_loop().time() - self._began
            request.returns()


class Free:
    """In it there is no request: for work that a request only began."""

    __slots__ = ("_token",)

    def __enter__(self) -> None:
        self._token = _AT_HAND.set(None)

    def __exit__(self, *_: object) -> None:
        _AT_HAND.reset(self._token)


_AT_HAND: ContextVar[Within | None] = ContextVar("request", default=None)


def deadline() -> float | None:
    """When the request at hand must be done with the store, by the loop's clock; None where there is no request."""
    request = _AT_HAND.get()
    return None if request is None else request.until
