"""Connects a client by a network card's virtual function: what leaves the client is on the wire.

A client asks with the label ``sriovToken: <service domain>/<capability>``; its endpoint is on the wire too, answers
NOOP, and says by addresses and VLAN where. KERNEL gets the function itself, as an interface; MEMIF a socket to one that
the forwarder drives. What asks for no function goes to the element behind.

One decision to know: which connection has which function is in the answer (``pciAddress``), and so in the journal that
begin keeps. What the journal doesn't name is nobody's, and is taken back when the forwarder starts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import structlog

from meshwright.core.clock import Clock
from meshwright.dataplane.agent import ports
from meshwright.dataplane.agent.carried_functions import CarriedFunctions
from meshwright.dataplane.forwarder import KernelPort
from meshwright.dataplane.sriov import FunctionPool, Given
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Element, Exchange, Proceed
from meshwright.nsm.connections import Connections, ConnectionState
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Connection, Mechanism, NetworkServiceRequest

_PERIOD_SECONDS = 1.0
_SUPPORTED = (mechanism.KERNEL, mechanism.MEMIF)

log = structlog.get_logger(__name__)


class ConnectFunction:
    """Gives functions of `pool`, to memif clients by `carried`; `otherwise` connects whoever asked for none."""

    def __init__(self, pool: FunctionPool | None, carried: CarriedFunctions, otherwise: Element) -> None:
        self._pool, self._carried, self._otherwise = pool, carried, otherwise

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
            await self._carried.disconnect(state)
            await ports.run(self._pool.give_back, state.id)
            return await proceed(request, exchange)
        if request.connection.labels.get(mechanism.SRIOV_TOKEN) != token:
            raise InvalidMechanism(
                f"this connection has a function of {token}",
                field=f"labels[{mechanism.SRIOV_TOKEN}]",
                remedy="close it and ask for another",
            )
        wish = mechanism.choose(request.connection.mechanism, request.mechanism_preferences, _SUPPORTED)
        if state.accepted is not None and state.accepted.mechanism.type != wish.type:
            raise InvalidMechanism(
                f"this connection has its function by {state.accepted.mechanism.type}",
                field="mechanism.type",
                remedy="close it and ask for another",
            )
        client = None
        if wish.type == mechanism.KERNEL:
            name = mechanism.interface_name(wish, request.connection.network_service, state.id)
            client = mechanism.kernel(ports.inode_of(wish, "the client"), name)
        else:
            await self._carried.check()
        answer = await proceed(_onward(request), exchange)
        if answer.mechanism.type != mechanism.NOOP:
            raise InvalidMechanism(
                f"the endpoint answered {answer.mechanism.type!r}",
                field="mechanism.type",
                remedy="a virtual function reaches endpoints that are on the wire: NOOP",
            )
        mac = hardware_address(state.id)
        if client is None:
            given = await self._carried.connect(self._pool, token, mac, wish, answer, exchange)
        else:
            given = await _interface(self._pool, token, mac, client, answer, exchange)
        answer.mechanism.parameters[mechanism.PCI_ADDRESS] = given.address
        answer.context.ethernet_context.src_mac = mac
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


async def _interface(
    pool: FunctionPool, token: str, mac: str, client: Mechanism, answer: Connection, exchange: Exchange
) -> Given:
    """Give the client a function as the interface that `client` names, and put that into the answer."""
    context = answer.context
    port = KernelPort(
        ports.descriptor_of(client, exchange, "the client").fileno(),
        client.parameters[mechanism.NAME],
        addresses=list(context.ip_context.src_ip_addrs),
        routes=ports.routes(context.ip_context.src_routes),
        mtu=context.MTU or None,
    )
    vlan = context.ethernet_context.vlan_tag
    given = await ports.run(pool.give_interface, exchange.state.id, token, port, mac, vlan)
    answer.mechanism.CopyFrom(client)
    return given


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
