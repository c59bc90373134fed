"""Which certificates open the door, told by a client that is not ours: openssl, in TLS 1.2 and 1.3. A1, A2,
T-A2 to T-A5.

Each bad certificate is really minted, most of them with the factory's own key: what turns it away is the delegator.
"""

from __future__ import annotations

import http.client
import subprocess
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID
from msgspec.structs import replace

from delegator import config
from pki import Folder, Reason

from ..forgery import DAY, NOW, SERVER, Pair, Signer, authority, forged, written
from .conftest import World, envelope

TAG = "FORGED01"
VERSIONS = pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
pytestmark = pytest.mark.counterpart("openssl")


def s_client(world: World, shown: Pair | None, *words: str, ask: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """openssl's client, with its own scruples about weak keys taken from it."""
    own = () if shown is None else ("-cert", shown[0], "-key", shown[1], "-cert_chain", shown[0])
    return subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{world.port}", "-servername", "localhost", *own, "-CAfile",
         world.factory.ca_path, "-quiet", "-cipher", "DEFAULT:@SECLEVEL=0", *words],
        input=ask, capture_output=True, check=False, timeout=20)


def request(tag: str) -> bytes:
    body = envelope(tag)
    return (b"POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)) + body


# --- what OpenSSL's own programs can make and `cryptography` will not ---------------------------------------------


def with_openssl(folder: Path, stem: str, factory: Folder, *words: str, extensions: str = "") -> Pair:
    """A certificate signed by the factory with `openssl x509`: SHA-1, or version 1."""
    key, csr, made, said = (folder / f"{stem}.{end}" for end in ("key", "csr", "crt", "ext"))
    subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", key, "-out", csr, "-subj", f"/CN={TAG}"], check=True, capture_output=True)
    said.write_text(extensions)
    subprocess.run(["openssl", "x509", "-req", "-in", csr, "-CA", factory.ca_path, "-CAkey", factory.path / "ca.key",
                    "-set_serial", "0x1234567890abcdef", "-days", "1", "-out", made,
                    *(("-extfile", str(said)) if extensions else ()), *words], check=True, capture_output=True)
    return made, key


USUAL = ("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
         "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")

NO_SIGNATURE = {"P-224", "secp256k1", "brainpool"}
"""TLS 1.3 has no signature for these curves, so openssl shows no certificate at all (RFC 8446 section 4.2.3)."""
Refusals = dict[str, tuple[Pair | None, str, str]]
"""By what is wrong: the certificate, the alert that openssl hears, and the reason that the trail keeps."""


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory, factory: Folder, customer_ca: Folder) -> Refusals:
    folder = tmp_path_factory.mktemp("forged")
    root = Signer.of(factory)
    device, between = forged(root, "DEVICE01"), authority("Between", root)
    stranger = authority("Test Factory CA")
    curves = {"P-224": ec.SECP224R1, "P-521": ec.SECP521R1, "secp256k1": ec.SECP256K1, "brainpool": ec.BrainpoolP256R1}

    def by_factory(**odd: object) -> Pair:
        by_factory.count += 1  # type: ignore[attr-defined]
        return written(folder, f"f{by_factory.count}", forged(root, TAG, **odd))  # type: ignore[arg-type, attr-defined]
    by_factory.count = 0  # type: ignore[attr-defined]
    made: Refusals = {
        "for servers alone": (by_factory(purposes=[SERVER]), "unsupported certificate", "wrong purpose"),
        "for no purpose": (by_factory(purposes=None), "unsupported certificate", "wrong purpose"),
        "for any purpose": (by_factory(purposes=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),
                            "unsupported certificate", "wrong purpose"),
        "an authority's": (by_factory(authority=True), "unsupported certificate", "wrong purpose"),
        "an authority's that signs": (by_factory(authority=True, usage=["digital_signature", "key_cert_sign"]),
                                      "unsupported certificate", "wrong purpose"),
        "says not whether authority": (by_factory(authority=None), "unsupported certificate", "wrong purpose"),
        "may not sign": (by_factory(usage=["key_encipherment"]), "unsupported certificate", "wrong purpose"),
        "may only agree on keys": (by_factory(usage=["key_agreement"]), "unsupported certificate", "wrong purpose"),
        "says not whether it may sign": (by_factory(usage=None), "unsupported certificate", "wrong purpose"),
        "RSA 1024": (by_factory(key=rsa.generate_private_key(65537, 1024)), "bad certificate", "weak key"),
        "RSA exponent 3": (by_factory(key=rsa.generate_private_key(3, 2048)), "bad certificate", "weak key"),
        "Ed25519": (by_factory(key=ed25519.Ed25519PrivateKey.generate()), "bad certificate", "weak key"),
        **{curve: (by_factory(key=ec.generate_private_key(kind())), "bad certificate", "weak key")
           for curve, kind in curves.items()},
        "SHA-1": (with_openssl(folder, "sha1", factory, "-sha1", extensions=USUAL), "bad certificate", "weak key"),
        "version 1": (with_openssl(folder, "v1", factory), "unsupported certificate", "wrong purpose"),
        "ended": (by_factory(start=NOW - 3 * DAY, end=NOW - DAY), "certificate expired", "expired"),
        "not begun": (by_factory(start=NOW + DAY, end=NOW + 2 * DAY), "bad certificate", "not yet valid"),
        "a customer's authority": (written(folder, "customer", forged(Signer.of(customer_ca), TAG)), "unknown ca",
                                   "unknown authority"),
        "an authority of the same name": (written(folder, "same", forged(stranger, TAG), stranger.certificate),
                                          "bad certificate", "bad signature"),
        "signed by itself": (written(folder, "own", authority(TAG)), "unknown ca", "unknown authority"),
        "signed by a device": (written(folder, "child", forged(device, TAG), device.certificate), "unknown ca", ""),
        "an authority between": (written(folder, "between", forged(between, TAG), between.certificate), "unknown ca",
                                 "chain too long"),
        "the factory's authority itself": ((factory.ca_path, factory.path / "ca.key"), "unsupported certificate",
                                           "wrong purpose"),
    }
    return made


