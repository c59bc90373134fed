#!/usr/bin/env python3
"""Asks a delegator for a provisioning credential with zeep, as a device would. Start your own from here.

It reads the WSDL that the very delegator serves, over the same mutually authenticated TLS. It needs Python 3.9 or
later and zeep, nothing of the delegator's own code.
The invariants: the credential goes to standard output and nowhere else; words go to standard error; the factory's
CA is the only authority believed.
Must not live here: retries and confirmation; docs/integrators.md tells the rules.
"""

import sys

if sys.version_info < (3, 9):  # a sentence, where an older one would show a traceback
    sys.stderr.write("soap_call.py needs Python 3.9 or newer, not %d.%d\n" % sys.version_info[:2])
    sys.exit(3)

import argparse
import json
import os
import re
import secrets
from pathlib import Path
from typing import Any

try:
    import requests
    import zeep
    import zeep.exceptions
    from lxml import etree
except ModuleNotFoundError as _missing:
    print(f"soap_call.py: the package {_missing.name} is missing; next: python3 -m pip install zeep (in a virtual "
          "environment), or take soap-call.sh, which needs none", file=sys.stderr)
    sys.exit(2)

DEFAULT_PORT = 4433
NAMESPACE = "{urn:delegator:provisioning:1}"
EXIT_CODES = {"MalformedRequest": 5, "IdentityRejected": 5, "NotEntitled": 5, "TryLater": 75}
"""By fault; any other is the delegator's own fault."""
FAULTY, USAGE, UNREACHABLE = 1, 2, 4
CONNECT_TIMEOUT, ANSWER_TIMEOUT = 10, 60
"""Seconds. A delegator waits for a delegate before it answers."""


def main(argv: "list[str] | None" = None) -> int:
    """Ask once; the exit code."""
    words = _words(argv)
    transaction = words.transaction_id or os.environ.get("TRANSACTION_ID") or secrets.token_hex(16)
    facts, message, code = _asked(words, transaction)
    if message:
        print(f"soap_call.py: {message}", file=sys.stderr)
    lost = _told({**facts, "transaction_id": transaction}, words.json)
    return code or lost


def _words(argv: "list[str] | None") -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="soap_call.py", description="Ask a delegator for a provisioning credential.",
        epilog="exit codes: 0 credential, 1 the delegator's own fault or no answer of a delegator, 2 usage, 4 "
               "unreachable or TLS refused, 5 refused (MalformedRequest, IdentityRejected, NotEntitled), 75 TryLater")
    parser.add_argument("--host", required=True, metavar="HOST[:PORT]", type=_address,
                        help="the delegator; port 4433 unless said")
    parser.add_argument("--cert", required=True, type=_file, help="the device's certificate (PEM)")
    parser.add_argument("--key", required=True, type=_file, help="its private key (PEM)")
    parser.add_argument("--ca", required=True, type=_file, help="the factory CA's certificate (PEM)")
    parser.add_argument("--tag", required=True, help="the device's service tag")
    parser.add_argument("--transaction-id", help="the same at each retry of one device; new and random unless said. "
                        "With a shared certificate it is a secret: give it as TRANSACTION_ID in the environment")
    parser.add_argument("--json", action="store_true", help="one JSON object, the trust anchor included")
    return parser.parse_args(argv)


def _address(host: str) -> str:
    if not host.strip(":"):
        raise argparse.ArgumentTypeError("HOST or HOST:PORT is wanted")
    """HOST:PORT, an IPv6 address in brackets, a name without the final dot that no certificate has."""
    if host.count(":") > 1 and not host.startswith("["):
        host = f"[{host}]"
    name, bracket, port = host.rpartition("]")
    if not bracket:
        name, _, port = host.partition(":")
        return f"{name.removesuffix('.')}:" + (port or str(DEFAULT_PORT))
    return host if port else host + f":{DEFAULT_PORT}"


def _file(name: str) -> str:
    try:
        Path(name).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot read {name}: {error.strerror}") from None
    return name


def _asked(words: argparse.Namespace, transaction: str) -> tuple[dict[str, Any], str, int]:
    """What came of it: facts for standard output, words for standard error, the exit code."""
    nothing: dict[str, Any] = {"fault": None, "retry_after": None, "alternate_delegators": []}
    try:
        answer = _client(words).service.GetProvisioningCredential(
            Device={"ServiceTag": words.tag}, TransactionId=transaction)
    except zeep.exceptions.Fault as fault:
        return _refused(fault)
    except (zeep.exceptions.Error, requests.HTTPError, etree.XMLSyntaxError, AttributeError) as error:
        return nothing, f"no SOAP answer that is understood: {error}; is this a delegator?", FAULTY
    except (requests.RequestException, OSError) as error:
        return nothing, f"no answer from {words.host}: {_cause(error)}", UNREACHABLE
    return _credential(answer), "", 0


def _cause(error: Exception) -> str:
    """urllib3 wraps what happened in a sentence about retries; what happened is what helps."""
    return re.sub(r"\[Errno -?\d+\] ", "", str(getattr(error.args[0] if error.args else None, "reason", error)))


def _client(words: argparse.Namespace) -> zeep.Client:
    """zeep over a session that shows the device's certificate and believes the factory alone."""
    session = requests.Session()
    session.trust_env = False  # no proxy, and no REQUESTS_CA_BUNDLE, which would take the place of `verify`
    session.cert = (words.cert, words.key)
    session.verify = words.ca
    transport = zeep.Transport(session=session, timeout=CONNECT_TIMEOUT, operation_timeout=ANSWER_TIMEOUT)
    return zeep.Client(f"https://{words.host}/?wsdl", transport=transport)


def _credential(answer: Any) -> dict[str, Any]:
    credential, delegate = answer.Credential, answer.Delegate
    ends = credential.NotAfter
    return {
        "user_name": credential.UserName, "password": credential.Password,
        "not_after": None if ends is None else ends.isoformat().replace("+00:00", "Z"),
        "claim_id": answer.ClaimId, "delegate_url": delegate and delegate.URL,
        "trust_anchor": delegate and delegate.TrustAnchor,
        "alternate_delegators": list(answer.AlternateDelegator or ()),
    }


def _refused(fault: zeep.exceptions.Fault) -> tuple[dict[str, Any], str, int]:
    """All that counts stands in the fault's detail; the message is one sentence for all."""
    detail = etree.Element("none") if fault.detail is None else fault.detail
    code = detail.findtext(f".//{NAMESPACE}Code") or fault.code or "a fault without a code"
    seconds = detail.findtext(f".//{NAMESPACE}RetryAfter")
    later = f"; ask again in {seconds} s with the same transaction id" if seconds else ""
    facts = {"fault": code, "retry_after": int(seconds) if seconds else None,
             "alternate_delegators": [one.text for one in detail.iter(f"{NAMESPACE}AlternateDelegator")]}
    return facts, f"{code}: {fault.message}{later}", EXIT_CODES.get(code, FAULTY)


def _told(facts: dict[str, Any], as_json: bool) -> int:
    """Writes the facts; FAULTY where standard output takes them not, since a credential that is lost is no success."""
    try:
        if sys.stdout is None:
            raise OSError(9, "it is closed")
        _tell(facts, as_json)
        sys.stdout.flush()
    except OSError as error:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - or Python tries once more at the end
        print(f"soap_call.py: standard output: {error.strerror}", file=sys.stderr)
        return FAULTY
    return 0


def _tell(facts: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        if value not in (None, []) and name != "trust_anchor":
            print(f"{name}: {' '.join(value) if isinstance(value, list) else value}")


if __name__ == "__main__":
    sys.exit(main())
