"""A7c at the command line: whom to tell, what was told, trying again; and `config check` on mail. T-C11: no secret."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from delegator.model import HostedCallback, NotificationState
from delegator.store import Store
from delegator.store.outbox import Taken
from pki import Folder

from .conftest import Console

SECRET = "Canary-Secret-0123456789"
SENDER = "console@factory.example"
HOOK = ("--webhook-url", "https://acme.example/hook", "--webhook-secret-file", "hook.secret")


@pytest.fixture
def acme(console: Console) -> Console:
    console.ok("customers", "add", "acme", "--title", "Acme")
    Path("hook.secret").touch(mode=0o600)
    Path("hook.secret").write_text(SECRET + "\n")
    return console


def add(console: Console, *words: str) -> dict[str, object]:
    data: dict[str, object] = console.ok("delegates", "add", "small", "--customer", "acme", *words)
    return data


def callback(console: Console) -> HostedCallback:
    async def read(store: Store) -> HostedCallback:
        (delegate,) = await store.delegates()
        assert isinstance(delegate.callback, HostedCallback)
        return delegate.callback
    return console.store(read)


def serve(console: Console, tag: str) -> str:
    console.ok("devices", "add", tag, "--customer", "acme")
    console.serve(tag)
    claims = console.ok("claims", "list", "--tag", tag)
    return str(claims[0]["claim_id"])


def test_A7c_whom_to_tell_is_registered_and_can_be_changed(acme: Console, factory: Folder) -> None:
    add(acme, "--hosted", "admin", "--mail-to", "admin@acme.example", *HOOK, "--webhook-anchor", str(factory.ca_path))
    kept = callback(acme)
    assert (kept.mail_to, kept.webhook_url) == ("admin@acme.example", "https://acme.example/hook")
    assert kept.webhook_secret is not None
    assert kept.webhook_secret.reveal() == SECRET
    assert kept.webhook_anchor == factory.ca_path.read_text()
    acme.ok("delegates", "change", "small", "--unset", "mail-to", "--webhook-url", "https://acme.example/other")
    kept = callback(acme)
    assert (kept.mail_to, kept.webhook_url) == (None, "https://acme.example/other")
    assert kept.webhook_secret.reveal() == SECRET  # type: ignore[union-attr]


@pytest.mark.parametrize("words", [
    ("--mail-to", "no-address"), ("--mail-to", "a@b.example\r\nBcc: c@d.example"), ("--mail-to", "A <a@b.example>"),
    ("--webhook-url", "http://acme.example/"), ("--webhook-url", "https://user:word@acme.example/"),
    ("--webhook-url", "https://acme.example/")])
def test_TB8_what_does_not_fit_is_refused_at_the_door(acme: Console, words: tuple[str, str]) -> None:
    acme.refused(2, "delegates", "add", "small", "--customer", "acme", "--hosted", "admin", *words)


def test_TB8_a_short_or_open_secret_is_refused(acme: Console) -> None:
    words = ("delegates", "add", "small", "--customer", "acme", "--hosted", "admin", *HOOK)
    Path("hook.secret").write_text("short\n")
    assert "openssl rand" in acme.refused(3, *words)
    Path("hook.secret").write_text(SECRET)
    Path("hook.secret").chmod(0o644)
    assert "chmod 600" in acme.refused(3, *words)


def test_A7c_only_a_hosted_delegate_tells(acme: Console) -> None:
    assert "--hosted" in acme.refused(2, "delegates", "add", "d", "--customer", "acme", "--soap", "d.acme.example",
                                      "--mail-to", "admin@acme.example")


def test_A7c_what_was_told_is_listed_and_tried_again(acme: Console) -> None:
    add(acme, "--hosted", "admin", "--mail-to", "admin@acme.example", *HOOK)
    claims = [serve(acme, tag) for tag in ("ABC1234", "ABC1235")]
    found = acme.ok("notifications", "list")
    assert sorted((one["kind"], one["service_tag"], one["state"]) for one in found) == [
        (kind, tag, "waiting") for kind in ("mail", "webhook") for tag in ("ABC1234", "ABC1235")]

    async def fail(store: Store) -> None:
        later = datetime.now(UTC) + timedelta(days=4)
        for kind in callback_kinds:
            (queue,) = await store.outbox.due(kind, later, 1)
            taken = await store.outbox.take(queue, later)
            assert isinstance(taken, Taken)
            await store.outbox.failed(taken, "relay: no answer", later, later)
    callback_kinds = callback(acme).told_by
    acme.store(fail)
    assert {one["last_error"] for one in acme.ok("notifications", "list", "--state", "given up")} == {
        "relay: no answer"}
    assert "relay: no answer" in acme.run("notifications", "list", "--customer", "acme").out
    assert acme.ok("notifications", "retry", "--claim", claims[0]) == {"retried": 2}
    assert acme.ok("notifications", "retry", "--delegate", "other") == {"retried": 0}
    assert acme.ok("notifications", "retry") == {"retried": 4}
    assert acme.ok("notifications", "list", "--state", "given up") == []


def test_TC11_no_command_shows_a_secret(acme: Console) -> None:
    add(acme, "--hosted", "admin", "--mail-to", "admin@acme.example", *HOOK)
    serve(acme, "ABC1234")
    for words in (("delegates", "list"), ("delegates", "show", "small"), ("notifications", "list")):
        acme.run(*words)
        acme.run(*words, "--json")
    assert SECRET not in acme.said
    stored = b"".join(path.read_bytes() for path in Path("var").glob("delegator.db*"))
    assert SECRET.encode() not in stored


def test_A7c_config_check_says_who_waits_for_mail(acme: Console) -> None:
    def about_mail() -> list[dict[str, object]]:
        found = acme.run("config", "check", "--json").json["findings"]
        return [one for one in found if one["what"] == "mail"]
    add(acme, "--hosted", "admin")
    assert about_mail() == []
    acme.ok("delegates", "change", "small", "--mail-to", "admin@acme.example")
    (finding,) = about_mail()
    assert (finding["ok"], finding["path"]) == (False, "small")
    assert "[mail] host" in str(finding["hint"])


def test_A7c_config_check_looks_at_everything_a_mail_needs(acme: Console, factory: Folder,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    def finding(**more: str) -> dict[str, object]:
        for key, value in more.items():
            monkeypatch.setenv(f"DELEGATOR_MAIL__{key.upper()}", value)
        found = acme.run("config", "check", "--json").json["findings"]
        (mail,) = [one for one in found if one["what"] == "mail"]
        return dict(mail)
    monkeypatch.setenv("DELEGATOR_SERVER__CA", str(factory.ca_path))
    assert "sender" in str(finding(host="relay.example"))
    assert f"python -m pki mail {SENDER}" in str(finding(sender=SENDER)["hint"])
    factory.issue("mail-signer", SENDER)
    assert finding()["ok"] is True
    assert "this machine only" in str(finding(security="none")["detail"])
    assert "No such file" in str(finding(security="starttls", password_file="relay.password")["detail"])
    Path("relay.password").write_text("x\n")
    assert "chmod 600" in str(finding()["hint"])
    Path("relay.password").chmod(0o600)
    assert finding(user="delegator")["ok"] is True
    factory.issue("mail-signer", "other@factory.example")
    assert "is not for" in str(finding(sender=SENDER, certificate=str(
        factory.path / "mail" / "other@factory.example.crt"), key=str(
        factory.path / "mail" / "other@factory.example.key"))["detail"])


def test_A7c_an_empty_list_is_no_error(acme: Console) -> None:
    assert acme.ok("notifications", "list", "--state", NotificationState.SENT.value) == []
    assert acme.run("notifications", "list").out == ""