@VERSIONS
def test_A1_TA4_TA5_who_is_refused_hears_why_and_the_trail_tells_more(
        world: World, bad: Refusals, version: str) -> None:
    """Purpose, key, time, signer: each by its own alert, whatever the request says, and a good device after them."""
    world.host(TAG)
    world.start()
    heard = {}
    for what, (shown, _, _) in bad.items():
        done = s_client(world, shown, version, ask=request(TAG))
        assert done.stdout == b"", what
        heard[what] = next((line.partition("alert ")[2].partition(":")[0] for line in done.stderr.decode().splitlines()
                            if "alert " in line), done.stderr.decode())
    silent = NO_SIGNATURE if version == "-tls1_3" else set()
    assert heard == {what: "certificate required" if what in silent else alert for what, (_, alert, _) in bad.items()}
    trails = world.trails()
    assert [trail["outcome"] for trail in trails] == ["TlsRefused"] * len(bad)
    told = dict(zip(bad, (trail["refusal"] for trail in trails), strict=True))
    wanted = {what: "no certificate" if what in silent else why for what, (_, _, why) in bad.items() if why}
    assert {what: told[what] for what in wanted} == wanted
    assert world.ask(TAG).status == 200


# --- names --------------------------------------------------------------------------------------------------------

LOOK_ALIKES: dict[str, tuple[str | tuple[str, _ASN1Type], ...]] = {
    "lower case": ("forged01",), "a blank behind": ("FORGED01 ",), "a blank before": (" FORGED01",),
    "a line break": ("FORGED01\n",), "NUL": ("FORGED01\0",), "NUL and more": ("FORGED01\0.evil.test",),
    "Cyrillic": ("FОRGED01",), "full width": ("ＦORGED01",), "joiner": ("FORGED\u200d01",), "star": ("*",),
    "pattern": ("FORGED__",), "SQL": ("FORGED01' OR '1'='1",), "twice the same": (TAG, TAG),
    "another first": ("OTHER001", TAG),
    "another behind": (TAG, "OTHER001"), "none": (), "two in one": ("FORGED01,CN=FORGED01",),
    "the shared name's look-alike": ("shared-device ",), "the shared name and the tag": ("shared-device", TAG),
    "UTF-16": ((TAG, _ASN1Type.BMPString),), "teletex": ((TAG, _ASN1Type.T61String),),
    "universal": ((TAG, _ASN1Type.UniversalString),),
}


def test_TA2_TA3_a_name_that_only_looks_like_the_tag_is_nobodys(world: World, factory: Folder, tmp_path: Path) -> None:
    """T-A2, T-A3: exactly one common name, byte for byte the tag; one answer for all, nothing looked up, nothing
    forged in the log, and the delegate never hears of it."""
    world.own(TAG)
    world.start()
    root, faults = Signer.of(factory), {}
    for number, (what, names) in enumerate(LOOK_ALIKES.items()):
        faults[what] = world.ask(TAG, shown=written(tmp_path, f"n{number}", forged(root, *names))).fault
    assert faults == dict.fromkeys(LOOK_ALIKES, "IdentityRejected")
    assert not world.delegate.calls
    assert world.store(lambda store: store.claims()) == []
    assert world.log.isascii()
    assert len(world.trails()) == len(LOOK_ALIKES)
    assert {step["step"] for trail in world.trails() for step in trail["steps"]} == {
        "connected", "authenticated", "asked", "refused"}
    assert world.ask(TAG).status == 200


# --- an authority between -----------------------------------------------------------------------------------------


def between(world: World, tmp_path: Path, depth: int) -> tuple[Signer, list[Signer]]:
    """A root, and `depth` authorities in a row beneath it; the world believes the root from its next start on."""
    root = authority("Root of a maker with a tree")
    row: list[Signer] = []
    for number in range(depth):
        row.append(authority(f"Between {number}", row[-1] if row else root))
    anchors = tmp_path / "anchors.pem"
    written(tmp_path, "root", root)
    anchors.write_bytes(world.factory.ca_path.read_bytes() + (tmp_path / "root.crt").read_bytes())
    return root, row


