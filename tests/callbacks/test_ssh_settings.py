"""What a registration takes: keys in every form, commands in which a device can do no harm. T-B6, T-B7."""

from __future__ import annotations

import shlex
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from delegator.callbacks import ssh_keys
from delegator.callbacks.ssh_command import check_command, command_for
from delegator.callbacks.ssh_keys import host_key_in, private_key_in
from delegator.model import DelegateRequest, Device, Location

from .conftest import CLAIM, asked

# --- commands -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("template", "command"), [
    ("getCred {tag} {ip}", "getCred ABC1234 192.0.2.7"),
    ("sudo -u prov /opt/getCred --tag={tag} --from={peer} --claim {claim}",
     f"sudo -u prov /opt/getCred --tag=ABC1234 --from=198.51.100.9 --claim {CLAIM}"),
    ("getCred \"{tag}\" '{ip}' | awk '{ print $1 }'", "getCred \"ABC1234\" '192.0.2.7' | awk '{ print $1 }'"),
    ("getCred", "getCred")])
def test_a7b_the_command_is_the_customers_with_the_devices_values_in_it(template: str, command: str) -> None:
    check_command(template)
    assert command_for(template, asked()) == command


@pytest.mark.parametrize(("said", "peer", "ip"), [
    (None, "198.51.100.9", "198.51.100.9"), ("2001:DB8::0007", "198.51.100.9", "2001:db8::7"),
    (None, "fe80::1%eth0", "fe80::1"), (None, "::ffff:192.0.2.1", "192.0.2.1")])
def test_a7b_the_ip_is_what_the_device_says_or_where_it_called_from(said: str | None, peer: str, ip: str) -> None:
    assert command_for("getCred {ip}", asked(said=said, peer=peer)) == f"getCred {ip}"


def test_a7b_an_address_that_nobody_knows_is_told_and_not_guessed() -> None:
    assert command_for("getCred {tag}", asked(said=None, peer="")) == "getCred ABC1234"
    with pytest.raises(ValueError, match="address is not known"):
        command_for("getCred {ip}", asked(said=None, peer=""))


@pytest.mark.parametrize("template", [
    "", "getCred {tga}", "getCred {tag.__class__}{x}", "getCred {TAG}", "getCred\n{tag}", "getCred {tag}\x00",
    "x" * 1001,
    "{tag}", " {tag} x", "true; {tag}", "true;{ip}", "true && {tag}", "false || {tag}", "echo $({tag})", "echo `{tag}`",
    "echo ${tag}", "echo $ {tag}", "getCred > {tag}", "getCred < {ip}", "( {tag} )", "! {tag}", "{ {tag}; }",
    "getCred \\{tag}"])
def test_TB6_a_template_that_would_make_a_value_more_than_an_argument_is_refused(template: str) -> None:
    with pytest.raises(ValueError):
        check_command(template)


def unchecked(tag: str, ip: str, claim: str) -> DelegateRequest:
    """A request that the model would never let exist."""
    return cast(DelegateRequest, SimpleNamespace(device=SimpleNamespace(service_tag=tag), claim_id=claim,
                                                 location=SimpleNamespace(ip_address=ip), peer_address=ip))


HOSTILE = ("ABC1234;id", "$(id)", "`id`", "-oProxyCommand=id", "ABC1234\nid", "A'B", 'A"B', "ABC 1234", "ABC1234 ",
           "", "ABC1234\x00", "ＡＢＣ１２３４", "1.2.3.4;id", "1.2.3.4%;id",
           "fe80::1%$(id)", "::1 -x", "0x7f.1", "1.2.3.4\n")


@pytest.mark.parametrize("evil", HOSTILE)
def test_TB6_what_is_not_of_its_form_never_gets_into_a_command(evil: str) -> None:
    for field in ("{tag}", "{claim}"):
        with pytest.raises(ValueError):
            command_for(f"getCred {field}", unchecked(evil, evil, evil))
    try:
        words = shlex.split(command_for("getCred {ip}", unchecked("ABC1234", evil, CLAIM)))
    except ValueError:
        return
    assert words == ["getCred", evil.partition("%")[0]], "only the scope may go"
    assert set(words[1]) <= set("0123456789abcdef:.")


@given(st.text(), st.text(), st.text())
def test_TB6_whatever_a_device_sends_a_shell_reads_one_word_for_each_field(tag: str, ip: str, claim: str) -> None:
    try:
        command = command_for("getCred {tag} {ip} {claim}", unchecked(tag, ip, claim))
    except ValueError:
        return
    assert shlex.split(command)[1:] == [tag, shlex.split(command)[2], claim]


@settings(max_examples=30, deadline=None)
@given(st.from_regex("[A-Z0-9]{5,20}", fullmatch=True), st.ip_addresses())
def test_TB6_a_real_shell_hands_the_values_on_as_they_are(tag: str, ip: IPv4Address | IPv6Address) -> None:
    request = DelegateRequest(CLAIM, Device(tag), Location(str(ip)))
    told = subprocess.run(["/bin/sh", "-c", command_for("printf '%s|' {tag} {ip}", request)], capture_output=True,
                          text=True, check=True).stdout
    assert told == f"{tag}|{getattr(ip, 'ipv4_mapped', None) or ip}|"


