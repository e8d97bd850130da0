"""Virtual functions that this process drives itself, each for a memif client: the socket's other side is the wire.

One decision to know: unbinding a function waits until nobody has it open, so its port is closed before the pool gets it
back, and a step that began is waited for even when the client has hung up.
"""

from __future__ import annotations

import asyncio
import contextlib

from meshwright.core import errors
from meshwright.dataplane.agent import ports
from meshwright.dataplane.agent.devices import Devices
from meshwright.dataplane.agent.memif_sockets import MemifSockets
from meshwright.dataplane.forwarder import DpdkPort, Forwarder, MemifPort
from meshwright.dataplane.sriov import FunctionPool, Given
from meshwright.nsm.chain import Exchange
from meshwright.nsm.connections import ConnectionState
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Connection, Mechanism


class CarriedFunctions:
    """`forwarder` carries the packets between `devices` and the clients' `sockets`."""

    def __init__(self, forwarder: Forwarder, sockets: MemifSockets, devices: Devices) -> None:
        self._forwarder, self._sockets, self._devices = forwarder, sockets, devices
        self._open: dict[str, bytes] = {}  # by connection: the mechanism that its socket was made for

    async def check(self) -> None:
        """Raise InvalidMechanism where there is no DPDK to drive a function."""
        await ports.run(self._devices.check)

    async def connect(
        self, pool: FunctionPool, token: str, mac: str, wish: Mechanism, answer: Connection, exchange: Exchange
    ) -> Given:
        """Give the client a function behind a socket and fill in the answer's mechanism; again, change what differs."""
        state = exchange.state
        payload = answer.payload or (state.accepted.payload if state.accepted is not None else "")
        if payload == "IP":
            raise InvalidMechanism(
                f"{answer.network_service}'s packets are IP, a card's are Ethernet frames",
                field="payload",
                remedy="register the network service with the payload ETHERNET, or ask for KERNEL",
            )
        offer = self._sockets.offer(wish, state)
        made_for = offer.SerializeToString(deterministic=True)
        socket = None
        if self._open.get(state.id) != made_for:
            await self.disconnect(state)
            socket = self._sockets.port(offer, state)
        vlan = answer.context.ethernet_context.vlan_tag
        step = asyncio.create_task(ports.run(self._give, pool, state.id, token, mac, vlan, socket))
        try:
            given = await asyncio.shield(step)
        finally:
            await asyncio.wait([step])
        if socket is not None:
            self._open[state.id] = made_for
            self._sockets.opened(offer, state)
        self._sockets.answer(offer, answer.mechanism, exchange)
        return given

    async def disconnect(self, state: ConnectionState) -> None:
        """Close socket and device; a connection that has none is success."""
        self._open.pop(state.id, None)
        with contextlib.suppress(errors.NotFound):  # it has none, or an earlier process had
            await ports.run(self._forwarder.close, state.id)
        self._sockets.remove(state.id)

    def _give(
        self, pool: FunctionPool, identifier: str, token: str, mac: str, vlan: int, socket: MemifPort | None
    ) -> Given:
        given = pool.give_device(identifier, token, mac, vlan)
        if socket is not None:
            with self._devices.open(given.address) as device:  # closes it unless it was given away
                self._forwarder.connect_user_space(identifier, socket, DpdkPort(device))
        return given