def settle(world: World, **server: object) -> None:
    """Settings of [server] from the next start on."""
    world.settings = replace(world.settings, server=replace(world.settings.server, **server))
    (world.root / "delegator.toml").write_text(config.as_toml(world.settings))


def test_TA4_only_authorities_that_are_named_may_sign_devices(world: World, tmp_path: Path) -> None:
    """T-A4: without [server] issuers the anchors alone; with it those that it names, and a chain of four at most."""
    _, row = between(world, tmp_path, 3)
    world.host(TAG, "FORGED02")
    shown = [written(tmp_path, f"leaf{n}", forged(signer, TAG), *(one.certificate for one in reversed(row[:n + 1])))
             for n, signer in enumerate(row)]
    anchors = str(tmp_path / "anchors.pem")
    pins = tmp_path / "issuers.pem"
    pins.write_bytes(world.factory.ca_path.read_bytes() + b"".join(
        written(tmp_path, f"pin{n}", one)[0].read_bytes() for n, one in enumerate(row[1:])))
    outcomes = {}
    for said, pinned in (("nobody named", ""), ("two named", str(pins))):
        settle(world, ca=anchors, crl="", issuers=pinned)
        world.start()
        for n, one in enumerate(shown):
            done = s_client(world, one, ask=request(TAG))
            outcomes[said, n] = (done.stdout[9:12] or done.stderr.partition(b"alert ")[2].partition(b":")[0]).decode()
        assert world.ask("FORGED02").status == 200, "the factory's own devices come in"
        world.stop()
    assert outcomes == {
        ("nobody named", 0): "unknown ca", ("nobody named", 1): "unknown ca", ("nobody named", 2): "unknown ca",
        ("two named", 0): "unknown ca",  # the authority above those that are named
        ("two named", 1): "200",
        ("two named", 2): "unknown ca",  # named, but the fifth in its chain
    }


# --- no resumption ------------------------------------------------------------------------------------------------


@VERSIONS
@pytest.mark.parametrize("tickets", ["ours", "the operator's own"])
def test_TA5_nothing_is_resumed_so_no_check_is_ever_skipped(world: World, tmp_path: Path, version: str, tickets: str,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    """T-A5: openssl keeps whatever session it is given and comes back with it; also where an operator's OPENSSL_CONF
    switches tickets on again."""
    if tickets != "ours":
        monkeypatch.setenv("OPENSSL_CONF", "/dev/null")
    world.host(TAG)
    world.start()
    kept = tmp_path / "session.pem"
    words = (version, "-servername", "localhost")
    first = s_client(world, world.paths(TAG), *words, "-sess_out", str(kept), ask=request(TAG))
    assert b" 200 OK" in first.stdout
    again = ("-sess_in", str(kept)) if kept.exists() else ("-no_ticket",)
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{world.port}", "-CAfile", world.factory.ca_path, "-cert",
         world.paths(TAG)[0], "-key", world.paths(TAG)[1], *words, *again], input=b"Q\n", capture_output=True,
        check=False, timeout=20)
    assert b"New, TLSv1." in done.stdout
    assert b"Reused" not in done.stdout


# --- revocation ---------------------------------------------------------------------------------------------------


def test_TA5_a_revocation_counts_on_a_connection_that_was_there_before(world: World, factory: Folder) -> None:
    """T-A5: a device that keeps its connection busy is cut off like any other, within seconds of the list's change, and
    hears by alert why when it comes back; others go on."""
    world.host("KEPT0001", "KEPT0002")
    world.start()
    kept = {tag: http.client.HTTPSConnection("localhost", world.port, context=world.tls(*world.paths(tag)))
            for tag in ("KEPT0001", "KEPT0002")}

    def ask(tag: str) -> int:
        kept[tag].request("POST", "/", envelope(tag), {"Content-Type": "text/xml"})
        response = kept[tag].getresponse()
        response.read()
        return response.status
    assert [ask(tag) for tag in kept] == [200, 200]
    factory.revoke([world.device("KEPT0001").serial], Reason.KEY_COMPROMISE, factory.authority())
    began = time.monotonic()
    with pytest.raises((http.client.RemoteDisconnected, ConnectionError, OSError)):
        while time.monotonic() - began < 60:
            ask("KEPT0001")
            time.sleep(0.2)
    assert time.monotonic() - began < 30
    assert ask("KEPT0002") == 200
    refused = [trail for trail in world.trails() if trail["outcome"] == "TlsRefused"]
    assert [trail["refusal"] for trail in refused] == ["revoked"]
    assert "KEPT0001" in refused[0]["certificate"]
    assert b"alert certificate revoked" in s_client(world, world.paths("KEPT0001"), ask=request("KEPT0001")).stderr
    for connection in kept.values():
        connection.close()
