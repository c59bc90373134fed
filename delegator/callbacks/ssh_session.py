"""One command on one SSH connection: the only place that knows asyncssh, imported when first needed.

The invariants: the peer shows the pinned host key or is told nothing, no user name, no signature; only our one key is
offered; no file of the user we run as is read, no agent, no forwarding, no terminal, no environment; the socket goes
to the address that the outbound rule judged; output is bounded while it comes in, and so is everything else that the
peer sends (T-B11): asyncssh gets it through a valve, and what one exchange of keys may cost is bounded by what is
offered. One connection for each call: 10 ms of CPU here. A kept one would save 8 of them, and hold a login open at the
customer's for credentials that are asked for once in a device's life.
Must not live here: what the output means (answers), what a delegate is (ssh).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeAlias

import asyncssh
from asyncssh.kex import get_kex_algs

from delegator.callbacks.answers import MAX_OUTPUT, first_line
from delegator.callbacks.ssh_keys import SIGNATURES, HostKey
from delegator.callbacks.ssh_packets import Packets
from delegator.errors import DelegatorError, words_of
from delegator.model import SshCallback
from delegator.net.client import connected
from delegator.net.valve import Valve
from delegator.outbound import Outbound
from delegator.wire.ration import Bounds, Ration
from pki.said import said

logging.getLogger("asyncssh").setLevel(logging.WARNING)  # at INFO it tells each command and connection
_LONGEST_SIGNAL = 32
_STANDARD_ERROR = asyncssh.EXTENDED_DATA_STDERR
BOUNDS = Bounds(most=16 * 1024, most_of="bytes that are no answer", pieces=512, pieces_of="pieces of output",
                packets=48, quick=24)
"""Of one call. OpenSSH sends 3 to 5 KiB around an answer, host keys and all; the rest is for a banner. 16 KiB of the
dearest packets are 27 ms of work, 512 pieces as much (measured); a call that is as it should be takes 7."""
PACKET = 4096
"""Bytes of output in one packet: a packet is of no use before it is whole, and until then it counts as nothing."""
_EXCHANGES = ("mlkem768x25519-sha256", "curve25519-sha256", "curve25519-sha256@libssh.org", "ecdh-sha2-nistp256",
              "ecdh-sha2-nistp384", "ecdh-sha2-nistp521", "diffie-hellman-group14-sha256")
"""None in which the peer chooses a group or its size: 8192 bits take 20 ms and more, rsa2048-sha256 90."""
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "aes128-ctr", "aes192-ctr", "aes256-ctr")
"""Without chacha20-poly1305, which asyncssh makes three times as dear a packet; OpenSSH has had AES-GCM since 2013."""
_MACS = ("hmac-sha2-256-etm@openssh.com", "hmac-sha2-512-etm@openssh.com", "hmac-sha2-256", "hmac-sha2-512")


class SshFailure(Exception):
    """The command was not run, or not to its end; the text says why. The other side may have written it."""

    def __init__(self, why: str) -> None:
        super().__init__(said(why))


class HostKeyChanged(SshFailure):
    """The peer has another host key than the pinned one."""

    def __init__(self, shown: HostKey | None) -> None:
        super().__init__("the host key is not the pinned one")
        self.shown = shown


@dataclass(frozen=True, slots=True)
class Finished:
    """How a command ended: `status` is None where the connection went first; `signal` where one killed it."""

    output: bytes
    errors: bytes
    status: int | None
    signal: str | None
    too_much: bool


_Connection: TypeAlias = tuple[asyncssh.SSHClientConnection, Valve]


class Login:
    """Everything that is the same for each call of one delegate; keys are read once."""

    def __init__(self, settings: SshCallback, pinned: HostKey) -> None:
        """Raises SshFailure for a key or a user name that asyncssh does not take."""
        self.settings = settings
        self.pinned = pinned
        try:
            key = asyncssh.import_private_key(settings.private_key.reveal(), passphrase=None)
            self.options = _options(settings.user, [key], SIGNATURES[pinned.kind])
        except (asyncssh.KeyImportError, ValueError) as error:
            raise SshFailure(f"its settings cannot be used: {error}") from None


async def run(login: Login, command: str, outbound: Outbound, turn: asyncio.Semaphore) -> Finished:
    """Run a command. `turn` bounds how many connections are being opened. Raises SshFailure, OSError,
    DelegatorError (UNREACHABLE)."""
    async with contextlib.AsyncExitStack() as stack:
        async with turn:
            connection, valve = await stack.enter_async_context(_logged_in(login, outbound))
        done = await _exchange(connection, command, valve)
        if valve.why and done.status is None:
            raise SshFailure(valve.why)
        return done


async def log_in(login: Login, outbound: Outbound) -> None:
    """Only that, and out again. Raises as `run` does."""
    async with _logged_in(login, outbound):
        pass


async def scan(host: str, port: int, outbound: Outbound) -> HostKey:
    """The host key that a machine shows, the best of its kinds. Raises SshFailure, OSError, DelegatorError."""
    try:
        async with _connected(host, port, outbound, _options("nobody", [], ",".join(SIGNATURES.values())), None):
            pass
    except HostKeyChanged as met:
        if met.shown is not None and met.shown.kind in SIGNATURES:
            return met.shown
    raise SshFailure(f"it shows no host key of a kind we take: {', '.join(SIGNATURES)}")


async def _exchange(connection: asyncssh.SSHClientConnection, command: str, valve: Valve) -> Finished:
    session = _Collected(valve)
    channel, _ = await connection.create_session(
        lambda: session, command, encoding=None, request_pty=False, env={}, send_env=[], window=MAX_OUTPUT,
        max_pktsize=PACKET)
    try:
        channel.write_eof()
        await session.ended.wait()
    except BaseException:
        session.stop()
        raise
    exit_signal = channel.get_exit_signal()
    return Finished(bytes(session.output), bytes(session.errors), channel.get_exit_status(),
                    None if exit_signal is None else said(exit_signal[0], _LONGEST_SIGNAL), session.too_much)


class _Collected(asyncssh.SSHClientSession[bytes]):
    """Takes in what a command writes, up to the limit; then the command is killed."""

    def __init__(self, valve: Valve) -> None:
        self._valve = valve
        self.output, self.errors = bytearray(), bytearray()
        self.too_much = False
        self.ended = asyncio.Event()

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        self._channel = chan
        chan.resume_reading()  # what is held until all is settled would count as packets of no use till then

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        self._valve.of_use(len(data))
        kept = self.errors if datatype == _STANDARD_ERROR else self.output
        if len(kept) + len(data) <= MAX_OUTPUT:
            kept += data
        elif not self.too_much:
            self.too_much = True
            self.stop()

    def stop(self) -> None:
        """Ask the far side to kill the command (sshd does so for all but forced ones); nobody waits for its end."""
        with contextlib.suppress(OSError):  # it has just ended by itself
            self._channel.kill()
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set()


class _Pin(asyncssh.SSHClient):
    """Judges the host key. No known_hosts is given, so asyncssh asks here for every key and trusts none itself; it asks
    in each exchange of keys, and one is enough for a call (RFC 4253 section 9: after an hour, or a gigabyte)."""

    def __init__(self, pinned: HostKey | None, valve: Valve) -> None:
        self._pinned, self._valve = pinned, valve
        self.shown: HostKey | None = None

    def connection_made(self, conn: asyncssh.SSHClientConnection) -> None:
        Packets(conn, self._valve)

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        if self.shown is not None:
            self._valve.cut("it asked for new keys in the middle of a call")
            return False
        self.shown = HostKey(key.get_algorithm(), key.public_data)
        return self.shown == self._pinned


def _options(user: str, keys: list[asyncssh.SSHKey], algorithms: str) -> asyncssh.SSHClientConnectionOptions:
    """`algorithms` come first and all others after them: a host that lost the pinned key still shows another, which
    can then be reported."""
    return asyncssh.SSHClientConnectionOptions(
        config=None, known_hosts=([], [], []), server_host_key_algs="^" + algorithms, x509_trusted_certs=None,
        x509_trusted_cert_paths=[], username=user, client_keys=keys or None, client_certs=[], agent_path=None,
        agent_identities=None, pkcs11_provider=None, preferred_auth="publickey", public_key_auth=True,
        password_auth=False, kbdint_auth=False, host_based_auth=False, gss_host=None, gss_auth=False, gss_kex=False,
        disable_trivial_auth=True, agent_forwarding=False, x11_forwarding=False, request_pty=False, send_env=[],
        env={}, compression_algs=None, encryption_algs=_CIPHERS, mac_algs=_MACS,
        kex_algs=[one for one in _EXCHANGES if one.encode() in get_kex_algs()])  # ML-KEM where OpenSSL has it


def _logged_in(login: Login, outbound: Outbound) -> contextlib.AbstractAsyncContextManager[_Connection]:
    settings = login.settings
    return _connected(settings.address or settings.host, settings.port, outbound, login.options, login.pinned)


@contextlib.asynccontextmanager
async def _connected(host: str, port: int, outbound: Outbound, options: asyncssh.SSHClientConnectionOptions,
                     pinned: HostKey | None) -> AsyncIterator[_Connection]:
    """A connection that is logged in, and the valve it comes through. Raises SshFailure, OSError, DelegatorError
    (UNREACHABLE)."""
    async with Valve(await connected(host, port, outbound), Ration(BOUNDS)) as valve:
        connection = await _opened(valve, options, pinned)
        try:
            yield connection, valve
        except asyncssh.Error as error:
            raise SshFailure(valve.why or f"the command was not run: {first_line(error.reason.encode())}") from None
        except (OSError, DelegatorError, SshFailure):
            raise
        except Exception as error:  # whatever the other side's packets did to the library
            raise SshFailure(valve.why or f"the command was not run: {_odd(error)}") from None
        finally:
            connection.close()


async def _opened(valve: Valve, options: asyncssh.SSHClientConnectionOptions,
                  pinned: HostKey | None) -> asyncssh.SSHClientConnection:
    pin = _Pin(pinned, valve)
    try:
        return await asyncssh.connect("peer", sock=valve.inner, config=None, options=options,
                                      client_factory=lambda: pin)  # a name it asks for, where a socket has none
    except BaseException as error:
        valve.inner.close()
        raise _said(error, pin, options.username, valve.why) from None


def _said(error: BaseException, pin: _Pin, user: str, why: str) -> BaseException:
    match error:
        case asyncssh.HostKeyNotVerifiable() if not why:
            return HostKeyChanged(pin.shown)
        case asyncssh.PermissionDenied():
            return SshFailure(f"user {user} is not let in with this key")
        case asyncssh.Error():
            return SshFailure(f"no SSH connection: {why or first_line(error.reason.encode())}")
        case OSError():
            return SshFailure(f"no SSH connection: {why or error.strerror or error}")
        case DelegatorError():
            return error
        case Exception():
            return SshFailure(f"no SSH connection: {why or _odd(error)}")
    return error


def _odd(error: Exception) -> str:
    """asyncssh hands on whatever its readers of packets stumble over, of any class, and with any words."""
    return f"it sent what cannot be read: {words_of(error)}"
