"""One normal form for addresses, networks and names, and one way to write a host with its port: laws over the tree.

The first half reads the code: whoever writes the rule anew is found here. The second half holds each place that
compares, each with both sides in every spelling.
"""

from __future__ import annotations

import ast
import ipaddress
import itertools
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delegator import config
from delegator.cli import operator
from delegator.delegate.access import check_delegator
from delegator.desk import forms
from delegator.device import addresses as of_devices
from delegator.domains import asked_about
from delegator.errors import DelegatorError
from delegator.model import (
    Customer,
    Delegate,
    Device,
    HostedCallback,
    IdentityKind,
    Location,
    Policy,
    Rule,
    Secret,
    SoapCallback,
    SshCallback,
    places,
)
from delegator.net.balancers import balancers_of
from delegator.net.client import Endpoint
from delegator.net.crowds import source_of
from delegator.net.reverse import load_domains
from delegator.outbound import Outbound
from delegator.policy import Applied, Case, Hosts, decide
from delegator.routing import Facts, NoRoute, choose, directory
from delegator.serving.parts import load_outbound
from delegator.wire.proxy import HeaderReader
from pki import naming

ROOT = Path(__file__).parents[1]
TREE = sorted(path for room in ("delegator", "pki", "scripts", "examples", "benchmarks")
              for path in (ROOT / room).rglob("*.py"))
WRITERS = {ROOT / "delegator/model/places.py", ROOT / "delegator/device/addresses.py"}
"""The one place, and the device's own copy: it is standard library only."""
READERS = {ROOT / "delegator/model/places.py", ROOT / "pki/naming.py"}

# --- laws over the code -------------------------------------------------------------------------------------------

_HOST = re.compile(r"host|addr|server|peer|bind|listen|name", re.IGNORECASE)
_PORT = re.compile(r"port|number|\b1\b", re.IGNORECASE)
_TEMPLATE = re.compile(r"\{\w*(host|address|name)\w*\}:\{\w*port\w*\}")


