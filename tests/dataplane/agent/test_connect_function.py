"""The element without hardware: what it refuses, and that everything else passes it by. With hardware: tests/sriov."""

from __future__ import annotations

import re

import pytest

from meshwright.core.clock import SystemClock
from meshwright.dataplane.agent.connect_function import ConnectFunction, hardware_address
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Chain, Exchange, Operation, Proceed
from meshwright.nsm.connections import ConnectionState
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Connection, NetworkServiceRequest

seen: list[str] = []


async def otherwise(request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
    seen.append(request.connection.id)
    return await proceed(request, exchange)


def exchange(state: ConnectionState) -> Exchange:
    clock = SystemClock()
    return Exchange(Operation.REQUEST, clock, clock.monotonic() + 5.0, opened=state)


def asking(**labels: str) -> NetworkServiceRequest:
    return NetworkServiceRequest(connection=Connection(id="c1", labels=labels))


async def test_who_asks_for_no_function_goes_on() -> None:
    seen.clear()
    await Chain(ConnectFunction(None, otherwise))(asking(app="shop"), exchange(ConnectionState("c1", "", "")))
    assert seen == ["c1"]


async def test_a_forwarder_without_cards_says_so() -> None:
    chain = Chain(ConnectFunction(None, otherwise))
    with pytest.raises(InvalidMechanism, match=re.escape("this forwarder has no virtual functions")) as refused:
        await chain(asking(sriovToken="ward.example/10G"), exchange(ConnectionState("c1", "", "")))
    assert "--sriov" in str(refused.value)


def test_addresses_are_stations_of_local_administration() -> None:
    """The same connection has the same address again; two have two; none is a group's."""
    addresses = {hardware_address(f"c{number}") for number in range(200)}
    assert len(addresses) == 200
    assert hardware_address("c7") in addresses
    assert {int(address[:2], 16) & 3 for address in addresses} == {2}


def test_noop_names_nothing() -> None:
    assert (mechanism.noop().type, mechanism.inode(mechanism.noop())) == ("NOOP", None)
