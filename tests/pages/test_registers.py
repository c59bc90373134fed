"""Pages about what is registered, and what is kept of it: policies, claims, plans, the audit."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from . import bases
from .reader import reading
from .scene import Scene

pytestmark = pytest.mark.slow


def _hosted(place: Scene, *customers: str, tags: tuple[str, ...] = ("ABC1234", "ABC1235")) -> None:
    """Customers whose credentials are kept here; the first one owns the devices."""
    for name in customers:
        place.run(f"delegator customers add {name} --title {name.title()}\n"
                  f"delegator delegates add {name}-berlin --customer {name} --hosted '{name}-{{tag}}'")
    for tag in tags:
        place.run(f"delegator devices add {tag} --customer {customers[0]}")


def test_policies(place: Scene, first_start: Path) -> None:
    """The page's policy says hours: a device that comes at another time is let in once they are taken back."""
    bases.begin(place, first_start)
    _hosted(place, "acme")
    with reading(place, "docs/policies.md", test_policies) as page:
        page.run("delegator policies add rollout")
        page.run("delegator policies add racks")
        page.run("delegator policies try rollout")
        place.run("delegator policies change rollout --unset hours")
        place.restart()
        assert place.activated("ABC1234")["user_name"] == "acme-ABC1234"


def test_claims(place: Scene, first_start: Path) -> None:
    """A device goes back to stock, to another owner, back, to the other one by a signature, and gets a new board."""
    bases.begin(place, first_start)
    _hosted(place, "acme", "globex")
    with reading(place, "docs/claims.md", test_claims) as page:
        assert place.activated("ABC1234")["user_name"] == "acme-ABC1234"
        page.run("delegator devices return")
        place.device("ABC1235", ends=NOT_ENTITLED)
        _sell(place, "ABC1234")
        assert place.activated("ABC1234", "--again")["user_name"] == "acme-ABC1234"
        page.run("delegator transfers offer")
        assert place.activated("ABC1234", "--again")["user_name"] == "globex-ABC1234"
        place.run("delegator devices return ABC1234")
        _sell(place, "ABC1234")
        place.run("delegator transfers offer ABC1234 --to globex")
        page.run("openssl genpkey")
        page.run("delegator transfers statement accept")
        place.restart()
        assert place.activated("ABC1234", "--again")["user_name"] == "globex-ABC1234"
        last = max(json.loads(place.run("delegator transfers list --json")), key=lambda one: str(one["offered_at"]))
        place.words["0f3c7a1b2d4e5f60718293a4b5c6d7e8"] = last["transfer_id"]
        assert "holds" in page.run("delegator transfers show"), "the signature"
        page.run("python -m pki device ABC1234 --renew")
        assert place.activated("ABC1234", "--again")["user_name"] == "globex-ABC1234"


NOT_ENTITLED = 35


def _sell(place: Scene, tag: str) -> None:
    """What the page says in a sentence: sell it again."""
    place.run(f"delegator devices change {tag} --customer acme")


def test_billing(place: Scene, first_start: Path) -> None:
    """Plans that begin in a month that is over; the device that is activated now is in the one that is not."""
    bases.begin(place, first_start)
    _hosted(place, "acme")
    with reading(place, "docs/billing.md", test_billing) as page:
        page.run("delegator plans add standard")
        page.run("delegator usage --month")
        page.run("delegator usage close")
        page.run("delegator usage reconcile")
        place.activated("ABC1234")
        place.restart()
        place.activated("ABC1235")
        (line, *_) = json.loads(place.run("delegator usage --json"))["lines"]
        assert (line["customer"], line["quantity"]) == ("acme", 2)



def test_audit(place: Scene, first_start: Path) -> None:
    """What a device caused is found, shown, exported and verified, and a device is served after all that."""
    bases.begin(place, first_start)
    _hosted(place, "acme")
    with reading(place, "docs/audit.md", test_audit) as page:
        place.activated("ABC1234")
        place.stop("delegator")
        head = re.findall(r"main:\d+:[0-9a-f]{64}", place.run("delegator audit verify"))[-1]
        place.start("delegator")
        place.words |= {"show 4711": f"show {head.split(':')[1]}", _shown_head(): head}
        assert "claim.issued" in page.run("delegator audit list --tag")
        page.run("delegator audit verify --head")
        place.activated("ABC1235")


def _shown_head() -> str:
    return re.findall(r"main:4711:[0-9a-f]{64}", bases.block("docs/audit.md", "delegator audit verify --head"))[0]
