"""The element without hardware: what it refuses, and that everything else passes it by. With hardware: tests/sriov."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from meshwright.core.clock import SystemClock
from meshwright.dataplane.agent.carried_functions import CarriedFunctions
from meshwright.dataplane.agent.connect_function import ConnectFunction, hardware_address
from meshwright.dataplane.agent.devices import Devices
from meshwright.dataplane.agent.memif_sockets import MemifSockets
from meshwright.dataplane.forwarder import Forwarder
from meshwright.dataplane.sriov import FunctionPool, Served
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Chain, Exchange, Operation, Proceed
from meshwright.nsm.connections import ConnectionState
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Connection, Mechanism, NetworkServiceRequest

CARD, FUNCTION, TOKEN = "0000:01:00.0", "0000:01:10.0", "ward.example/10G"

seen: list[str] = []


async def otherwise(request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
    seen.append(request.connection.id)
    return await proceed(request, exchange)


class OnTheWire:
    """An endpoint."""

    def __init__(self, payload: str = "ETHERNET") -> None:
        self.asked = 0
        self._payload = payload

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        self.asked += 1
        answer = Connection()
        answer.CopyFrom(request.connection)
        answer.mechanism.CopyFrom(mechanism.noop())
        answer.payload = self._payload
        return answer


@pytest.fixture
def carried(tmp_path: Path) -> CarriedFunctions:
    return CarriedFunctions(Forwarder(), MemifSockets(tmp_path / "memif"), Devices(64))


@pytest.fixture
def pool(tmp_path: Path) -> FunctionPool:
    """A pool of one function, in a device tree that is made up."""
    devices = tmp_path / "sys" / "bus" / "pci" / "devices"
    content = {"vendor": "0x8086", "device": "0x10c9", "class": "0x020000"}
    card = content | {"sriov_totalvfs": "7", "sriov_numvfs": "1", "sriov_drivers_autoprobe": "1"}
    for address, files in ((CARD, card), (FUNCTION, content)):
        (devices / address).mkdir(parents=True)
        for name, text in files.items():
            (devices / address / name).write_text(f"{text}\n")
    (devices / CARD / "driver").symlink_to("../../drivers/igb")
    (devices / CARD / "virtfn0").symlink_to(f"../{FUNCTION}")
    return FunctionPool([Served(CARD, 1, [TOKEN])], str(tmp_path / "sys"))


def exchange(state: ConnectionState) -> Exchange:
    clock = SystemClock()
    return Exchange(Operation.REQUEST, clock, clock.monotonic() + 5.0, opened=state)


def asking(*wishes: Mechanism, **labels: str) -> NetworkServiceRequest:
    return NetworkServiceRequest(connection=Connection(id="c1", labels=labels), mechanism_preferences=wishes)


async def refusal(chain: Chain, state: ConnectionState, *wishes: Mechanism) -> str:
    with pytest.raises(InvalidMechanism) as refused:
        await chain(asking(*wishes, sriovToken=TOKEN), exchange(state))
    return str(refused.value)


async def test_who_asks_for_no_function_goes_on(carried: CarriedFunctions) -> None:
    seen.clear()
    await Chain(ConnectFunction(None, carried, otherwise))(asking(app="shop"), exchange(ConnectionState("c1", "", "")))
    assert seen == ["c1"]


async def test_a_forwarder_without_cards_says_so(carried: CarriedFunctions) -> None:
    chain = Chain(ConnectFunction(None, carried, otherwise))
    with pytest.raises(InvalidMechanism, match=re.escape("this forwarder has no virtual functions")) as refused:
        await chain(asking(sriovToken=TOKEN), exchange(ConnectionState("c1", "", "")))
    assert "--sriov" in str(refused.value)


async def test_a_forwarder_without_dpdk_says_so_to_memif_clients(
    monkeypatch: pytest.MonkeyPatch, pool: FunctionPool, carried: CarriedFunctions
) -> None:
    """Before the endpoint is asked, and with what to install."""
    monkeypatch.setitem(sys.modules, "meshwright.dpdk", None)
    endpoint = OnTheWire()
    chain = Chain(ConnectFunction(pool, carried, otherwise), endpoint)
    said = await refusal(chain, ConnectionState("c1", "", ""), mechanism.memif())
    assert "can't drive a virtual function for MEMIF" in said
    assert "pip install ./dataplane/dpdk" in said
    assert endpoint.asked == 0


async def test_packets_of_ip_are_none_of_a_card_s(
    monkeypatch: pytest.MonkeyPatch, pool: FunctionPool, carried: CarriedFunctions
) -> None:
    monkeypatch.setitem(sys.modules, "meshwright.dpdk", types.ModuleType("meshwright.dpdk"))
    chain = Chain(ConnectFunction(pool, carried, otherwise), OnTheWire("IP"))
    assert "the payload ETHERNET" in await refusal(chain, ConnectionState("c1", "", ""), mechanism.memif())
    assert [listed.holder for listed in pool.list()] == [None]


async def test_a_function_stays_what_it_is(pool: FunctionPool, carried: CarriedFunctions) -> None:
    """An interface can't become a socket's other side under a connection that uses it."""
    has = Connection(id="c1", labels={mechanism.SRIOV_TOKEN: TOKEN}, mechanism=mechanism.kernel(interface="nsm-1"))
    chain = Chain(ConnectFunction(pool, carried, otherwise), OnTheWire())
    said = await refusal(chain, ConnectionState("c1", "", "", accepted=has), mechanism.memif())
    assert "has its function by KERNEL" in said


def test_addresses_are_stations_of_local_administration() -> None:
    """The same connection has the same address again; two have two; none is a group's."""
    addresses = {hardware_address(f"c{number}") for number in range(200)}
    assert len(addresses) == 200
    assert hardware_address("c7") in addresses
    assert {int(address[:2], 16) & 3 for address in addresses} == {2}


def test_noop_names_nothing() -> None:
    assert (mechanism.noop().type, mechanism.inode(mechanism.noop())) == ("NOOP", None)
