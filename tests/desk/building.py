"""Every value that people can write, built from every sheet and form of the desk, with every field wrong in turn.

It is run with pytest and, by `python -m tests.desk.building`, in an interpreter that has no click. The sheets and forms
are those that the desk has: one that nobody wrote a case for fails.
Must not live here: what a command line makes of it (tests/cli).
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NOW = datetime(2026, 3, 1, 8, tzinfo=UTC)
Said = dict[str, Any]


def _pem(name: str, kind: str) -> str:
    """A certificate of an authority of our own, or its key."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    from pki import Authority, keys

    key = keys.generate()
    if kind == "key":
        return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Authority.found(name, None, key).certificate.public_bytes(Encoding.PEM).decode()


def _ssh(kind: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    if kind == "host":
        return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()


ANCHOR, KEY, HOST_KEY, LOGIN_KEY = _pem("Acme", "certificate"), _pem("Acme", "key"), _ssh("host"), _ssh("login")
PROGRAM = sys.executable
HOSTED: Said = {"user_name": "admin-{tag}", "password": "{random}", "mail_to": "admin@acme.example",
                "webhook_url": "https://hook.acme.example/x", "webhook_secret": "s" * 16, "webhook_anchor": ANCHOR}
GOOD: dict[str, Said] = {
    "customer": {"name": "acme", "title": "Acme Corporation", "policy": "rollout", "enabled": True},
    "device": {"service_tag": "ABC1234", "serial_number": "SN-0042", "mac_addresses": ["00:1A:2B:3C:4D:5E"],
               "model": "R750", "order": "4711", "delegate": "acme-berlin", "customer": "acme"},
    "order": {"order": "4711", "customer": "acme", "delegate": "acme-berlin"},
    "rule": {"name": "berlin", "delegate": "acme-berlin", "delegator": None, "priority": 10, "model": "R750",
             "tag_prefix": "AB", "mac_prefix": "00:1A:2B", "network": "192.0.2.0/24", "domain": "acme.example",
             "order": "4711", "any_genuine_device": False},
    "policy": {"name": "rollout", "identity": "own", "from": "2026-03-01", "until": "2026-04-01T18:00:00+02:00",
               "hours": ["Mon-Fri 08:00-18:00 UTC"], "networks": ["192.0.2.0/24"], "domains": ["acme.example"],
               "own_anywhere": True, "approved_only": False, "max_devices": 500, "claims_per_hour": 60, "attempts": 3,
               "lease": "24h", "callbacks": ["soap", "ssh"], "shared_by_domain": False, "custom_operations": True},
    "plan": {"name": "standard", "currency": "EUR", "price": "0.25", "since": "2026-12", "included": 1000,
             "prices": {"ssh": "0.15"}, "base_fee": "500"},
    "offer": {"devices": ["ABC1234", "SN-0042"], "to": "globex", "until": "2026-04-01", "customer": "acme",
              "because": "sold"},
    "return": {"devices": ["ABC1234"], "order": "returned", "because": "RMA 2026-0815"},
    "repair": {"service_tag": "ABC1234", "key": "ab" * 32, "within": "3d", "because": "ticket 4711"},
    "callback soap": {"host": "delegate.acme.example", "port": 8443, "path": "/soap", "trust_anchor": ANCHOR,
                      "address": "192.0.2.7"},
    "callback ssh": {"host": "paris.acme.example", "port": 22, "user": "delegator", "private_key": LOGIN_KEY,
                     "host_key": HOST_KEY, "command": "getCred {tag} {ip}", "address": "192.0.2.7"},
    "callback hosted": HOSTED,
    "callback local": {"program": PROGRAM, "arguments": ["-c", "pass"], "python": None},
    "delegate": {"name": "acme-small", "customer": "acme", "callback": {"kind": "hosted", **HOSTED},
                 "url": "https://delegate.acme.example/start", "trust_anchor": ANCHOR, "policy": "rollout",
                 "enabled": True, "priority": 100, "weight": 1},
}
"""By what a sheet is for: every field with what is right."""
_NAME: tuple[Any, ...] = ("", "Acme", "a b", "x" * 64, "-x")
_WORDS: tuple[Any, ...] = ("", "  ", "x" * 201, "bell\a")
_PASTED: tuple[Any, ...] = ("", "no PEM", ANCHOR + KEY, KEY)
_URL: tuple[Any, ...] = ("", "http://acme.example", "https://u:p@acme.example/", "https:///x", "ftp://acme.example")
_HOST: tuple[Any, ...] = ("", "a b", "-x", "host:22", "../x")
_SWITCH: tuple[Any, ...] = ("yes", 1, 0)
_NUMBER: tuple[Any, ...] = (-1, True, "7", 1.5)
_PRIORITY: tuple[Any, ...] = (*_NUMBER, 1_000_001)
_TIME: tuple[Any, ...] = ("", "tomorrow", "2026-13-01", "2026-03-01T08:00:00")
_MOST = [f"SN-{number}" for number in range(2001)]
_HOST_OF = {"host": _HOST, "port": (0, 65536, *_NUMBER), "address": _HOST}
WRONG: dict[str, dict[str, tuple[Any, ...]]] = {
    "customer": {"name": _NAME, "title": _WORDS, "policy": _NAME, "enabled": _SWITCH},
    "device": {"service_tag": ("", "abc1234", "ABC", "ABC 1234"), "serial_number": ("", "To be filled", "00000000"),
               "mac_addresses": (["x"], ["00:00:00:00:00:00"], "00:1A:2B:3C:4D:5E", [7]), "model": ("", "R\n1"),
               "order": _WORDS, "delegate": _NAME, "customer": _NAME},
    "order": {"order": _WORDS, "customer": _NAME, "delegate": _NAME},
    "rule": {"name": _NAME, "delegate": _NAME, "delegator": ("", "a b", "http://x", "host:0"), "priority": _PRIORITY,
             "model": ("", "R\n1"), "tag_prefix": ("", "ab", "A" * 21), "mac_prefix": ("", "0", "zz"),
             "network": ("", "192.0.2.7/24", "x", "::ffff:0:0/90"), "domain": _HOST, "order": _WORDS,
             "any_genuine_device": _SWITCH},
    "policy": {"name": _NAME, "identity": ("", "mine"), "from": _TIME, "until": _TIME,
               "hours": ("Mon", ["Mon"], ["Mon 08:00-18:00 Nowhere/There"]),
               "networks": ("192.0.2.0/24", ["192.0.2.7/24"]), "domains": ([""], ["a b"]), "own_anywhere": _SWITCH,
               "approved_only": _SWITCH, "max_devices": _NUMBER, "claims_per_hour": (0, *_NUMBER),
               "attempts": (0, *_NUMBER), "lease": ("", "24", "367d", "0h"),
               "callbacks": ("soap", ["smoke"], ["soap,ssh"]), "shared_by_domain": _SWITCH,
               "custom_operations": _SWITCH},
    "plan": {"name": _NAME, "currency": ("", "eur", "EURO"), "price": ("", "-1", "0.1234567", "1e3"),
             "since": ("", "2026-13", "1999-12"), "included": (*_NUMBER, 1_000_000_001),
             "prices": ({"smoke": "1"}, {"ssh": "x"}, {"ssh": 1}, "0.25"), "base_fee": ("", "x")},
    "offer": {"devices": ("ABC1234", [""], ["To be filled"]), "to": _NAME, "until": _TIME, "customer": _NAME,
              "because": _WORDS},
    "return": {"devices": ("ABC1234", [""]), "order": _WORDS, "because": _WORDS},
    "repair": {"service_tag": ("", "abc1234"), "key": ("", "ab", "zz" * 32), "within": ("", "24", "367d"),
               "because": _WORDS},
    "callback soap": {**_HOST_OF, "path": ("", "soap", "/a b"), "trust_anchor": _PASTED},
    "callback ssh": {**_HOST_OF, "user": ("", "a b", "-x", "x" * 65), "private_key": ("", "no key", ANCHOR),
                     "host_key": ("", "ssh-ed25519 AAAA"), "command": ("", "getCred {tga}", "true; {tag}")},
    "callback hosted": {"user_name": (7,), "password": ("", "a\nb", "x" * 2000), "mail_to": ("", "none", "a b"),
                        "webhook_url": _URL, "webhook_secret": ("", "s" * 15), "webhook_anchor": _PASTED},
    "callback local": {"program": ("", "bin/true", "/a\0b"), "arguments": ("-c", ["a\0b"]), "python": ("", "a b", "x")},
    "delegate": {"name": _NAME, "customer": _NAME, "url": _URL, "trust_anchor": _PASTED, "policy": _NAME,
                 "enabled": _SWITCH, "priority": _PRIORITY, "weight": (0, *_PRIORITY),
                 "callback": ({}, {"kind": "smoke"}, "hosted", {"kind": "hosted", **HOSTED, "webhook_secret": "short"},
                              {"kind": "soap", "host": "a b"}, {"kind": "ssh", "host": "x"})},
}
"""What is wrong for each field. To all of them a number with a point is, and a mapping that nobody asked for."""
TOGETHER: dict[str, tuple[str, Said, str]] = {
    "until before from": ("policy", {"until": "2026-02-01"}, "until: is not after from"),
    "until at from": ("policy", {"until": "2026-03-01"}, "until: is not after from"),
    "two ways in one word": ("policy", {"callbacks": ["soap,ssh"]}, "callbacks: 'soap,ssh' must be one of soap, ssh"),
    "no identifier": ("device", {"service_tag": None, "serial_number": None, "mac_addresses": []}, "say which device"),
    "nobody's": ("device", {"customer": None, "order": None, "delegate": None}, "say whose it is"),
    "in stock with a delegate": ("device", {"customer": None}, "say whose it is"),
    "leads nowhere": ("rule", {"delegate": None}, "name either"),
    "leads to two": ("rule", {"delegator": "other.example"}, "name either"),
    "asks nothing": ("rule", dict.fromkeys(("model", "tag_prefix", "mac_prefix", "network", "domain", "order")),
                     "asks nothing of a device"),
    "none for a plan": ("plan", {"name": "none"}, "cannot be named none"),
    "more digits than its currency has": ("plan", {"currency": "JPY", "base_fee": "0.5"}, "digits behind the point"),
    "an offer in the past": ("offer", {"until": "2026-02-28"}, "is in the past"),
    "too many at once": ("offer", {"devices": _MOST}, "more than 2000 devices"),
    "too many back": ("return", {"devices": _MOST}, "more than 2000 devices"),
    "none to offer": ("offer", {"devices": []}, "say which"),
    "none to return": ("return", {"devices": []}, "say which"),
    "a private key beside what goes out to devices": ("callback soap", {"trust_anchor": ANCHOR + KEY},
                                                      "trust_anchor: it holds a private key"),
    "a private key beside a delegate's": ("delegate", {"trust_anchor": KEY + ANCHOR}, "it holds a private key"),
    "webhook without its secret": ("callback hosted", {"webhook_secret": None}, "needs"),
    "a gap that nobody fills": ("callback hosted", {"user_name": "admin-{tga}"}, "{tga} is not known"),
    "a gap in another spelling": ("callback hosted", {"password": "{ Random }"}, "is not known"),
    "a user too long once it is filled": ("callback hosted", {"user_name": "x" * 1020 + "{tag}"}, "user"),
    "no program": ("callback local", {"program": "/nowhere/at/all"}, "is not a program that can be run"),
    "no folder": ("callback local", {"program": "/nowhere", "python": "delegate:credential"}, "is not a folder"),
}
"""What is right by itself and wrong together."""


# --- what the desk has --------------------------------------------------------------------------------------------


def modules() -> Iterator[types.ModuleType]:
    from delegator import desk

    for found in pkgutil.walk_packages(desk.__path__, "delegator.desk."):
        yield importlib.import_module(found.name)


def sheets() -> dict[str, Any]:
    """Every sheet of the desk by what it is for; one that depends on the time is made now."""
    from delegator.desk.sheets import Sheet

    found: dict[str, Any] = {}
    for module in modules():
        for value in vars(module).values():
            for one in value.values() if isinstance(value, dict) else [value]:
                if isinstance(one, Sheet):
                    found[one.noun] = one
            if inspect.isfunction(value) and str(inspect.signature(value).return_annotation).startswith("Sheet[") and (
                    list(inspect.signature(value).parameters) == ["now"]):
                made = value(NOW)
                found[made.noun] = made
    return found


def words() -> dict[str, Callable[[str], Any]]:
    """Every form of one word: public functions of one text in the modules of forms."""
    from delegator.desk import audited, forms, plans, policies

    return {f"{module.__name__.rpartition('.')[2]}.{name}": value for module in (forms, audited, policies, plans)
            for name, value in vars(module).items()
            if inspect.isfunction(value) and value.__module__ == module.__name__ and not name.startswith("_")
            and [one.annotation for one in inspect.signature(value).parameters.values()] == ["str"]}


WORDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "forms.name": ("acme", ("", "Acme", "a b")), "forms.owner": ("domain:acme.example", ("", "domain:", "a b")),
    "forms.tag": ("ABC1234", ("", "abc1234")), "forms.serial": ("SN-1", ("", " ", "a b")),
    "forms.own_serial": ("SN-1", ("", "Default string", "To be filled by O.E.M.")),
    "forms.own_mac": ("00:1A:2B:3C:4D:5E", ("", "FF:FF:FF:FF:FF:FF")), "forms.identifier": ("ABC1234", ("", "a b")),
    "forms.model_name": ("R750", ("", "\n")), "forms.claim_id": ("0" * 32, ("", "x")),
    "forms.words": ("why", ("", "\a")), "forms.mac": ("00-1a-2b-3c-4d-5e", ("", "00:1A")),
    "forms.tag_prefix": ("AB", ("", "ab")), "forms.mac_prefix": ("00:1A", ("", "zz")),
    "forms.domain": ("acme.example.", ("", "a b")), "forms.delegator": ("other.example:4433", ("", "a b")),
    "forms.ip": ("192.0.2.7", ("", "host", "192.0.2.0/24")), "forms.network": ("192.0.2.0/24", ("", "192.0.2.7/24")),
    "forms.address": ("delegate.acme.example", ("", "a b")), "forms.soap": ("d.example:8443/x", ("", ":1", "d:0")),
    "forms.path": ("/soap", ("", "soap")), "forms.ssh_user": ("delegator", ("", "a b")),
    "forms.ssh": ("u@h.example:22", ("", "h.example", "u@h:0")), "forms.host": ("h.example:22", ("", "a b", "h:99999")),
    "forms.host_key": (HOST_KEY, ("", "ssh-ed25519 x")), "forms.ssh_command": ("getCred {tag}", ("", "{tga}")),
    "forms.place": ("/opt/x", ("", "x")), "forms.argument": ("-c", ("\0",)),
    "forms.function": ("delegate:credential", ("", "x")), "forms.url": ("https://d.example/", ("",
                                                                                               "http://d.example/")),
    "forms.mailbox": ("a@b.example", ("", "none")), "forms.mail_address": ("none", ("", "a b")),
    "forms.webhook_url": ("none", ("", "http://x")), "forms.moment": ("2026-03-01", ("", "2026-03-01T08:00:00")),
    "forms.duration": ("24h", ("", "367d", "0s")), "forms.month": ("2026-11", ("", "2026-13")),
    "forms.fee": ("0.25", ("", "-1")), "forms.currency": ("EUR", ("", "eur")),
    "forms.fingerprint": (":".join(["AB"] * 32), ("", "ab")),
    "forms.opening": ("Mon 08:00-18:00 UTC", ("", "Mon", "Mon 08:00-18:00 No/Where")),
    "forms.callbacks": ("soap, ssh", ("", "smoke")),
    "audited.head": (f"main:7:{'ab' * 32}", ("", "main:7")), "audited.row": ("main:7", ("", "x")),
    "audited.age": ("400d", ("", "0d", "400")), "policies.identity": ("own", ("", "mine")),
    "plans.price": ("ssh=0.15", ("", "smoke=1", "ssh=")),
}
"""By the form: a word that fits, and words that do not."""