# --- keys ---------------------------------------------------------------------------------------------------------


def keygen(folder: Path, kind: str, *words: str) -> Path:
    path = folder / f"{kind}-{len(list(folder.iterdir()))}"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", path, *words], check=True)
    return path


@pytest.mark.counterpart("ssh-keygen")
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_TB7_a_host_key_is_found_in_every_form_and_its_fingerprint_is_openssh_s(tmp_path: Path, kind: str) -> None:
    line = keygen(tmp_path, kind).with_suffix(".pub").read_text()
    kind_word, encoded, _ = line.split()
    key = host_key_in(line)
    forms = (f"{kind_word} {encoded}", f"host.example,192.0.2.1 {line}", f"[host]:2222 {line}",
             f"|1|aGFzaA==|aA== {line}",
             f"# host:22 SSH-2.0-OpenSSH_9\nhost {kind_word} {encoded}\nhost {kind_word} {encoded}\n", str(key))
    assert all(host_key_in(form) == key for form in forms)
    told = subprocess.run(["ssh-keygen", "-l", "-f", "-"], input=line, capture_output=True, text=True, check=True)
    assert told.stdout.split()[1] == key.fingerprint


@pytest.mark.counterpart("ssh-keygen")
def test_TB7_one_host_key_is_wanted_and_one_that_is_worth_it(tmp_path: Path) -> None:
    one, other = (keygen(tmp_path, kind).with_suffix(".pub").read_text() for kind in ("ed25519", "ecdsa"))
    weak = keygen(tmp_path, "rsa", "-b", "1024").with_suffix(".pub").read_text()
    for text in ("", "hello", one + other, f"@revoked host {one}", f"@cert-authority host {one}", "ssh-ed25519 AAAA",
                 one.replace("AAAA", "!!!!"), one.replace("ssh-ed25519", "ssh-rsa"), weak,
                 "ssh-dss AAAAB3NzaC1kc3MAAACBAP"):
        with pytest.raises(ValueError):
            host_key_in(text)


@pytest.mark.counterpart("ssh-keygen")
@pytest.mark.parametrize(("kind", "words"), [
    ("ed25519", ()), ("ecdsa", ()), ("rsa", ()), ("rsa", ("-m", "PEM")), ("ecdsa", ("-m", "PKCS8"))])
def test_a7b_a_private_key_is_taken_from_every_form_and_nothing_else_of_its_file(
        tmp_path: Path, kind: str, words: tuple[str, ...]) -> None:
    path = keygen(tmp_path, kind, "-C", "secret comment", *words)
    taken = private_key_in(path.read_bytes())
    assert taken.reveal().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    (tmp_path / "taken").write_text(taken.reveal())
    (tmp_path / "taken").chmod(0o600)
    public = subprocess.run(["ssh-keygen", "-y", "-f", tmp_path / "taken"], capture_output=True, text=True, check=True)
    assert public.stdout.split()[:2] == path.with_suffix(".pub").read_text().split()[:2]
    assert "secret" not in public.stdout


@pytest.mark.counterpart("ssh-keygen")
@pytest.mark.parametrize("words", [(), ("-m", "PEM")])
def test_a7b_a_pass_phrase_is_told_with_how_to_take_it_off(tmp_path: Path, words: tuple[str, ...]) -> None:
    path = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "rsa", "-N", "a pass phrase", *words, "-f", path], check=True)
    with pytest.raises(ValueError, match=r"pass phrase.*ssh-keygen -p"):
        private_key_in(path.read_bytes())


@pytest.mark.counterpart("ssh-keygen")
def test_a7b_what_is_no_good_private_key_is_refused_and_not_shown(tmp_path: Path) -> None:
    weak = keygen(tmp_path, "rsa", "-b", "1024")
    for content in (b"", b"Plant3d", weak.with_suffix(".pub").read_bytes(), weak.read_bytes(),
                    b"-----BEGIN OPENSSH PRIVATE KEY-----\nUGxhbnQzZA==\n-----END OPENSSH PRIVATE KEY-----\n"):
        with pytest.raises(ValueError) as refused:
            private_key_in(content)
        assert "lant3d" not in str(refused.value)
        assert "UGxh" not in str(refused.value)


@pytest.mark.parametrize(("bits", "is_taken"), [(8192, True), (8200, False)])
def test_TB11_a_host_key_that_takes_long_to_verify_is_refused(bits: int, is_taken: bool) -> None:
    key = rsa.RSAPublicNumbers(65537, (1 << bits - 1) + 1).public_key()
    text = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    if is_taken:
        assert host_key_in(text).kind == "ssh-rsa"
    else:
        with pytest.raises(ValueError, match="8200 bits is too long, 8192 are the most"):
            host_key_in(text)


@pytest.mark.counterpart("ssh-keygen")
def test_TB11_a_private_key_that_takes_long_to_sign_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call signs once, and everybody waits for it."""
    assert ssh_keys.MOST_PRIVATE_RSA == 4096
    monkeypatch.setattr(ssh_keys, "MOST_PRIVATE_RSA", 2048)
    with pytest.raises(ValueError, match="2056 bits is too long, 2048 are the most"):
        private_key_in(keygen(tmp_path, "rsa", "-b", "2056").read_bytes())
