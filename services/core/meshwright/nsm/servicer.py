"""Puts a chain and a monitor on a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from google.protobuf import empty_pb2

from meshwright.core import errors
from meshwright.core.clock import Clock
from meshwright.core.grpc import peer_id, status
from meshwright.nsm import metrics, tokens, wire
from meshwright.nsm.chain import Caller, Chain, Exchange, Operation, Receive
from meshwright.nsm.descriptors import Descriptor, Inode
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.monitor import Monitor
from meshwright.nsm.wire import Connection, ConnectionEvent, MonitorScopeSelector, NetworkServiceRequest

_DEFAULT_SECONDS = 15.0  # for callers that set no deadline
_MAX_SECONDS = 120.0

NEEDS = ("file descriptors beside the calls",)
"""What a server that has these services must be able to do (`meshwright.core.grpc.Server(requires=...)`)."""


class NetworkServiceServicer(wire.NetworkServiceServicer):
    """networkservice.NetworkService over a chain."""

    def __init__(self, chain: Chain, clock: Clock) -> None:
        self._chain, self._clock = chain, clock

    async def Request(self, request: NetworkServiceRequest, context: Any) -> Connection:
        """Establish or refresh a connection; descriptors of the answer go in front of it."""
        return await self._answer(Operation.REQUEST, request, context)

    async def Close(self, connection: Connection, context: Any) -> empty_pb2.Empty:
        """Close a connection; one that isn't known is closed already."""
        await self._answer(Operation.CLOSE, NetworkServiceRequest(connection=connection), context)
        return empty_pb2.Empty()

    async def _answer(self, operation: Operation, request: NetworkServiceRequest, context: Any) -> Connection:
        exchange = self._exchange(operation, context)
        with metrics.SECONDS.labels(operation.value).time():
            try:
                connection = await self._chain(request, exchange)
                for descriptor in exchange.answer:
                    context.send_descriptor(descriptor.fileno())
            except Exception as failure:
                metrics.CALLS.labels(operation.value, status.code(failure).name).inc()
                raise
        metrics.CALLS.labels(operation.value, grpc.StatusCode.OK.name).inc()
        return connection

    def _exchange(self, operation: Operation, context: Any) -> Exchange:
        remaining = context.time_remaining()
        seconds = _DEFAULT_SECONDS if remaining is None else min(remaining, _MAX_SECONDS)
        return Exchange(
            operation,
            self._clock,
            deadline=self._clock.monotonic() + seconds,
            caller=caller(context),
            token=metadata(context, tokens.METADATA),
            receive=receiver(context),
        )


class MonitorConnectionServicer(wire.MonitorConnectionServicer):
    """connection.MonitorConnection: a caller sees the connections that it is a hop of, an observer sees all.

    The original shows every connection to every member of the trust domain.
    """

    def __init__(self, monitor: Monitor, observers: Sequence[str]) -> None:
        self._monitor, self._observers = monitor, frozenset(observers)

    async def MonitorConnections(self, selector: MonitorScopeSelector, context: Any) -> AsyncIterator[ConnectionEvent]:
        """Stream the state and then each change."""
        who = peer_id(context)
        viewer = None if who is None or who in self._observers else who  # None: plain text on loopback
        async for event in self._monitor.watch(selector, viewer):
            yield event


def caller(context: Any) -> Caller:
    """Return who called, from the connection's certificate."""
    who = peer_id(context)
    if who is None:
        return Caller()
    certificates = context.auth_context().get("x509_pem_cert", ())
    return Caller(who, tokens.public_key(certificates[0]) if certificates else None)


def metadata(context: Any, key: str) -> str:
    """Return the last value of a metadata key, or an empty text."""
    values = [value for name, value in context.invocation_metadata() or () if name == key]
    if not values:
        return ""
    return values[-1].decode(errors="replace") if isinstance(values[-1], bytes) else str(values[-1])


def receiver(context: Any) -> Receive:
    """Return how descriptors that came with this call are taken."""

    async def receive(inode: Inode, timeout: float) -> Descriptor:
        received = getattr(context, "descriptors", None)
        if received is not None:
            try:
                return Descriptor(await received.take(inode.device, inode.number, timeout))
            except (TimeoutError, OSError, grpc.RpcError, errors.MeshwrightError):
                pass  # said below, in the same words for every transport
        raise InvalidMechanism(
            f"no descriptor of {inode.url} came with the message",
            field="mechanism.parameters[inodeURL]",
            remedy="call over the Unix socket and pass the descriptor beside the message",
        )

    return receive
