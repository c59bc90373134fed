"""A device whose key never leaves its TPM: TLS by OpenSSL's provider, with nothing but a configuration of OpenSSL.

swtpm plays the chip, tpm2-abrmd shares it, tpm2-openssl is the provider: programs that are not ours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.counterpart("swtpm", "tpm2-abrmd", "dbus-run-session", "openssl")]

CONFIGURATION = """openssl_conf = all
[all]
providers = list
alg_section = algorithms
[list]
tpm2 = tpm
default = software
[tpm]
activate = 1
[software]
activate = 1
[algorithms]
default_properties = ?provider=tpm2,tpm2.digest!=yes,tpm2.cipher!=yes
[req]
distinguished_name = name
[name]
"""
WITH_TPM = """
until_it() { what=$1; shift; for _ in $(seq 300); do "$@" && return; sleep 0.1; done; echo "no $what" >&2; exit 99; }
is_shared() {
    dbus-send --session --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.NameHasOwner \\
        string:com.intel.tss2.Tabrmd | grep -q "boolean true"
}
chip= sharing=
trap 'kill -9 $sharing $chip' EXIT
swtpm socket --tpm2 --tpmstate dir="$0/chip" --server type=tcp,port=$PORT,bindaddr=127.0.0.1 \\
    --ctrl type=tcp,port=$((PORT + 1)),bindaddr=127.0.0.1 --flags not-need-init,startup-clear >"$0/swtpm.log" 2>&1 &
chip=$!
until_it "chip" grep -q ":$(printf %04X "$PORT") .* 0A " /proc/net/tcp
tpm2-abrmd --session --allow-root --tcti=swtpm:host=127.0.0.1,port=$PORT >"$0/abrmd.log" 2>&1 &
sharing=$!
until_it "resource manager" is_shared
OPENSSL_CONF="$0/openssl.cnf" "$@"
"""


@pytest.fixture
def tpm(tmp_path: Path) -> Path:
    """The folder of a TPM."""
    (tmp_path / "chip").mkdir()
    (tmp_path / "openssl.cnf").write_text(CONFIGURATION)
    return tmp_path


def test_the_configuration_of_the_page_is_the_one_tried() -> None:
    """But for what the program `openssl` asks of any configuration."""
    page = (ROOT / "docs/device-makers.md").read_text()
    assert CONFIGURATION.partition("[req]")[0] in page


def free_pair() -> int:
    """A port that nobody listens at, nor at the next one."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first, contextlib.suppress(OSError, OverflowError):
            port: int = first.getsockname()[1]
            socket.create_server(("127.0.0.1", port + 1)).close()
            return port


def with_tpm(tpm: Path, *command: str) -> str:
    done = subprocess.run(
        ["dbus-run-session", "--", "sh", "-c", WITH_TPM, str(tpm), *command], cwd=ROOT, text=True, capture_output=True,
        timeout=90, check=False, env={**os.environ, "TPM2OPENSSL_TCTI": "tabrmd:bus_type=session",
                                      "PORT": str(free_pair())})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_key_in_a_tpm_is_used_where_the_key_is_a_file_else(tpm, lab, say):
    with_tpm(tpm, "openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "group:P-256", "-out", str(tpm / "key.pem"))
    assert (tpm / "key.pem").read_text().startswith("-----BEGIN TSS2 PRIVATE KEY-----")
    with_tpm(tpm, "openssl", "pkey", "-in", str(tpm / "key.pem"), "-pubout", "-out", str(tpm / "public.pem"))
    public = serialization.load_pem_public_key((tpm / "public.pem").read_bytes())

    class Made:
        """What the authority signs for."""

        public_key = staticmethod(lambda: public)
    usage = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = lab.pki.factory._sign(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, say.TAG)]), Made, -say.DAY,
                                        say.DAY, [(usage, False)])
    (tpm / "device.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    delegator = lab.delegator(say.answer(), say.CONFIRMED)
    words = lab.words(delegator, "--once", "--timeout", "30", leaf=type(lab.pki.device)(str(tpm / "device.pem"),
                                                                                      str(tpm / "key.pem")))
    assert '"outcome": "ready"' in with_tpm(tpm, sys.executable, "-m", "delegator.device", *words)
    assert [heard.common_name for heard in delegator.heard] == [say.TAG, say.TAG]
