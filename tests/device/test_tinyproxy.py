"""An activation by way of a proxy that we did not write."""

from __future__ import annotations

import socket
import subprocess
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.counterpart("tinyproxy")]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.fixture
def proxied(tmp_path):
    """Starts it for the ports that it lets through; gives its own."""
    started = []

    def start(*allowed: int) -> int:
        port = free_port()
        (tmp_path / "tinyproxy.conf").write_text(
            f"Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\nLogFile \"{tmp_path}/tinyproxy.log\"\n"
            + "".join(f"ConnectPort {one}\n" for one in allowed))
        started.append(subprocess.Popen(["tinyproxy", "-d", "-c", str(tmp_path / "tinyproxy.conf")],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return port
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
    yield start
    for process in started:
        process.terminate()
        process.wait(10)


def test_a_whole_activation_goes_through_tinyproxy(lab, say, proxied, tmp_path):
    """The delegator by the proxy, the owner's server without it."""
    delegate = lab.delegate()
    delegator = lab.delegator(lab.issued(delegate), say.CONFIRMED)
    port = proxied(delegator.port)
    facts = lab.run(delegator, "--proxy", f"127.0.0.1:{port}", "--hook", lab.hook())
    assert (facts["outcome"], len(delegator.heard), len(delegate.heard)) == ("ready", 2, 1)
    said = (tmp_path / "tinyproxy.log").read_text()
    assert f"CONNECT localhost:{delegator.port}" in said
    assert str(delegate.port) not in said


def test_one_connection_by_way_of_tinyproxy_is_enough(lab, say, proxied, tmp_path):
    """It stays open through the proxy while the hook runs."""
    delegator = lab.delegator(say.answer(), say.CONFIRMED, keeps=5)
    port = proxied(delegator.port)
    hook = lab.hook("import time\ntime.sleep(1)")
    assert lab.run(delegator, "--proxy", f"127.0.0.1:{port}", "--hook", hook)["outcome"] == "ready"
    assert (delegator.connections, len(delegator.heard)) == (1, 2)
    assert (tmp_path / "tinyproxy.log").read_text().count(f"CONNECT localhost:{delegator.port}") == 1


def test_a_port_that_tinyproxy_does_not_let_through_is_no_route(lab, say, proxied):
    delegator = lab.delegator(say.answer())
    port = proxied(1)
    assert "403" in lab.fails(delegator, "no-route", "--proxy", f"127.0.0.1:{port}")["detail"]
    assert not delegator.heard
