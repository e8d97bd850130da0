"""The registry's two services on the wire; all that differs between them is the messages' names."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

import grpc
from google.protobuf import empty_pb2
from opentelemetry import trace

from meshwright.core.clock import Clock
from meshwright.core.grpc import status
from meshwright.nsm import metrics, registry_path, tokens, wire
from meshwright.nsm.servicer import caller, metadata, receiver
from meshwright.nsm_registry.registry.chain import Chain, Exchange, Operation
from meshwright.nsm_registry.registry.watchers import Change

_tracer = trace.get_tracer("meshwright.nsm_registry")

Find = Callable[[Any, bool], AsyncGenerator[Change, None]]
"""Yields what fits a query, and with True each change afterwards."""


class _Registry:
    def __init__(self, chain: Chain, find: Find, clock: Clock) -> None:
        self._chain, self._find_in, self._clock = chain, find, clock

    async def Register(self, message: Any, context: Any) -> Any:
        """Register or refresh an object; the path goes back in the response's headers."""
        return await self._answer(Operation.REGISTER, message, context)

    async def Unregister(self, message: Any, context: Any) -> empty_pb2.Empty:
        """Remove an object; one that isn't there is removed already."""
        await self._answer(Operation.UNREGISTER, message, context)
        return empty_pb2.Empty()

    async def _answer(self, operation: Operation, message: Any, context: Any) -> Any:
        exchange = self._exchange(operation, context)
        try:
            answer = await self._chain(message, exchange)
        except Exception as failure:
            metrics.REGISTRATIONS.labels(operation.value, status.code(failure).name).inc()
            raise
        metrics.REGISTRATIONS.labels(operation.value, grpc.StatusCode.OK.name).inc()
        await context.send_initial_metadata(((registry_path.METADATA, exchange.path.dump()),))
        return answer

    def _exchange(self, operation: Operation, context: Any) -> Exchange:
        return Exchange(
            operation,
            self._clock,
            caller(context),
            metadata(context, tokens.METADATA),
            registry_path.find(context.invocation_metadata()),
            receiver(context),
        )

    async def _find(self, query: Any, watch: bool) -> AsyncGenerator[Change, None]:
        """Yield objects that fit and then, for a watch, changes, each with whether it is a deletion."""
        async with contextlib.aclosing(self._find_in(query, watch)) as changes:
            if not watch:
                for change in await _collected(changes):
                    yield change
                return
            async for change in changes:
                yield change


async def _collected(changes: AsyncGenerator[Change, None]) -> list[Change]:
    """Return all that was found, in one span."""
    with _tracer.start_as_current_span("registry find"):
        return [change async for change in changes]


class NetworkServiceServicer(_Registry, wire.NetworkServiceRegistryServicer):
    """registry.NetworkServiceRegistry."""

    async def Find(self, query: wire.NetworkServiceQuery, context: Any) -> AsyncIterator[wire.NetworkServiceResponse]:
        """Stream the network services that fit, and with `watch` what changes."""
        async with contextlib.aclosing(self._find(query.network_service, query.watch)) as found:
            async for message, deleted in found:
                yield wire.NetworkServiceResponse(network_service=message, deleted=deleted)


class NetworkServiceEndpointServicer(_Registry, wire.NetworkServiceEndpointRegistryServicer):
    """registry.NetworkServiceEndpointRegistry."""

    async def Find(
        self, query: wire.NetworkServiceEndpointQuery, context: Any
    ) -> AsyncIterator[wire.NetworkServiceEndpointResponse]:
        """Stream the endpoints that fit, and with `watch` what changes."""
        async with contextlib.aclosing(self._find(query.network_service_endpoint, query.watch)) as found:
            async for message, deleted in found:
                yield wire.NetworkServiceEndpointResponse(network_service_endpoint=message, deleted=deleted)
