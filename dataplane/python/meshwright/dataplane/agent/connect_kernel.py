"""The forwarder's own element: the client's namespace and the endpoint's become two ends of one cross-connect.

One decision to know: the endpoint's namespace stays here. The client is answered with its own mechanism only, so that
nobody but the forwarder ever holds both.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

from meshwright.core import errors
from meshwright.dataplane.forwarder import Connected, Forwarder, ForwarderError, KernelPort
from meshwright.nsm import mechanism
from meshwright.nsm.chain import Exchange, Proceed
from meshwright.nsm.descriptors import Descriptor, Inode
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Connection, Mechanism, NetworkServiceRequest, Route

Answer = TypeVar("Answer")
Arguments = TypeVarTuple("Arguments")


class CrossConnectFailed(errors.Unavailable):
    """The kernel refused a step; the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class _Ports:
    client: tuple[Inode, str]
    endpoint: tuple[Inode, str]


class ConnectKernel:
    """Connects KERNEL to KERNEL with the Rust forwarder."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._ports: dict[str, _Ports] = {}

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Ask the endpoint, then connect; on Close disconnect, then tell the endpoint."""
        state = exchange.state
        if exchange.closing:
            await self._disconnect(state.id, request.connection, exchange)
            return await proceed(request, exchange)
        wish = mechanism.choose(request.connection.mechanism, request.mechanism_preferences, [mechanism.KERNEL])
        client = mechanism.kernel(
            _inode(wish, "the client"), mechanism.interface_name(wish, request.connection.network_service, state.id)
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
        here, there = _descriptor(client, exchange), _descriptor(answer.mechanism, exchange)
        if here.inode == there.inode:
            raise InvalidMechanism("client and endpoint are in the same network namespace", field="inodeURL")
        context = answer.context
        ports = _Ports(
            (here.inode, client.parameters[mechanism.NAME]), (there.inode, answer.mechanism.parameters[mechanism.NAME])
        )
        if self._ports.get(state.id, ports) != ports:  # somebody moved: in place is not possible
            await self._run(self._forwarder.close, state.id)
        client_port = KernelPort(
            here.fileno(),
            ports.client[1],
            addresses=list(context.ip_context.src_ip_addrs),
            routes=_routes(context.ip_context.src_routes),
            mtu=context.MTU or None,
        )
        endpoint_port = KernelPort(
            there.fileno(),
            ports.endpoint[1],
            addresses=list(context.ip_context.dst_ip_addrs),
            routes=_routes(context.ip_context.dst_routes),
            mtu=context.MTU or None,
        )
        self._ports[state.id] = ports
        return await self._run(self._forwarder.connect, state.id, client_port, endpoint_port)

    async def _disconnect(self, identifier: str, connection: Connection, exchange: Exchange) -> None:
        known = self._ports.pop(identifier, None)
        try:
            await self._run(self._forwarder.close, identifier)
        except errors.NotFound:
            if known is None:  # made by an earlier process: found by its mark in whatever namespace came along
                for held in exchange.state.held:
                    await self._run(self._forwarder.remove, identifier, held.fileno())
        except BaseException:
            if known is not None:
                self._ports[identifier] = known
            raise

    async def _run(self, function: Callable[[*Arguments], Answer], *arguments: *Arguments) -> Answer:
        """Run a step on a thread: the kernel takes some milliseconds."""
        try:
            return await asyncio.to_thread(function, *arguments)
        except KeyError as error:
            raise errors.NotFound(f"no cross-connect {error}") from error
        except ValueError as error:
            raise InvalidMechanism(str(error), field="mechanism") from error
        except ForwarderError as error:
            raise CrossConnectFailed(str(error)) from error


def _inode(wish: Mechanism, whose: str) -> Inode:
    inode = mechanism.inode(wish)
    if inode is None:
        raise InvalidMechanism(
            f"{whose} named no network namespace",
            field="mechanism.parameters[inodeURL]",
            remedy="pass the namespace's descriptor beside the message",
        )
    return inode


def _descriptor(of: Mechanism, exchange: Exchange) -> Descriptor:
    inode = _inode(of, "the endpoint")
    held = exchange.state.held.get(inode)
    if held is None:
        raise InvalidMechanism(f"no descriptor of {inode.url} was passed", field="mechanism.parameters[inodeURL]")
    return held


def _routes(routes: Iterable[Route]) -> list[tuple[str, str | None]]:
    return [(route.prefix, route.nextHop or None) for route in routes]
