"""The options that say a policy, the same wherever one is said: `policies add`, `change` and `try`.

The invariant: what an option does not say is left as it is; a time without its zone is refused, never guessed.
Must not live here: which fields go together (desk.policies), policies in files (desk.policy_file), what a command does
with a policy (policies).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import click

from delegator.cli.parameters import as_usage, option_of, ranged, typed
from delegator.desk import forms, policies
from delegator.model import Policy

Function = TypeVar("Function", bound=Callable[..., Any])
_TIME = "ISO 8601 with its zone, or a date, which begins at midnight UTC."
_OPTIONS = (
    click.option("--identity", type=click.Choice(policies.IDENTITIES),
                 help="The certificate to show: the device's own (unless said), or the one that all share."),
    click.option("--from", "valid_from", type=typed(forms.moment), metavar="TIME", help=f"Not before. {_TIME}"),
    click.option("--until", "valid_until", type=typed(forms.moment), metavar="TIME", help=f"Not from then on. {_TIME}"),
    click.option("--hours", type=typed(forms.opening), multiple=True, metavar="'DAYS HH:MM-HH:MM ZONE'",
                 help="Open only then, such as 'Mon-Fri 08:00-18:00 Europe/Berlin'; may be repeated."),
    click.option("--network", "networks", type=typed(forms.network), multiple=True, metavar="NETWORK",
                 help="From addresses of this network; may be repeated."),
    click.option("--domain", "domains", type=typed(forms.domain), multiple=True,
                 help="From addresses whose name in the DNS, forward-confirmed, is in this domain; may be repeated. "
                      "With networks too, either is enough."),
    click.option("--own-anywhere", is_flag=True, default=None,
                 help="Networks and domains bind shared certificates only."),
    click.option("--approved-only", is_flag=True, default=None,
                 help="Only devices on its list: delegator policies approve."),
    click.option("--max-devices", type=ranged(policies.MAX_DEVICES), help="How many devices may hold a claim at once."),
    click.option("--claims-per-hour", type=ranged(policies.CLAIMS_PER_HOUR),
                 help="How many claims may be opened in any hour."),
    click.option("--attempts", type=ranged(policies.ATTEMPTS),
                 help="Claims that one device may let expire; 10 unless said."),
    click.option("--lease", type=typed(forms.duration),
                 help="How long a device may ask again for the same credential; 24h unless said."),
    click.option("--callbacks", type=typed(forms.callbacks), metavar="KIND[,KIND]",
                 help="Allowed ways to a delegate: soap, ssh, hosted, local. All unless said."),
    click.option("--shared-by-domain", is_flag=True, default=None,
                 help="Let a shared certificate be enough where only reverse DNS led to the customer. Needs --identity "
                      "shared or either too."),
    click.option("--no-custom-operations", "custom_operations", flag_value=False, default=None,
                 help="Allow nothing: no device is sent to a delegate."),
)
FIELDS = {
    "identity": "identity", "from": "valid_from", "until": "valid_until", "hours": "hours", "network": "networks",
    "domain": "domains", "own-anywhere": "own_anywhere", "approved-only": "approved_only",
    "max-devices": "max_devices", "claims-per-hour": "claims_per_hour", "attempts": "attempts", "lease": "lease",
    "callbacks": "callbacks", "shared-by-domain": "shared_by_domain", "no-custom-operations": "custom_operations"}
"""From an option to the field of a policy that it says."""


def policy_options(function: Function) -> Function:
    """Adds all options that say a policy."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def unset_option(function: Function) -> Function:
    """Adds --unset, for commands that change a policy."""
    return click.option("--unset", type=click.Choice(list(FIELDS)), multiple=True, metavar="OPTION",
                        help="Take back what this option said, such as max-devices; may be repeated.")(function)


def set_option(function: Function) -> Function:
    """Adds --set, for commands whose own options mean something else."""
    return click.option("--set", "settings", multiple=True, metavar="OPTION[=VALUE]",
                        help="What an option of `policies add` says, such as max-devices=100 or approved-only; may be "
                             "repeated.")(function)


def parsed(settings: Iterable[str]) -> dict[str, Any]:
    """OPTION[=VALUE] read by the options themselves. Raises UsageError."""
    words: list[str] = []
    for one in settings:
        option, equals, value = one.partition("=")
        words += [f"--{option}", value] if equals else [f"--{option}"]
    try:
        return click.command("--set")(policy_options(lambda **said: said)).make_context("--set", words).params
    except click.UsageError as error:
        raise click.UsageError(f"--set: {error.format_message()}") from None


def stated(options: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that were said, as a policy has them."""
    said = {name: value for name, value in options.items() if name in FIELDS.values() and value not in (None, ())}
    return said | ({"identity": policies.identity(said["identity"])} if "identity" in said else {})


_CALLED = {"networks": "network", "domains": "domain", "custom_operations": "no-custom-operations"}
"""Options that are called otherwise than the field in a policy's shape."""


def changed(policy: Policy, options: Mapping[str, Any], unset: Iterable[str] = ()) -> Policy:
    """The policy with what was said, and without what was taken back. Raises UsageError for what makes no sense."""
    with as_usage(lambda field: option_of(_CALLED.get(field, field))):
        return policies.changed(policy, stated(options), [FIELDS[name] for name in unset])
