"""Both families of addresses, and names as people write them, through a delegator that runs: where it listens, what it
says of itself, whom it sees, and what of a device's hints ends in the trail."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from delegator import config
from delegator.model import Customer, Delegate, Policy, SoapCallback
from delegator.provisioning.handshake import Handshake
from delegator.store import Store

from ..clock import today
from .conftest import ROOT, TRANSACTION, World
from .operating import change, start_with

XSI = "http://www.w3.org/2001/XMLSchema-instance"
HINTS = ("<SerialNumber>To Be Filled By O.E.M.</SerialNumber><MacAddress>eth0</MacAddress>"
         "<Model>System x3550 M4 Server -[7914AC1]-</Model>")
NIL = f'<SerialNumber xmlns:i="{XSI}" i:nil="true"/><Model/>'


def asked(tag: str, inner: str) -> bytes:
    return (f'<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/"><s:Body><GetProvisioningCredential '
            f'xmlns="urn:delegator:provisioning:1"><Device><ServiceTag>{tag}</ServiceTag>{inner}</Device>'
            f"<TransactionId>{TRANSACTION}</TransactionId></GetProvisioningCredential></s:Body></s:Envelope>").encode()


def status_at(world: World, host: str, tag: str) -> int:
    with (socket.create_connection((host, world.port), 10) as raw,
          world.tls(*world.paths(tag)).wrap_socket(raw, server_hostname="localhost") as sock):
        body = asked(tag, "")
        sock.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)
        response = http.client.HTTPResponse(sock)
        response.begin()
        response.read()
        return response.status


def everywhere(world: World, workers: int) -> None:
    """As it is built in, with an operators' port."""
    change(world, ('host = "127.0.0.1"\nport = 0', 'host = ["0.0.0.0", "::"]\nport = 0'),
           ("workers = 1\n", f"workers = {workers}\n"), ("[ops]\nenabled = false", "[ops]\nenabled = true"),
           ("port = 9433", "port = 0"))


@pytest.mark.parametrize("workers", [1, 2])
def test_as_it_is_built_in_it_serves_both_families_and_says_so(world: World, workers: int) -> None:
    world.host("BOTH001", "BOTH002")
    everywhere(world, workers)
    assert config.Settings().server.host == ("0.0.0.0", "::")
    said = world.start()
    port = world.port
    assert said["addresses"] == [f"0.0.0.0:{port}", f"[::]:{port}"]
    assert f"delegator listening on https://0.0.0.0:{port}/ and https://[::]:{port}/\n" in world.log
    assert status_at(world, "127.0.0.1", "BOTH001") == status_at(world, "::1", "BOTH002") == 200
    assert {trail["peer"] for trail in world.trails()} == {"127.0.0.1", "::1"}
    for host in ("127.0.0.1", "::1"):
        operators = http.client.HTTPConnection(host, said["ops"], timeout=5)
        operators.request("GET", "/healthz")
        assert operators.getresponse().status == 200
        operators.close()


def test_an_ipv6_address_is_said_in_brackets(world: World) -> None:
    change(world, ('host = "127.0.0.1"', 'host = "::1"'))
    world.start()
    assert f"delegator listening on https://[::1]:{world.port}/\n" in world.log


async def from_here(store: Store) -> None:
    await store.add_policy(Policy("here", networks=("::ffff:127.0.0.0/104",)), today())
    await store.add_customer(Customer("globex", "Globex", policy="here"), today(), replace=True)


def test_a_device_at_a_socket_of_both_families_is_seen_by_its_ipv4_address(world: World) -> None:
    """systemd opens such sockets unless it is told otherwise."""
    world.host("DUAL001")
    world.store(from_here)
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=16) as given:
        start_with(world, given)
        assert status_at(world, "127.0.0.1", "DUAL001") == 200
        assert status_at(world, "::1", "DUAL001") == 500, "which the policy's network does not hold"
    assert {trail["peer"] for trail in world.trails()} == {"127.0.0.1", "::1"}


def location(world: World, head: str) -> set[str]:
    with world.connection(*world.paths("WSDL001")) as sock:
        sock.sendall(f"GET /?wsdl HTTP/1.{'1' if 'Host' in head else '0'}\r\n{head}Connection: close\r\n\r\n".encode())
        said = b""
        while part := sock.recv(65536):
            said += part
    return set(re.findall(r'location="([^"]*)"', said.decode()))


def test_a_wsdl_has_an_address_whatever_the_caller_says(world: World) -> None:
    world.start()
    here = {f"https://delegator:{world.port}/"}  # the first name of its certificate
    assert location(world, "") == here
    assert location(world, 'Host: "><evil/>\r\n') == here
    assert location(world, "Host: Front.Example.:443\r\n") == {"https://front.example:443/"}


@pytest.mark.parametrize(("host", "url"), [
    ("::1", "https://[::1]:14754/provisioning"), ("::ffff:192.0.2.7", "https://192.0.2.7:14754/provisioning"),
    ("fe80::1%eth0", "https://[fe80::1]:14754/provisioning"), ("D.Example.", "https://d.example:14754/provisioning")])
def test_a_device_is_told_a_url_that_it_can_dial(host: str, url: str) -> None:
    told: Any = Handshake._address(SimpleNamespace(_factory_anchor="PEM"),  # type: ignore[arg-type]
                                   Delegate("six", "six", SoapCallback(host, 14754)))
    assert told.url == url


@pytest.mark.parametrize(("inner", "noted"), [
    (HINTS, ["SerialNumber 'To Be Filled By O.E.M.'", "MacAddress 'eth0'", "7914AC1"]), (NIL, [])])
def test_a_device_whose_hints_are_of_no_form_is_served_and_the_trail_tells(world: World, inner: str,
                                                                           noted: list[str]) -> None:
    world.host("HINT001")
    world.start()
    reply = world.post(asked("HINT001", inner), *world.paths("HINT001"))
    assert reply.status == 200
    assert b"7914" not in reply.body
    (trail,) = world.trails("HINT001")
    assert all(one in trail.get("left_out", "") for one in noted)
    assert ("left_out" in trail) is bool(noted)
    command = [sys.executable, "-m", "delegator", "--config", str(world.root / "delegator.toml"), "audit"]
    rows = json.loads(subprocess.run([*command, "list", "--json", "--tag", "HINT001"], capture_output=True, text=True,
                                     cwd=ROOT, check=True).stdout)
    shown = subprocess.run([*command, "show", rows[0]["row"]], capture_output=True, text=True, cwd=ROOT, check=True)
    assert ("left out of it: SerialNumber 'To Be Filled By O.E.M.'" in shown.stdout) is bool(noted)


def test_a_server_name_with_its_final_dot_fits_the_certificate(world: World) -> None:
    world.host("DOTS001")
    world.start()
    certificate, key = map(str, world.paths("DOTS001"))
    for where in (["--delegator", f"127.0.0.1:{world.port}", "--server-name", "localhost."],
                  ["--delegator", f"LOCALHOST.:{world.port}"]):
        done = subprocess.run(
            [sys.executable, "-m", "delegator.device", "activate", "--once", "--json", *where, "--tag", "DOTS001",
             "--certificate", certificate, "--key", key, "--ca", str(world.factory.ca_path), "--again",
             "--state", str(world.root / "state")], capture_output=True, text=True, cwd=ROOT, timeout=60)
        assert json.loads(done.stdout)["reason"] != "server-name-mismatch"
        assert world.trails("DOTS001")