# --- cases --------------------------------------------------------------------------------------------------------


def cases() -> Iterator[tuple[str, Callable[[], None]]]:
    """Every case with its name; it raises AssertionError where the desk is not as it must be."""
    known = sheets()
    for noun, sheet in known.items():
        yield noun, lambda noun=noun, sheet=sheet: _right(noun, sheet)  # type: ignore[misc]
        for field in sheet.fields:
            for wrong in (*WRONG.get(noun, {}).get(field, ()), 1.5, {"a": "mapping"}):
                yield (f"{noun}, {field} {str(wrong)[:30]!a}",
                       lambda noun=noun, sheet=sheet, field=field, wrong=wrong: _wrong(  # type: ignore[misc]
                           sheet, {**GOOD[noun], field: wrong}, field))
        for field in sorted(sheet.wanted):
            yield f"{noun} without {field}", lambda noun=noun, sheet=sheet, field=field: _wrong(  # type: ignore[misc]
                sheet, {name: value for name, value in GOOD[noun].items() if name != field}, field)
        yield f"{noun} with more", lambda noun=noun, sheet=sheet: _wrong(  # type: ignore[misc]
            sheet, {**GOOD[noun], "admin": True}, "unknown name 'admin'")
    for name, (noun, said, words_of_it) in TOGETHER.items():
        yield name, lambda noun=noun, said=said, told=words_of_it: _together(  # type: ignore[misc]
            known[noun], {**GOOD[noun], **said}, told)
    for name, form in words().items():
        yield name, lambda name=name, form=form: _word(form, *WORDS[name])  # type: ignore[misc]


