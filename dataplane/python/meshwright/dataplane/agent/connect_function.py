"""Connects a client by a network card's virtual function: what leaves the client's interface is on the wire.

A client asks with the label ``sriovToken: <service domain>/<capability>``; its endpoint is on the wire too, answers
NOOP, and says by addresses and VLAN where. What asks for no function goes to the element behind.

One decision to know: which connection has which function is in the answer (``pciAddress``), and so in the journal that
begin keeps. What the journal doesn't name is nobody's, and is taken back when the forwarder starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import structlog

from meshwright.core.clock import Clock
from meshwright.dataplane.agent import ports
from meshwright.dataplane.forwarder import KernelPort
from meshwright.dataplane.sriov import FunctionPool
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Element, Exchange, Proceed
from meshwright.nsm.connections import Connections, ConnectionState
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Connection, NetworkServiceRequest

_PERIOD_SECONDS = 1.0

log = structlog.get_logger(__name__)


class ConnectFunction:
    """Gives functions of `pool`; `otherwise` connects whoever asked for none."""

    def __init__(self, pool: FunctionPool | None, otherwise: Element) -> None:
        self._pool, self._otherwise = pool, otherwise

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Ask the endpoint, then give; on Close take back, then tell the endpoint."""
        state = exchange.state
        token = _token(state, request.connection)
        if not token:
            return await self._otherwise(request, exchange, proceed)
        if self._pool is None:
            raise InvalidMechanism(
                f"{token!r}: this forwarder has no virtual functions",
                field=f"labels[{mechanism.SRIOV_TOKEN}]",
                remedy="start it with --sriov, or select another by the network service's matches",
            )
        if exchange.closing:
            await ports.run(self._pool.give_back, state.id)
            return await proceed(request, exchange)
        if request.connection.labels.get(mechanism.SRIOV_TOKEN) != token:
            raise InvalidMechanism(
                f"this connection has a function of {token}",
                field=f"labels[{mechanism.SRIOV_TOKEN}]",
                remedy="close it and ask for another",
            )
        wish = mechanism.choose(request.connection.mechanism, request.mechanism_preferences, [mechanism.KERNEL])
        name = mechanism.interface_name(wish, request.connection.network_service, state.id)
        client = mechanism.kernel(ports.inode_of(wish, "the client"), name)
        answer = await proceed(_onward(request), exchange)
        if answer.mechanism.type != mechanism.NOOP:
            raise InvalidMechanism(
                f"the endpoint answered {answer.mechanism.type!r}",
                field="mechanism.type",
                remedy="a virtual function reaches endpoints that are on the wire: NOOP",
            )
        context = answer.context
        port = KernelPort(
            ports.descriptor_of(client, exchange, "the client").fileno(),
            name,
            addresses=list(context.ip_context.src_ip_addrs),
            routes=ports.routes(context.ip_context.src_routes),
            mtu=context.MTU or None,
        )
        mac, vlan = hardware_address(state.id), context.ethernet_context.vlan_tag
        given = await ports.run(self._pool.give_interface, state.id, token, port, mac, vlan)
        answer.mechanism.CopyFrom(client)
        answer.mechanism.parameters[mechanism.PCI_ADDRESS] = given.address
        context.ethernet_context.src_mac = mac
        return answer


class Returned:
    """Takes back the functions whose clients' namespaces are gone; run it as a task.

    The card's interface is in the machine's namespace again then, under the name that it had in the client's. The
    connection stays until its tokens are over: a client that goes on elsewhere gets a function again with its next
    request.
    """

    def __init__(self, pool: FunctionPool, connections: Connections, clock: Clock) -> None:
        self._pool, self._connections, self._clock = pool, connections, clock

    async def run(self) -> None:
        """Look once a second until cancelled."""
        while True:
            await self._clock.sleep(_PERIOD_SECONDS)
            for identifier in await ports.run(self._pool.fallen):
                state = self._connections.get(identifier)
                if state is None:
                    await self._take_back(identifier)
                    continue
                async with state.lock:  # a function that is being given is in the machine's namespace for a moment too
                    await self._take_back(identifier)

    async def _take_back(self, identifier: str) -> None:
        if identifier not in await ports.run(self._pool.fallen):
            return
        try:
            await ports.run(self._pool.give_back, identifier)
        except ports.CrossConnectFailed as error:
            log.warning("forwarder.function.stuck", connection=identifier, reason=str(error))
        else:
            log.info("forwarder.function.returned", connection=identifier, reason="its network namespace is gone")


def restore(pool: FunctionPool, states: Iterable[ConnectionState]) -> None:
    """Give an earlier process's connections what they have, and take back what none of them has."""
    for state in states:
        accepted = state.accepted
        address = accepted.mechanism.parameters.get(mechanism.PCI_ADDRESS) if accepted is not None else None
        if address and not pool.restore(state.id, address):
            log.warning("forwarder.function.not_ours", connection=state.id, function=address)
    for address in pool.settle():
        log.info("forwarder.function.returned", function=address, reason="no connection has it")


def hardware_address(identifier: str) -> str:
    """Return the station address of a connection's function: locally administered, the same after a restart."""
    octets = hashlib.sha256(identifier.encode()).digest()[:6]
    return ":".join(f"{octet:02x}" for octet in (octets[0] & 0xFC | 0x02, *octets[1:]))


def _token(state: ConnectionState, connection: Connection) -> str:
    """Return what the connection has, or asks for when it has nothing yet."""
    of = connection if state.accepted is None else state.accepted
    return str(of.labels.get(mechanism.SRIOV_TOKEN, ""))


def _onward(request: NetworkServiceRequest) -> NetworkServiceRequest:
    """Return the request as the endpoint gets it: it is asked to be on the wire."""
    onward = NetworkServiceRequest(mechanism_preferences=[mechanism.noop()])
    onward.connection.CopyFrom(request.connection)
    onward.connection.ClearField("mechanism")
    return onward
