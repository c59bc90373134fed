"""Way `soap`: the customer's own server. Its fields, and how people say them.

The invariant: `host` is what must stand in its certificate, whatever `address` says.
Must not live here: calling it (callbacks.soap).
"""

from __future__ import annotations

from delegator.model.places import normal_host, normalise, url_elsewhere
from delegator.model.ways.way import CallbackWay, Reached, Said

ADDRESS = Said("--address", "address", "Where to connect, if not to HOST.", field="address", unset=True)


class SoapCallback(Reached, frozen=True):
    """The customer's own server. `host` must stand in its certificate; `address` overrides where to connect."""

    host: str
    port: int = 443
    path: str = "/"
    trust_anchor: str | None = None
    address: str | None = None

    way = CallbackWay.SOAP
    shown = "{where}{path}"
    hears = True
    forms = {"host": "address", "port": "port", "path": "path", "trust_anchor": "anchors", "address": "address"}  # noqa: RUF012 - read by all, changed by nobody
    said = (
        Said("--soap", "soap", "The customer's server; HOST is the name in its certificate. Port 443 and path / unless "
             "said.", "HOST[:PORT][/path]",
             fill=lambda soap: {"host": soap.host, "port": soap.port, "path": soap.path}),
        Said("--callback-ca", "certificate file", "Who signed that server's certificate (PEM), if not the factory CA.",
             "FILE", field="trust_anchor", unset=True),
        ADDRESS)

    def __post_init__(self) -> None:
        normalise(self, host=normal_host, address=normal_host)

    @property
    def contact(self) -> tuple[str, int]:
        return self.address or self.host, self.port

    @property
    def next_url(self) -> str | None:
        return url_elsewhere(self.host, self.port, "/provisioning")

    @property
    def next_anchor(self) -> str | None:
        return self.trust_anchor