def _right(noun: str, sheet: Any) -> None:
    assert set(GOOD[noun]) == set(sheet.fields) == set(WRONG[noun]), "every field has what is right and what is wrong"
    assert sheet.read(GOOD[noun]) is not None


def _refused(form: Callable[[Any], Any], said: Any) -> ValueError:
    try:
        made = form(said)
    except ValueError as error:
        return error
    raise AssertionError(f"taken: {made!r}")


def _wrong(sheet: Any, said: Mapping[str, Any], begin: str) -> None:
    """One field is wrong, so there is one kind of reason, and it begins with that field."""
    from delegator.desk.refusals import Wrong

    error = _refused(sheet.read, said)
    assert isinstance(error, Wrong)
    assert error.reasons
    assert all(one.startswith(begin) for one in error.reasons), error.reasons


def _together(sheet: Any, said: Mapping[str, Any], told: str) -> None:
    assert told in str(_refused(sheet.read, said))


def _word(form: Callable[[str], Any], good: str, wrong: tuple[str, ...]) -> None:
    assert form(good) is not None
    for one in wrong:
        assert str(_refused(form, one)), "refused in words"


def main() -> int:
    """Runs all cases where nobody can import click; says how many."""
    assert sys.modules["click"] is None
    count = 0
    for name, case in cases():
        try:
            case()
        except AssertionError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
        count += 1
    assert set(sheets()) == set(GOOD)
    print(count)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    sys.modules["click"] = None  # type: ignore[assignment]
    sys.exit(main())
