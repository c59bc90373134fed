"""The operators' port where settings move it: nothing is lost by a move that cannot be made (A10)."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest

from delegator.config import OpsSettings
from delegator.errors import DelegatorError
from delegator.watching import ops
from delegator.watching.metrics import Metrics


async def nothing() -> dict[str, str]:
    return {}


@pytest.fixture
async def port() -> AsyncIterator[ops.Port]:
    made = ops.Port(ops.Ops(Metrics(), nothing, dict, nothing))
    yield made
    made.close()


def free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def listens(host: str, number: int | None) -> bool:
    try:
        socket.create_connection((host, number or 0), timeout=1).close()
    except OSError:
        return False
    return True


async def test_A10_it_moves_to_another_address_of_the_same_port(port: ops.Port) -> None:
    number = free()
    await port.open(OpsSettings(True, "127.0.0.1", number), [])
    assert not listens("127.0.0.2", number)
    await port.move(OpsSettings(True, "0.0.0.0", number))
    assert listens("127.0.0.2", number)


@pytest.mark.parametrize("same", [True, False])
async def test_A10_where_it_cannot_move_it_stays(port: ops.Port, same: bool) -> None:
    number = free()
    await port.open(OpsSettings(True, "127.0.0.1", number), [])
    with pytest.raises(DelegatorError, match="cannot listen"):
        await port.move(OpsSettings(True, "192.0.2.1", number if same else free()))
    assert (port.number, listens("127.0.0.1", number)) == (number, True)


async def test_A10_a_socket_that_was_handed_over_stays(port: ops.Port) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    await port.open(OpsSettings(False), [given])
    number = port.number
    await port.move(OpsSettings(True, "127.0.0.1", free()))
    assert (port.number, listens("127.0.0.1", number)) == (number, True)


async def test_A10_switched_off_it_is_gone(port: ops.Port) -> None:
    await port.open(OpsSettings(True, "127.0.0.1", 0), [])
    number = port.number
    await port.move(OpsSettings(False))
    assert (port.number, listens("127.0.0.1", number)) == (None, False)
