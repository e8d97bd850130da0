"""Finds network services and endpoints: in the registry, or in what this node knows while the registry is away."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncGenerator
from typing import Any

from meshwright.core import errors
from meshwright.core.health import Health
from meshwright.nsm.errors import NoSuchService
from meshwright.nsm.registry_client import RegistryClient
from meshwright.nsm.wire import NetworkService, NetworkServiceEndpoint
from meshwright.nsm_registry.manager.endpoints import LocalEndpoints
from meshwright.nsm_registry.registry import kinds
from meshwright.nsm_registry.registry.watchers import Change

_REMEMBERED = 1024  # network services that were asked for
_SECONDS = 3.0

_AWAY = (errors.Unavailable, errors.DeadlineExceeded)


class Finder:
    """The registry as this node's clients see it. A watch needs the registry; a question doesn't."""

    def __init__(self, registry: RegistryClient, local: LocalEndpoints, own_url: str, health: Health) -> None:
        self._registry, self._local, self._own_url, self._health = registry, local, own_url, health
        self._seen: OrderedDict[str, NetworkService] = OrderedDict()

    async def service(self, name: str) -> NetworkService:
        """Return the network service of a name; raise NoSuchService."""
        async for found, _ in self.services(NetworkService(name=name), False):
            return found  # type: ignore[no-any-return]
        raise NoSuchService(f"nobody registered the network service {name!r}")

    async def services(self, query: NetworkService, watch: bool) -> AsyncGenerator[Change, None]:
        """Yield network services, and with `watch` their changes."""
        stream = self._registry.stream_services(query, watch=watch, timeout=None if watch else _SECONDS)
        try:
            async for found in stream:
                self._health.set("registry", True)
                self._remember(found.network_service, found.deleted)
                yield found.network_service, found.deleted
        except _AWAY as error:
            self._health.degrade("registry", str(error))
            if watch:
                raise
            for known in tuple(self._seen.values()):
                if kinds.service_matches(query, known):
                    yield known, False

    async def endpoints(self, query: NetworkServiceEndpoint, watch: bool) -> AsyncGenerator[Change, None]:
        """Yield endpoints, and with `watch` their changes."""
        stream = self._registry.stream_endpoints(query, watch=watch, timeout=None if watch else _SECONDS)
        try:
            async for found in stream:
                self._health.set("registry", True)
                yield found.network_service_endpoint, found.deleted
        except _AWAY as error:
            self._health.degrade("registry", str(error))
            if watch:
                raise
            for message in self._local.messages():
                shown: Any = NetworkServiceEndpoint()
                shown.CopyFrom(message)
                shown.url = self._own_url
                if kinds.endpoint_matches(query, shown):
                    yield shown, False

    def _remember(self, service: NetworkService, deleted: bool) -> None:
        self._seen.pop(service.name, None)
        if not deleted:
            self._seen[service.name] = service
            if len(self._seen) > _REMEMBERED:
                self._seen.popitem(last=False)