def joined_by_hand(code: str) -> Iterator[str]:
    """Where text is made of a host, a colon and a port: in f-strings, and in templates for format()."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.JoinedStr):
            for before, colon, after in zip(node.values, node.values[1:], node.values[2:], strict=False):
                if (isinstance(before, ast.FormattedValue) and isinstance(after, ast.FormattedValue)
                        and isinstance(colon, ast.Constant) and colon.value == ":"
                        and _HOST.search(ast.unparse(before.value)) and _PORT.search(ast.unparse(after.value))):
                    yield f"line {node.lineno}: {ast.unparse(node)}"
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _TEMPLATE.search(node.value):
            yield f"line {node.lineno}: {node.value[:60]}"


@pytest.mark.parametrize("path", [path for path in TREE if path not in WRITERS], ids=lambda path: path.name)
def test_nobody_joins_a_host_and_a_port_by_hand(path: Path) -> None:
    assert not list(joined_by_hand(path.read_text(encoding="utf-8"))), "write it with model.places.authority or url"


@pytest.mark.parametrize("code", [
    'f"{host}:{port}"', 'f"https://{a.host}:{a.port}/x"', 'f"{settings.host}:{number}"', 'f"{host[0]}:{host[1]}"',
    'f"{address}:{port:d}"', '"{user}@{host}:{port}".format(**x)', 'f"x {server.server_name}:{server.server_port}"'])
def test_the_law_sees_each_way_of_joining(code: str) -> None:
    assert list(joined_by_hand(code))
    assert not list(joined_by_hand(code.replace(":", "-")))


@pytest.mark.parametrize("path", [path for path in TREE if path not in READERS and "delegator" in path.parts],
                         ids=lambda path: path.name)
def test_ipv4_inside_ipv6_is_understood_in_one_place(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"ipv4_mapped|sixtofour|ip_network\(", text), "ask model.places"


# --- a host with its port -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("host", "port", "shown"), [
    ("::1", 4433, "[::1]:4433"), ("2001:db8::7", None, "[2001:db8::7]"), ("fe80::1%eth0", 1, "[fe80::1%eth0]:1"),
    ("192.0.2.7", 443, "192.0.2.7:443"), ("delegate.example", 8443, "delegate.example:8443")])
def test_an_ipv6_address_stands_in_brackets(host: str, port: int | None, shown: str) -> None:
    assert places.authority(host, port) == shown
    if port is not None:
        assert of_devices.authority(host, port) == shown == str(of_devices.Address(host, port))


def test_a_scope_is_written_as_urls_have_it_and_told_to_nobody_else() -> None:
    assert places.url("fe80::1%eth0", 4433) == "https://[fe80::1%25eth0]:4433/"
    assert places.url_elsewhere("fe80::1%eth0", 443, "/p") == "https://[fe80::1]:443/p"
    assert of_devices.parse_address("[fe80::1%eth0]:4433") == ("fe80::1%eth0", 4433)
    assert of_devices.parse_address("[fe80::1%eth0]:4433").told == "[fe80::1]:4433"
    assert of_devices.parse_delegate_url("https://[fe80::1%25eth0]/x").address == ("fe80::1%eth0", 443)


@given(st.ip_addresses().map(str) | st.just("delegate.example"), st.integers(1, 65535))
def test_what_is_written_is_read_back_by_us_and_by_devices(host: str, port: int) -> None:
    shown = places.authority(places.normal_host(host), port)
    assert places.read_authority(shown) == (places.normal_host(host), port)
    assert of_devices.parse_address(shown) == (places.normal_host(host), port)
    assert of_devices.parse_delegate_url(places.url_elsewhere(host, port, "/p")).address.port == port


@pytest.mark.parametrize("text", [
    "", "a b", "a/b", "user@host", "host:", "host:0", "host:65536", "host:x", 'evil"><x>', "a\r\nb", "[::1", "::1:443",
    "[::1]:443:1", "-a", "a..b", "[1.2.3.4]", "[fe80::1%25eth0]", "h\u00f6st", "a," * 3, "x" * 300])
def test_what_is_no_authority_is_none(text: str) -> None:
    assert places.read_authority(text) is None


@pytest.mark.parametrize(("said", "told"), [
    ("2001:DB8::7", "[2001:db8::7]"), ("[2001:db8::7]:4434", "[2001:db8::7]:4434"), ("B.Example.", "b.example"),
    ("b.example.:4433", "b.example:4433"), ("https://b.example:4433/", "https://b.example:4433/"),
    ("https://Host.Example.:443/x", "https://host.example:443/x")])
def test_another_delegator_is_told_as_devices_can_dial_it(said: str, told: str) -> None:
    assert Rule("r", delegator=said).delegator == forms.delegator(said) == told
    of_devices.parse_alternate(told)


@pytest.mark.parametrize("said", ["two words", "https://", "http://b.example", "https://a b/", "b.example:0", ""])
def test_another_delegator_that_no_device_could_dial_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match="no delegator"):
        places.normal_delegator(said)


# --- networks and addresses ---------------------------------------------------------------------------------------

NETWORKS = ["198.51.100.0/24", "::ffff:198.51.100.0/120", "::FFFF:c633:6400/120", "0:0:0:0:0:ffff:198.51.100.0/120"]
PEERS = ["198.51.100.3", "::ffff:198.51.100.3", "::ffff:c633:6403", "::FFFF:198.51.100.3"]
OUTSIDE = ["198.51.101.3", "::ffff:198.51.101.3", "2001:db8::1", "::198.51.100.3", "2002:c633:6403::1",
           "64:ff9b::198.51.100.3", ""]
CUSTOMER = Customer("acme", "Acme")
DELEGATE = Delegate("one", "acme", HostedCallback("u", Secret("p")))


def allowed_by_rule(network: str, peer: str) -> bool:
    table = directory([DELEGATE], [Rule("r", "one", network=network)])
    return not isinstance(choose(Facts(Device("ABC1234"), Location(), peer), (), table), NoRoute)


def allowed_by_policy(network: str, peer: str) -> bool:
    case = Case(CUSTOMER, DELEGATE, IdentityKind.OWN, True, frozenset(),
                datetime.now(UTC), peer=peer)
    return decide([Applied(Policy(networks=(network,)), "customer/acme")], case).allowed


def trusted_balancer(network: str, peer: str) -> bool:
    found = balancers_of((network,))
    assert found is not None
    return found.trusted(peer)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("peer", PEERS + OUTSIDE)
@pytest.mark.parametrize("judge", [allowed_by_rule, allowed_by_policy, trusted_balancer, places.is_within],
                         ids=lambda judge: judge.__name__)
def test_a_network_holds_the_same_peers_however_both_are_written(judge: object, network: str, peer: str) -> None:
    assert callable(judge)
    asked = (peer, (network,)) if judge is places.is_within else (network, peer)
    assert judge(*asked) is (peer in PEERS)


INSIDE = ["10.0.0.0/8", "::ffff:10.0.0.0/104", "::ffff:a00:0/104"]


@pytest.mark.parametrize("network", INSIDE)
@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::1"])
def test_an_outbound_network_allows_what_it_holds_however_it_is_written(network: str, peer: str) -> None:
    allow = load_outbound(config.Settings(outbound=config.OutboundSettings(allow=(network,))))
    assert allow.refusal(peer, 443) is None
    assert Outbound().refusal(peer, 443) is not None
    assert allow.refusal("192.168.0.1", 443) is not None


@pytest.mark.parametrize("network", INSIDE)
def test_a_private_network_is_asked_about_however_it_is_written(network: str) -> None:
    domains = load_domains(config.Domains(enabled=True, nameservers=("127.0.0.1",), private_networks=(network,)))
    assert domains is not None
    for peer in ("10.1.2.3", "::ffff:10.1.2.3"):
        assert asked_about(peer, places.networks((network,)))[0] == ipaddress.ip_address("10.1.2.3")
        assert asked_about(peer, ())[0] is None


@pytest.mark.parametrize("wide", ["::/0", "::/8", "::/64", "::/80"])
def test_a_network_wider_than_all_of_ipv4_inside_ipv6_is_of_ipv6_alone(wide: str) -> None:
    """Deny by default: whoever means everybody names both families."""
    assert not places.is_within("198.51.100.3", (wide,))
    assert not places.is_within("::ffff:198.51.100.3", (wide,))
    assert places.is_within("::1", (wide,))
    assert places.is_within("::ffff:198.51.100.3", (wide, "0.0.0.0/0"))
    assert places.normal_network("::ffff:0:0/96") == "0.0.0.0/0"


@pytest.mark.parametrize("bits", range(81, 96))
def test_a_network_in_which_nobody_can_be_is_refused_where_it_is_typed_and_harmless_where_it_stands(bits: int) -> None:
    text = str(ipaddress.ip_network(f"::ffff:0:0/{bits}", strict=False))
    for refused in (lambda: forms.network(text), lambda: places.networks((text,)), lambda: balancers_of((text,))):
        with pytest.raises(Exception, match="holds no address that anybody has"):
            refused()
    assert Rule("old", "one", network=text).network == text
    assert not allowed_by_rule(text, "198.51.100.3")


def typed(text: str) -> tuple[str | None, str]:
    """The network that is taken or suggested, and what is said of it."""
    try:
        return forms.network(text), ""
    except ValueError as error:
        near = re.search(r"did you mean (\S+)\?", str(error))
        return near and near[1], str(error)


@pytest.mark.parametrize("host", ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8::7", "::1", "::ffff:0:0", "64:ff9b::1"])
def test_a_network_that_is_suggested_is_one_and_holds_the_address_that_was_typed(host: str) -> None:
    for bits in range(129 if ":" in host else 33):
        near, said = typed(f"{host}/{bits}")
        if near is None:
            assert 32 < bits < 96
            assert "holds no address" in said
        else:
            assert places.address(host) in places.network(near), said
            assert typed(near) == (near, "")


@pytest.mark.parametrize("network", NETWORKS)
def test_a_row_of_an_older_release_is_read_in_the_normal_form(network: str) -> None:
    assert Rule("r", "one", network=network).network == NETWORKS[0] == forms.network(network)
    assert Policy(networks=(network, NETWORKS[0])).networks == (NETWORKS[0],)


@pytest.mark.parametrize("network", ["nonsense", "198.51.100.1/24", "fe80::%eth0/64", "300.0.0.0/8"])
def test_a_row_that_holds_no_network_stops_nobody_from_starting(network: str) -> None:
    assert Rule("r", "one", network=network).network == network
    allowed_by_rule(network, "198.51.100.3")


@pytest.mark.parametrize("peer", PEERS[:2])
def test_a_source_is_counted_once_and_an_operator_and_a_proxy_are_seen_as_one(peer: str) -> None:
    assert places.seen(peer) == source_of(peer) == "198.51.100.3"
    assert operator.place({"SSH_CLIENT": f"{peer} 1 2"}) == forms.ip(peer) == "198.51.100.3"
    line = f"PROXY TCP6 {peer} ::1 1 2\r\n" if ":" in peer else f"PROXY TCP4 {peer} 192.0.2.1 1 2\r\n"
    header = HeaderReader().feed(line.encode())
    assert header is not None
    assert header.source == "198.51.100.3"
    assert Location(ip_address=peer).ip_address == "198.51.100.3"
    assert SoapCallback(peer, address=peer) == SoapCallback("198.51.100.3", address="198.51.100.3")
    assert naming.host(peer) == "198.51.100.3"
    assert of_devices.proven_name(peer) == "198.51.100.3"


# --- names --------------------------------------------------------------------------------------------------------

NAMES = ["delegate.example.com", "Delegate.Example.COM", "delegate.example.com.", "DELEGATE.EXAMPLE.COM."]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_the_same_with_its_final_dot_and_in_any_case(name: str) -> None:
    plain = NAMES[0]
    assert places.normal_name(name) == forms.domain(name) == forms.address(name) == plain
    assert of_devices.proven_name(name) == plain
    assert SoapCallback(name, address=name) == SoapCallback(plain, address=plain)
    assert SshCallback(name, "u", Secret("k"), "h").host == plain
    assert forms.soap(f"{name}:8443/x") == SoapCallback(plain, 8443, "/x")
    assert forms.ssh(f"u@{name}:2222") == ("u", plain, 2222)
    assert Endpoint(name, 443, None).name == plain  # type: ignore[arg-type]
    assert Rule("r", "one", domain=name).domain == plain
    assert Policy(domains=(name,)).domains == (plain,)
    assert places.is_loopback(name.lower().replace(plain, "localhost"))


@pytest.mark.parametrize(("said", "wanted"), list(itertools.product(NAMES, NAMES)))
def test_a_domain_is_met_however_both_are_written(said: str, wanted: str) -> None:
    for location in (Location(domain=said), Location(host_name=f"host.{said}")):
        table = directory([DELEGATE], [Rule("r", "one", domain=wanted)])
        assert not isinstance(choose(Facts(Device("ABC1234"), location, ""), (), table), NoRoute)
    assert not places.is_beneath("evil-" + said, wanted)


@pytest.mark.parametrize(("host", "domain"), list(itertools.product(NAMES, ["Example.com.", "example.com"])))
def test_a_policy_domain_holds_a_confirmed_host_however_both_are_written(host: str, domain: str) -> None:
    case = Case(CUSTOMER, DELEGATE, IdentityKind.OWN, True, frozenset(), datetime.now(UTC), peer="192.0.2.1",
                hosts=Hosts((host,), ""))
    assert decide([Applied(Policy(domains=(domain,)), "customer/acme")], case).allowed


def test_the_label_of_delegates_is_a_label_with_its_final_dot_too() -> None:
    assert load_domains(config.Domains(enabled=True, nameservers=("127.0.0.1",), label="Prov.")) is not None
    with pytest.raises(DelegatorError):
        load_domains(config.Domains(enabled=True, nameservers=("127.0.0.1",), label="a.b"))


def test_a_delegator_that_is_named_with_a_dot_may_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("delegator.delegate.access.dns_names", lambda _: ("Delegator.Example.",))
    assert check_delegator(b"", frozenset(map(places.normal_name, ("DELEGATOR.example.",)))) == "delegator.example"
