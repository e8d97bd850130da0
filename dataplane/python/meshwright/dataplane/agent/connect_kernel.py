"""The forwarder's own element: the client's namespace and the endpoint's become two ends of one cross-connect.

One decision to know: the endpoint's namespace stays here. The client is answered with its own mechanism only, so that
nobody but the forwarder ever holds both.
"""

from __future__ import annotations

from dataclasses import dataclass

from meshwright.core import errors
from meshwright.dataplane.agent import ports
from meshwright.dataplane.forwarder import Connected, Forwarder, KernelPort
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.descriptors import Inode
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Connection, Mechanism, NetworkServiceRequest


@dataclass(frozen=True, slots=True)
class _Ends:
    client: tuple[Inode, str]
    endpoint: tuple[Inode, str]


class ConnectKernel:
    """Connects KERNEL to KERNEL with the Rust forwarder."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._ends: dict[str, _Ends] = {}

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Ask the endpoint, then connect; on Close disconnect, then tell the endpoint."""
        state = exchange.state
        if exchange.closing:
            await self._disconnect(state.id, request.connection, exchange)
            return await proceed(request, exchange)
        wish = mechanism.choose(request.connection.mechanism, request.mechanism_preferences, [mechanism.KERNEL])
        client = mechanism.kernel(
            ports.inode_of(wish, "the client"),
            mechanism.interface_name(wish, request.connection.network_service, state.id),
        )
        answer = await proceed(self._onward(request, exchange), exchange)
        exchange.answer.clear()
        if answer.mechanism.type != mechanism.KERNEL:
            raise InvalidMechanism(f"the endpoint answered {answer.mechanism.type!r}", field="mechanism.type")
        connected = await self._connect(client, answer, exchange)
        answer.mechanism.CopyFrom(client)
        answer.context.ethernet_context.src_mac = connected.client.mac
        answer.context.ethernet_context.dst_mac = connected.endpoint.mac
        return answer

    def _onward(self, request: NetworkServiceRequest, exchange: Exchange) -> NetworkServiceRequest:
        """Return the request as the endpoint gets it: no mechanism yet, and the interface's name it had before."""
        onward = NetworkServiceRequest()
        onward.connection.CopyFrom(request.connection)
        onward.connection.ClearField("mechanism")
        before = exchange.state.downstream
        name = before.mechanism.parameters.get(mechanism.NAME, "") if before is not None else ""
        onward.mechanism_preferences.append(mechanism.kernel(interface=name))
        return onward

    async def _connect(self, client: Mechanism, answer: Connection, exchange: Exchange) -> Connected:
        state = exchange.state
        here = ports.descriptor_of(client, exchange, "the client")
        there = ports.descriptor_of(answer.mechanism, exchange, "the endpoint")
        if here.inode == there.inode:
            raise InvalidMechanism("client and endpoint are in the same network namespace", field="inodeURL")
        context = answer.context
        ends = _Ends(
            (here.inode, client.parameters[mechanism.NAME]), (there.inode, answer.mechanism.parameters[mechanism.NAME])
        )
        if self._ends.get(state.id, ends) != ends:  # somebody moved: in place is not possible
            await ports.run(self._forwarder.close, state.id)
        client_port = KernelPort(
            here.fileno(),
            ends.client[1],
            addresses=list(context.ip_context.src_ip_addrs),
            routes=ports.routes(context.ip_context.src_routes),
            mtu=context.MTU or None,
        )
        endpoint_port = KernelPort(
            there.fileno(),
            ends.endpoint[1],
            addresses=list(context.ip_context.dst_ip_addrs),
            routes=ports.routes(context.ip_context.dst_routes),
            mtu=context.MTU or None,
        )
        self._ends[state.id] = ends
        return await ports.run(self._forwarder.connect, state.id, client_port, endpoint_port)

    async def _disconnect(self, identifier: str, connection: Connection, exchange: Exchange) -> None:
        known = self._ends.pop(identifier, None)
        try:
            await ports.run(self._forwarder.close, identifier)
        except errors.NotFound:
            if known is None:  # made by an earlier process: found by its mark in whatever namespace came along
                for held in exchange.state.held:
                    await ports.run(self._forwarder.remove, identifier, held.fileno())
        except BaseException:
            if known is not None:
                self._ends[identifier] = known
            raise
