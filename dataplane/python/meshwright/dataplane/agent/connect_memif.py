"""Connects MEMIF: to a client the forwarder is the server, which owns the socket; to an endpoint it is a client.

What has memif on neither side goes to the element behind, once it is known what the endpoint has.
"""

from __future__ import annotations

import contextlib
from typing import TypedDict

from meshwright.core import errors
from meshwright.dataplane.agent import ports
from meshwright.dataplane.agent.memif_sockets import MemifSockets
from meshwright.dataplane.forwarder import Forwarder, KernelPort, MemifPort
from meshwright.nsm import descriptors, mechanism
from meshwright.nsm.chain import Element, Exchange, Proceed
from meshwright.nsm.connections import ConnectionState
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Connection, IPContext, Mechanism, NetworkServiceRequest

_SUPPORTED = (mechanism.KERNEL, mechanism.MEMIF)


class _Addresses(TypedDict):
    addresses: list[str]
    routes: list[tuple[str, str | None]]


class ConnectMemif:
    """`sockets` are the clients'; `otherwise` connects what has no memif."""

    def __init__(self, forwarder: Forwarder, sockets: MemifSockets, otherwise: Element) -> None:
        self._forwarder, self._sockets, self._otherwise = forwarder, sockets, otherwise
        self._open: dict[str, bytes] = {}  # by connection: what it was made from

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Ask the endpoint, then connect; on Close disconnect, then tell the endpoint."""
        state = exchange.state
        if exchange.closing:
            if not self._is_ours(state):
                return await self._otherwise(request, exchange, proceed)
            await self._disconnect(exchange)
            return await proceed(request, exchange)
        wish = mechanism.choose(request.connection.mechanism, request.mechanism_preferences, _SUPPORTED)
        answer = await proceed(_onward(request, state), exchange)
        if mechanism.MEMIF not in (wish.type, answer.mechanism.type):

            async def answered(_request: NetworkServiceRequest, _exchange: Exchange) -> Connection:
                return answer

            return await self._otherwise(request, exchange, answered)
        exchange.answer.clear()  # the endpoint's descriptor stays here
        return await self._connect(wish, answer, exchange)

    def _is_ours(self, state: ConnectionState) -> bool:
        known = (state.accepted, state.downstream)
        return state.id in self._open or any(
            connection is not None and connection.mechanism.type == mechanism.MEMIF for connection in known
        )

    async def _connect(self, wish: Mechanism, answer: Connection, exchange: Exchange) -> Connection:
        state, context = exchange.state, answer.context
        ip = (answer.payload or (state.accepted.payload if state.accepted is not None else "")) == "IP"
        client = self._client(wish, answer, state)
        made_from = b"".join(
            part.SerializeToString(deterministic=True)
            for part in (client, answer.mechanism, context.ip_context, Connection(payload="IP" if ip else ""))
        )
        if self._open.get(state.id) != made_from:
            if state.id in self._open:
                await ports.run(self._forwarder.close, state.id)
                del self._open[state.id]
            mtu = context.MTU or None
            one = self._port(client, exchange, "the client", _here(context.ip_context), mtu)
            other = self._port(answer.mechanism, exchange, "the endpoint", _there(context.ip_context), mtu)
            connected = await ports.run(self._forwarder.connect_user_space, state.id, one, other, ip)
            self._open[state.id] = made_from
            if client.type == mechanism.MEMIF:
                self._sockets.opened(client, state)
            if client.type == mechanism.KERNEL and not ip:
                context.ethernet_context.src_mac = connected.client.mac
            if answer.mechanism.type == mechanism.KERNEL and not ip:
                context.ethernet_context.dst_mac = connected.endpoint.mac
        elif state.accepted is not None:
            context.ethernet_context.CopyFrom(state.accepted.context.ethernet_context)
        if client.type == mechanism.MEMIF:
            self._sockets.answer(client, answer.mechanism, exchange)
        else:
            answer.mechanism.CopyFrom(client)
        return answer

    def _client(self, wish: Mechanism, answer: Connection, state: ConnectionState) -> Mechanism:
        """Return what the client is answered with."""
        if wish.type == mechanism.MEMIF:
            return self._sockets.offer(wish, state)
        name = mechanism.interface_name(wish, answer.network_service, state.id)
        return mechanism.kernel(mechanism.inode(wish), name)

    def _port(
        self, of: Mechanism, exchange: Exchange, whose: str, addresses: _Addresses, mtu: int | None
    ) -> KernelPort | MemifPort:
        if of.type == mechanism.MEMIF and whose == "the client":
            return self._sockets.port(of, exchange.state)
        held = _held(of, exchange, whose)
        if of.type == mechanism.KERNEL:
            descriptors.check_network_namespace(held)
            return KernelPort(held.fileno(), of.parameters[mechanism.NAME], mtu=mtu, **addresses)
        if of.type != mechanism.MEMIF:
            raise InvalidMechanism(f"{whose} has {of.type!r}", field="mechanism.type")
        if descriptors.is_socket_file(held):
            return MemifPort(serve=False, socket_fd=held.fileno())
        descriptors.check_network_namespace(held)
        name = of.parameters.get(mechanism.SOCKET, "")
        if not name.startswith("@") or len(name.encode()) > 107:
            raise InvalidMechanism(
                f"{name[:120]!r}",
                field=mechanism.SOCKET,
                remedy="name a socket there: @ and up to 106 octets",
            )
        return MemifPort(serve=False, name=name[1:], netns_fd=held.fileno())

    async def _disconnect(self, exchange: Exchange) -> None:
        state = exchange.state
        self._open.pop(state.id, None)
        try:
            await ports.run(self._forwarder.close, state.id)
        except errors.NotFound:  # made by an earlier process: found by its mark in whatever namespace came along
            for held in state.held:
                with contextlib.suppress(InvalidMechanism):
                    descriptors.check_network_namespace(held)
                    await ports.run(self._forwarder.remove, state.id, held.fileno())
            self._sockets.remove(state.id)


def _onward(request: NetworkServiceRequest, state: ConnectionState) -> NetworkServiceRequest:
    """Return the request as the endpoint gets it: no mechanism yet, and the interface's name it had before."""
    onward = NetworkServiceRequest()
    onward.connection.CopyFrom(request.connection)
    onward.connection.ClearField("mechanism")
    before = state.downstream
    name = before.mechanism.parameters.get(mechanism.NAME, "") if before is not None else ""
    onward.mechanism_preferences.extend([mechanism.kernel(interface=name), mechanism.memif()])
    return onward


def _held(of: Mechanism, exchange: Exchange, whose: str) -> Descriptor:
    inode = mechanism.inode(of)
    held = exchange.state.held.get(inode) if inode is not None else None
    if held is None:
        raise InvalidMechanism(
            f"{whose} passed no descriptor of its {of.type}",
            field="mechanism.parameters[inodeURL]",
            remedy="pass the network namespace's or the socket's descriptor beside the message",
        )
    return held


def _here(context: IPContext) -> _Addresses:
    return {"addresses": list(context.src_ip_addrs), "routes": ports.routes(context.src_routes)}


def _there(context: IPContext) -> _Addresses:
    return {"addresses": list(context.dst_ip_addrs), "routes": ports.routes(context.dst_routes)}
