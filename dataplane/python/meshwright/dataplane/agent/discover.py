"""Chooses the endpoint: as in the original, the forwarder does, since it knows what it can connect.

One decision to know: candidates are tried in the order of `matching` until one takes the connection; a connection that
is up stays with its endpoint.
"""

from __future__ import annotations

import random

from meshwright.core import errors
from meshwright.nsm import matching
from meshwright.nsm.chain import Exchange, NextHop, Proceed
from meshwright.nsm.errors import NoEndpoint, NoSuchService
from meshwright.nsm.registry_client import RegistryClient
from meshwright.nsm.wire import Connection, NetworkService, NetworkServiceEndpoint, NetworkServiceRequest

_CANDIDATES = 8  # tried within one request
_FIND_SECONDS = 5.0


class DiscoverEndpoint:
    """Finds through `manager`, which is also the next hop to every endpoint."""

    def __init__(self, registry: RegistryClient, manager: NextHop, chance: random.Random) -> None:
        self._registry, self._manager, self._chance = registry, manager, chance

    async def __call__(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Choose and go on; what a candidate can't do, the next one may."""
        if exchange.closing:
            return await proceed(request, exchange)
        exchange.next_hops = [self._manager]
        if request.connection.network_service_endpoint_name:
            return await proceed(request, exchange)
        failures = []
        payload, candidates = await self._candidates(request.connection, exchange)
        for candidate in candidates:
            onward = NetworkServiceRequest()
            onward.CopyFrom(request)
            onward.connection.payload = request.connection.payload or payload
            onward.connection.network_service_endpoint_name = candidate.name
            try:
                return await proceed(onward, exchange)
            except (errors.Unavailable, errors.NotFound, errors.Exhausted, errors.DeadlineExceeded) as failure:
                failures.append(failure)
        raise NoEndpoint(
            f"no endpoint of {request.connection.network_service} took the connection: {'; '.join(map(str, failures))}"
        )

    async def _candidates(self, connection: Connection, exchange: Exchange) -> tuple[str, list[NetworkServiceEndpoint]]:
        """Return what the service's packets are, and who may serve."""
        name = connection.network_service
        timeout = min(_FIND_SECONDS, exchange.remaining())
        services = await self._registry.find_services(NetworkService(name=name), timeout=timeout)
        if not services:
            raise NoSuchService(f"nobody registered the network service {name!r}")
        endpoints = await self._registry.find_endpoints(
            NetworkServiceEndpoint(network_service_names=[name]), timeout=timeout
        )
        found = matching.candidates(services[0], endpoints, connection.labels, self._chance)
        if not found:
            raise NoEndpoint(
                f"{name} has no endpoint for this client ({len(endpoints)} registered, none fits its matches)"
            )
        return services[0].payload, found[:_CANDIDATES]
