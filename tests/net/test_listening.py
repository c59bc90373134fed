"""Every port listens where it was told to, in both families, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from delegator import config
from delegator.delegate import settings as of_delegate
from delegator.errors import DelegatorError
from delegator.net import listening
from delegator.net.listening import Place, opened, place_of, shown
from delegator.watching import ops
from delegator.watching.metrics import Metrics


@contextlib.contextmanager
def listens(hosts: str | Sequence[str], port: int = 0) -> Iterator[list[Place]]:
    made = opened(hosts, port)
    try:
        yield [place_of(one) for one in made]
    finally:
        for one in made:
            one.close()


def answers(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("setting", [config.Server().host, config.OpsSettings().host, of_delegate.Delegate().host])
def test_what_is_built_in_serves_both_families_with_one_port(setting: config.Hosts) -> None:
    with listens(setting) as places:
        assert len({port for _, port in places}) == 1
        assert all(answers(host, places[0][1]) for host in ("127.0.0.1", "::1"))


def test_a_family_alone_serves_that_family_alone() -> None:
    with listens("::") as ((host, port),):
        assert host == "::"
        assert answers("::1", port)
        assert not answers("127.0.0.1", port)
    with listens("0.0.0.0") as ((_, port),):
        assert not answers("::1", port)


def test_a_name_is_all_its_addresses_and_each_once() -> None:
    with listens(["localhost", "127.0.0.1", "127.0.0.1", "LOCALHOST."]) as places:
        assert "127.0.0.1" in [host for host, _ in places]
        assert len(places) == len(set(places))


def test_ipv4_inside_ipv6_is_ipv4() -> None:
    with listens("::ffff:127.0.0.1") as places:
        assert places[0][0] == "127.0.0.1"


def test_addresses_are_shown_as_everybody_writes_them() -> None:
    with listens(["127.0.0.1", "::1"]) as places:
        port = places[0][1]
        assert shown(places) == [f"127.0.0.1:{port}", f"[::1]:{port}"]


@pytest.mark.parametrize(("hosts", "said"), [
    ("192.0.2.1", "on 192.0.2.1: "), (["127.0.0.1", "2001:db8::1"], "on 2001:db8::1: "), ([], "no host"),
    ("no such host", "'no such host'"), ("127.0.0.1:4433", "'127.0.0.1:4433'"), ("x" * 300, "cannot listen")])
def test_what_cannot_be_is_refused_whole_and_says_what_to_do(hosts: str | list[str], said: str) -> None:
    with pytest.raises(DelegatorError, match=said) as caught:
        opened(hosts, 4433)
    assert caught.value.hint
    with listens("127.0.0.1", 0):  # nothing is left behind that would hold the port
        pass


def test_a_port_that_is_taken_in_one_family_is_taken() -> None:
    with listens("::1") as ((_, port),), pytest.raises(DelegatorError, match=rf"::1 port {port}: Address") as caught:
        opened(["127.0.0.1", "::1"], port)
    assert "ss -ltnp" in caught.value.hint
    assert not answers("127.0.0.1", port)


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
def test_on_a_machine_without_ipv6_what_is_built_in_serves_ipv4(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = listening._listening

    def without(family: int, address: tuple[object, ...]) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(number, os.strerror(number))
        return made(family, address)

    monkeypatch.setattr(listening, "_listening", without)
    for setting in (config.EVERYWHERE, config.HERE, "localhost"):
        with listens(setting) as places:
            assert [host for host, _ in places] in (["0.0.0.0"], ["127.0.0.1"])
    for hosts in ("::", "::1", ["127.0.0.1", "2001:db8::1"]):  # who names it, and it alone, means it
        with pytest.raises(DelegatorError, match="cannot listen"):
            opened(hosts, 0)


async def nothing() -> dict[str, str]:
    return {}


async def test_the_operators_port_is_in_both_families_and_gone_from_both() -> None:
    port = ops.Port(ops.Ops(Metrics(), nothing, dict, nothing))
    await port.open(config.OpsSettings(enabled=True, port=0), [])
    number = port.number or 0
    assert answers("127.0.0.1", number)
    assert answers("::1", number)
    await port.move(config.OpsSettings(enabled=True, host="::1", port=number))
    assert not answers("127.0.0.1", number)
    assert answers("::1", number)
    port.close()
    assert not answers("::1", number)


@pytest.mark.parametrize(("variable", "hosts"), [
    ("0.0.0.0,::", ("0.0.0.0", "::")), ("::1", "::1"), ("localhost", "localhost")])
def test_the_environment_names_one_host_or_several(variable: str, hosts: config.Hosts) -> None:
    for section in ("SERVER", "OPS"):
        found = config.load(None, {f"DELEGATOR_{section}__HOST": variable})
        assert getattr(found, section.lower()).host == hosts
    found = of_delegate.load(None, {"DELEGATE_DELEGATE__HOST": variable})
    assert found.delegate.host == hosts
