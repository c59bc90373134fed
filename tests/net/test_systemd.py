"""The service manager's protocols, against a datagram socket and sockets of the test. A10: operated like a service."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from delegator.errors import DelegatorError, Kind
from delegator.net.systemd import DELEGATE, DEVICES, DOORS, FIRST, OPS, Manager, manager, sockets

OURS = (DEVICES, OPS)


@pytest.fixture
def heard(tmp_path: Path) -> Iterator[socket.socket]:
    """What the service manager would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(2)
        yield listening


def lines(listening: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in listening.recv(4096).decode().splitlines())


class TestNotify:
    def test_the_words_of_a_life(self, heard: socket.socket) -> None:
        one = manager({"NOTIFY_SOCKET": heard.getsockname()})
        one.ready("serving devices")
        assert lines(heard) == {"READY": "1", "STATUS": "serving devices"}
        before = time.monotonic_ns() // 1000
        one.reloading()
        said = lines(heard)
        assert said["RELOADING"] == "1"
        assert before <= int(said["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        one.alive()
        assert lines(heard) == {"WATCHDOG": "1"}
        one.stopping("draining")
        assert lines(heard) == {"STOPPING": "1", "STATUS": "draining"}
        one.close()

    def test_an_abstract_address(self) -> None:
        name = f"delegator-test-{os.getpid()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
            listening.bind("\0" + name)
            listening.settimeout(2)
            one = manager({"NOTIFY_SOCKET": "@" + name})
            one.ready("here")
            assert lines(listening)["READY"] == "1"
            one.close()

    def test_what_was_read_is_gone_from_the_environment(self, heard: socket.socket) -> None:
        """A program that a callback starts must not take itself for the service."""
        environment = {"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "9000000", "LISTEN_PID": "1",
                       "WATCHDOG_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "HOME": "/"}
        assert manager(environment).watchdog == 9.0
        sockets(OURS, environment)
        assert environment == {"HOME": "/"}

    @pytest.mark.parametrize("environment", [
        {}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}])
    def test_no_watchdog_for_us(self, environment: dict[str, str]) -> None:
        assert manager(environment).watchdog is None

    def test_a_manager_that_is_gone_is_said_once_and_costs_nothing(self, tmp_path: Path,
                                                                   caplog: pytest.LogCaptureFixture) -> None:
        one = Manager(str(tmp_path / "nobody"))
        one.ready("x")
        one.alive()
        assert len(caplog.records) == 1
        assert "does not listen" in caplog.text

    def test_a_manager_that_reads_nothing_holds_nobody_up(self, heard: socket.socket) -> None:
        one = Manager(heard.getsockname())
        for _ in range(5000):
            one.alive()
        one.close()

    def test_nobody_is_told_nothing(self) -> None:
        Manager().ready("x")


class TestSockets:
    """Descriptors from 3 on, as sd_listen_fds(3) says. Each runs in a child, whose descriptor 3 is free to be had."""

    @staticmethod
    def given(made: list[socket.socket], names: str | None, pid: str | None = None,
              doors: tuple[str, ...] = OURS) -> tuple[int, str]:
        """What `sockets` finds in a child that has these at 3, 4, ...: exit code and words."""
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.dup2(writing, 60)
                for number, one in enumerate(made):
                    os.dup2(one.fileno(), 40 + number)
                for number in range(len(made)):
                    os.dup2(40 + number, FIRST + number)
                said = {"LISTEN_FDS": str(len(made)), "LISTEN_PID": pid or str(os.getpid())}
                found = sockets(doors, {**said, **({} if names is None else {"LISTEN_FDNAMES": names})})
                text = " ".join(f"{name}={[one.getsockname()[1] for one in ones]}" for name, ones in found.items())
                kept = all(not os.get_inheritable(one.fileno()) for ones in found.values() for one in ones)
                os.write(60, f"{text} {kept}".encode())
                os._exit(0)
            except DelegatorError as error:
                os.write(60, f"{error.kind.value}: {error.detail}; {error.hint}".encode())
                os._exit(3)
            finally:
                os._exit(9)
        os.close(writing)
        with os.fdopen(reading) as words:
            text = words.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text

    def test_by_name_and_those_without_one_are_for_devices(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            ports = one.getsockname()[1], two.getsockname()[1]
            assert self.given([one, two], "devices:ops") == (0, f"{DEVICES}=[{ports[0]}] {OPS}=[{ports[1]}] True")
            assert self.given([one, two], None) == (0, f"{DEVICES}=[{ports[0]}, {ports[1]}] {OPS}=[] True")

    def test_a_process_with_another_door_takes_what_is_for_that_one(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
            ports = one.getsockname()[1], two.getsockname()[1]
            assert self.given([one, two], "delegate:delegator.socket", doors=(DELEGATE,)) == (
                0, f"{DELEGATE}=[{ports[0]}, {ports[1]}] True"), "a unit's name is no door's, so it is for the first"

    @pytest.mark.parametrize("door", sorted(DOORS - {DEVICES}))
    def test_the_port_of_another_door_is_not_served_as_if_it_were_ours(self, door: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one:
            code, words = self.given([one], door, doors=(DEVICES,))
        assert (code, words.startswith(Kind.CONFIGURATION.value)) == (3, True)
        assert f"({door})" in words
        assert "no such door, only devices" in words

    def test_those_of_another_process_are_left_alone(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as one:
            assert self.given([one], "devices", pid="1") == (0, f"{DEVICES}=[] {OPS}=[] True")

    def test_what_does_not_listen_is_refused_with_what_to_do(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            code, words = self.given([one], "devices")
        assert (code, words.startswith(Kind.CONFIGURATION.value)) == (3, True)
        assert "Accept=no" in words
