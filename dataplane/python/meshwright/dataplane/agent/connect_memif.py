"""Connects MEMIF: to a client the forwarder is the server, which owns the socket; to an endpoint it is a client.

What has memif on neither side goes to the element behind, once it is known what the endpoint has.

One decision to know: a client that names its network namespace gets a socket by name there (as newer programs of NSM
ask for it), any other a socket's file, whose descriptor travels beside the answer. The file's name follows from the
connection's id, so that after a restart the client finds its new socket where the old one was.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TypedDict

from meshwright.core import errors
from meshwright.dataplane.agent import ports
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
    """`folder` is where sockets' files are made; `otherwise` connects what has no memif."""

    def __init__(self, forwarder: Forwarder, folder: Path, otherwise: Element) -> None:
        self._forwarder, self._folder, self._otherwise = forwarder, folder, otherwise
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
            # Nobody finds a way to the sockets but by a descriptor that was passed; who has one may be any user.
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            connected = await ports.run(self._forwarder.connect_user_space, state.id, one, other, ip)
            self._open[state.id] = made_from
            if isinstance(one, MemifPort) and one.path is not None:
                self._path(state.id).chmod(0o666)
            if client.type == mechanism.KERNEL and not ip:
                context.ethernet_context.src_mac = connected.client.mac
            if answer.mechanism.type == mechanism.KERNEL and not ip:
                context.ethernet_context.dst_mac = connected.endpoint.mac
        elif state.accepted is not None:
            context.ethernet_context.CopyFrom(state.accepted.context.ethernet_context)
        answer.mechanism.CopyFrom(client)
        if client.type == mechanism.MEMIF and mechanism.SOCKET not in client.parameters:
            socket = state.held.keep(descriptors.socket_file(str(self._path(state.id))))
            answer.mechanism.parameters[mechanism.INODE] = socket.inode.url
            exchange.answer.append(socket)
        return answer

    def _client(self, wish: Mechanism, answer: Connection, state: ConnectionState) -> Mechanism:
        """Return what the client is answered with, except for a file's inode, which isn't there yet."""
        inode = mechanism.inode(wish)
        if wish.type == mechanism.KERNEL:
            return mechanism.kernel(inode, mechanism.interface_name(wish, answer.network_service, state.id))
        held = state.held.get(inode) if inode is not None else None
        if inode is None or held is None or descriptors.is_socket_file(held):
            return mechanism.memif()
        return mechanism.memif(inode, f"@meshwright/{_name(state.id)}")

    def _port(
        self, of: Mechanism, exchange: Exchange, whose: str, addresses: _Addresses, mtu: int | None
    ) -> KernelPort | MemifPort:
        serve = whose == "the client"
        if of.type == mechanism.MEMIF and serve and mechanism.SOCKET not in of.parameters:
            return MemifPort(serve=True, path=str(self._path(exchange.state.id)))
        held = _held(of, exchange, whose)
        if of.type == mechanism.KERNEL:
            descriptors.check_network_namespace(held)
            return KernelPort(held.fileno(), of.parameters[mechanism.NAME], mtu=mtu, **addresses)
        if of.type != mechanism.MEMIF:
            raise InvalidMechanism(f"{whose} has {of.type!r}", field="mechanism.type")
        if descriptors.is_socket_file(held):
            return MemifPort(serve=serve, socket_fd=held.fileno())
        descriptors.check_network_namespace(held)
        name = of.parameters.get(mechanism.SOCKET, "")
        if not name.startswith("@") or len(name.encode()) > 107:
            raise InvalidMechanism(
                f"{name[:120]!r}",
                field=mechanism.SOCKET,
                remedy="name a socket there: @ and up to 106 octets",
            )
        return MemifPort(serve=serve, name=name[1:], netns_fd=held.fileno())

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
            self._path(state.id).unlink(missing_ok=True)

    def _path(self, identifier: str) -> Path:
        return self._folder / f"{_name(identifier)}.sock"


def _name(identifier: str) -> str:
    # An id is the caller's text; a path has 107 bytes at most.
    return hashlib.sha256(identifier.encode()).hexdigest()[:32]


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
