"""What a registration passes on its way from this node to the registry: one element a class, in the order of use.

One decision to know: the registry learns this manager's own URL for every endpoint of the node, so that whoever wants
one comes through here; the endpoint's own URL stays on the node.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from meshwright.core import errors
from meshwright.nsm import allow, descriptors, urls
from meshwright.nsm.descriptors import Descriptor, Inode
from meshwright.nsm.errors import InvalidRegistration
from meshwright.nsm.registry_client import RegistryClient
from meshwright.nsm.registry_path import RegistryPath
from meshwright.nsm.wire import NetworkService, NetworkServiceEndpoint
from meshwright.nsm_registry.manager.endpoints import FORWARDER, LocalEndpoints
from meshwright.nsm_registry.registry.chain import Exchange, Proceed

_DESCRIPTOR_SECONDS = 2.0
_UPSTREAM_SECONDS = 5.0
_INODE = "inode://"


class GuardForwarders:
    """Lets only `allowed` SPIFFE IDs become forwarders: a forwarder is handed the namespaces of clients."""

    def __init__(self, allowed: Sequence[str]) -> None:
        self._allowed = tuple(allowed)

    async def __call__(self, message: Any, exchange: Exchange, proceed: Proceed) -> Any:
        """Check, and go on."""
        known = exchange.owner  # empty in plain text on loopback, where there are no identities
        if FORWARDER in message.network_service_names and known and not allow.allows(self._allowed, known):
            raise errors.Forbidden(f"{known} may not register as forwarder (--forwarders says who may)")
        return await proceed(message, exchange)


class KeepLocal:
    """Keeps the node's endpoints here, and sends them on with this manager's URL."""

    def __init__(self, local: LocalEndpoints, own_url: str, *, limit: int, lifetime: timedelta) -> None:
        self._local, self._own_url, self._limit, self._lifetime = local, own_url, limit, lifetime

    async def __call__(self, message: Any, exchange: Exchange, proceed: Proceed) -> Any:
        """Register here once the registry has taken it; unregister here first."""
        known = self._local.get(message.name)
        if known is not None and known.owner != exchange.owner:
            raise errors.Forbidden(f"{message.name} belongs to {known.owner}, not to {exchange.owner or 'you'}")
        if not exchange.registering:
            await self._local.remove(message.name)
            return await proceed(message, exchange)
        if known is None and len(self._local) >= self._limit:
            raise errors.Exhausted(f"{self._limit} endpoints are registered with this manager (--max-endpoints)")
        socket = await _socket(message.url, exchange)
        try:
            registered = await self._send_on(message, exchange, proceed)
        except BaseException:
            if socket is not None:
                socket.close()
            raise
        await self._local.put(registered, exchange.owner, socket)
        return registered

    async def _send_on(self, message: Any, exchange: Exchange, proceed: Proceed) -> NetworkServiceEndpoint:
        sent = NetworkServiceEndpoint()
        sent.CopyFrom(message)
        sent.url = self._own_url
        registered = NetworkServiceEndpoint()
        try:
            registered.CopyFrom(await proceed(sent, exchange))
        except (errors.Unavailable, errors.DeadlineExceeded):
            # The registry knows it from before, and the node must go on without the registry.
            if self._local.get(message.name) is None:
                raise
            registered.CopyFrom(message)
            registered.expiration_time.FromDatetime(exchange.clock.now() + self._lifetime)
        registered.url = message.url
        return registered


class Upstream:
    """The end of the chain: the registry."""

    def __init__(self, registry: RegistryClient) -> None:
        self._registry = registry

    async def __call__(self, message: Any, exchange: Exchange, proceed: Proceed) -> Any:
        """Register or unregister there, with the path so far."""
        path = exchange.path.next_hop()
        match message, exchange.registering:
            case NetworkService(), True:
                message, path = await self._registry.register_service(message, path, timeout=_UPSTREAM_SECONDS)
            case NetworkService(), False:
                await self._registry.unregister_service(message, path, timeout=_UPSTREAM_SECONDS)
            case NetworkServiceEndpoint(), True:
                message, path = await self._registry.register_endpoint(message, path, timeout=_UPSTREAM_SECONDS)
            case _:
                await self._registry.unregister_endpoint(message, path, timeout=_UPSTREAM_SECONDS)
        exchange.path = RegistryPath(exchange.path.index, path.tokens)
        return await proceed(message, exchange)


async def _socket(url: str, exchange: Exchange) -> Descriptor | None:
    """Take the descriptor of the endpoint's socket file if its URL names one."""
    if not url.startswith(_INODE):
        urls.dial(url)  # refuses what can't be reached
        return None
    socket = await exchange.receive(Inode.parse(url), _DESCRIPTOR_SECONDS)
    if not descriptors.is_socket_file(socket):
        socket.close()
        raise InvalidRegistration("the passed descriptor isn't a socket's file", field="url")
    return socket
