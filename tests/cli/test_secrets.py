"""A hosted password is taken from a private place, and no command ever gives it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from delegator.model import Answer, HostedCallback

from .conftest import Console

PLANTED = "Plant3d-Passw0rd"


def _password(console: Console) -> str:
    async def read(store: object) -> str:
        (delegate,) = await store.delegates()  # type: ignore[attr-defined]
        assert isinstance(delegate.callback, HostedCallback)
        return delegate.callback.password.reveal()
    return console.store(read)


def _add(console: Console, *words: str, stdin: str | None = None) -> None:
    console.ok("customers", "add", "acme", "--title", "Acme")
    console.ok("delegates", "add", "small", "--customer", "acme", "--hosted", "admin", *words, stdin=stdin)


def test_a_password_comes_from_a_private_file(console: Console) -> None:
    Path("password").write_text(f"{PLANTED}\nnot this\n")
    Path("password").chmod(0o600)
    _add(console, "--password-file", "password")
    assert _password(console) == PLANTED


def test_a_password_comes_from_standard_input(console: Console) -> None:
    _add(console, "--password-file", "-", stdin=f"{PLANTED}-{{tag}}\r\n")
    assert _password(console) == f"{PLANTED}-{{tag}}"


def test_without_one_each_device_gets_a_random_password(console: Console) -> None:
    _add(console)
    console.ok("devices", "add", "ABC1234", "--customer", "acme")
    console.ok("devices", "add", "ABC1235", "--customer", "acme")
    given = [console.serve(tag) for tag in ("ABC1234", "ABC1235")]
    passwords = {one.credential.password.reveal() for one in given if isinstance(one, Answer)}
    assert len(passwords) == 2
    assert not any(password in console.said for password in passwords)


@pytest.mark.parametrize(("content", "mode"), [(PLANTED, 0o644), ("", 0o600), ("\nsecond line", 0o600),
                                               (b"\xff\xfe", 0o600)])
def test_a_file_that_others_can_read_or_that_holds_none_is_refused(console: Console, content: str | bytes,
                                                                   mode: int) -> None:
    console.ok("customers", "add", "acme", "--title", "Acme")
    Path("password").write_bytes(content if isinstance(content, bytes) else content.encode())
    Path("password").chmod(mode)
    said = console.refused(3, "delegates", "add", "small", "--customer", "acme", "--hosted", "admin",
                           "--password-file", "password")
    assert PLANTED not in said


def test_no_command_ever_gives_a_password_out(console: Console) -> None:
    _add(console, "--password-file", "-", stdin=PLANTED)
    console.ok("devices", "add", "ABC1234", "--customer", "acme")
    answer = console.serve("ABC1234")
    assert isinstance(answer, Answer)
    assert answer.credential.password.reveal() == PLANTED
    for words in (("delegates", "list"), ("delegates", "show", "small"), ("customers", "show", "acme"),
                  ("claims", "list"), ("claims", "show", answer.claim_id), ("devices", "show", "ABC1234"),
                  ("devices", "list"), ("explain", "ABC1234"), ("config", "show"), ("config", "check"),
                  ("delegates", "remove", "small"), ("rules", "list"), ("policies", "list"),
                  ("claims", "release", "ABC1234")):
        console.run(*words)
        console.run(*words, "--json")
    assert PLANTED not in console.said
    assert PLANTED.encode() not in b"".join(path.read_bytes() for path in Path("var").glob("delegator.db*"))
