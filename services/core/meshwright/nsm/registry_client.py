"""Talks to a registry, or to a manager that stands in front of one: register, find, watch, unregister."""

from __future__ import annotations

from collections.abc import AsyncIterator

from meshwright.core import errors
from meshwright.nsm import registry_path, wire
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.errors import InvalidPath
from meshwright.nsm.peer import Peer, Session
from meshwright.nsm.registry_path import RegistryPath
from meshwright.nsm.wire import (
    NetworkService,
    NetworkServiceEndpoint,
    NetworkServiceEndpointQuery,
    NetworkServiceEndpointResponse,
    NetworkServiceQuery,
    NetworkServiceResponse,
)

_SECONDS = 10.0


class RegistryClient:
    """The registry behind `peer`. Where a `path` is asked for, it is that of the registration so far."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    async def register_service(
        self, service: NetworkService, path: RegistryPath | None = None, *, timeout: float = _SECONDS
    ) -> tuple[NetworkService, RegistryPath]:
        """Register a network service; return it as the registry has it, and the path that it passed."""
        async with self._peer.session(timeout) as session:
            call = wire.NetworkServiceRegistryStub(session.channel).Register(
                service, timeout=timeout, metadata=self._metadata(session, path)
            )
            return await call, _answered(await call.initial_metadata(), path)

    async def register_endpoint(
        self,
        endpoint: NetworkServiceEndpoint,
        path: RegistryPath | None = None,
        *,
        descriptors: tuple[Descriptor, ...] = (),
        timeout: float = _SECONDS,
    ) -> tuple[NetworkServiceEndpoint, RegistryPath]:
        """Register or refresh an endpoint; `descriptors` (its socket's file) go beside the message."""
        async with self._peer.session(timeout) as session:
            for descriptor in descriptors:
                session.channel.send_descriptor(descriptor.fileno())
            call = wire.NetworkServiceEndpointRegistryStub(session.channel).Register(
                endpoint, timeout=timeout, metadata=self._metadata(session, path)
            )
            return await call, _answered(await call.initial_metadata(), path)

    async def unregister_service(
        self, service: NetworkService, path: RegistryPath | None = None, *, timeout: float = _SECONDS
    ) -> None:
        """Remove a network service."""
        async with self._peer.session(timeout) as session:
            stub = wire.NetworkServiceRegistryStub(session.channel)
            await stub.Unregister(service, timeout=timeout, metadata=self._metadata(session, path))

    async def unregister_endpoint(
        self, endpoint: NetworkServiceEndpoint, path: RegistryPath | None = None, *, timeout: float = _SECONDS
    ) -> None:
        """Remove an endpoint."""
        async with self._peer.session(timeout) as session:
            stub = wire.NetworkServiceEndpointRegistryStub(session.channel)
            await stub.Unregister(endpoint, timeout=timeout, metadata=self._metadata(session, path))

    async def find_services(self, wanted: NetworkService, *, timeout: float = _SECONDS) -> list[NetworkService]:
        """Return the network services that fit."""
        return [found.network_service async for found in self.stream_services(wanted, timeout=timeout)]

    async def find_endpoints(
        self, wanted: NetworkServiceEndpoint, *, timeout: float = _SECONDS
    ) -> list[NetworkServiceEndpoint]:
        """Return the endpoints that fit."""
        return [found.network_service_endpoint async for found in self.stream_endpoints(wanted, timeout=timeout)]

    async def stream_services(
        self, wanted: NetworkService, *, watch: bool = False, timeout: float | None = None
    ) -> AsyncIterator[NetworkServiceResponse]:
        """Yield what fits, and with `watch` each change afterwards, until the stream breaks."""
        async with self._peer.session() as session:
            query = NetworkServiceQuery(network_service=wanted, watch=watch)
            stub = wire.NetworkServiceRegistryStub(session.channel)
            async for found in stub.Find(query, timeout=timeout, metadata=self._peer.metadata(session)):
                yield found

    async def stream_endpoints(
        self, wanted: NetworkServiceEndpoint, *, watch: bool = False, timeout: float | None = None
    ) -> AsyncIterator[NetworkServiceEndpointResponse]:
        """Yield what fits, and with `watch` each change afterwards, until the stream breaks."""
        async with self._peer.session() as session:
            query = NetworkServiceEndpointQuery(network_service_endpoint=wanted, watch=watch)
            stub = wire.NetworkServiceEndpointRegistryStub(session.channel)
            async for found in stub.Find(query, timeout=timeout, metadata=self._peer.metadata(session)):
                yield found

    def _metadata(self, session: Session, path: RegistryPath | None) -> list[tuple[str, str]]:
        return [*self._peer.metadata(session), (registry_path.METADATA, (path or RegistryPath()).dump())]


def _answered(metadata: object, sent: RegistryPath | None) -> RegistryPath:
    text = registry_path.find(tuple(metadata or ()))  # type: ignore[arg-type]
    if text is None:
        return sent or RegistryPath()
    try:
        return registry_path.parse(text)
    except InvalidPath as error:
        raise errors.Unavailable(f"the registry answered a path that can't be read: {error}") from error
