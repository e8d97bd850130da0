"""The endpoints and forwarders of this node, as they registered here: whom this manager can call.

One decision to know: an endpoint is called through the descriptor of its socket's file, which it passed when it
registered, and only whoever has the owner's SPIFFE ID may answer there. So no path is trusted and none is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import structlog

from meshwright.core.clock import Clock
from meshwright.core.identity import IdentitySource
from meshwright.nsm import urls
from meshwright.nsm.chain import NextHop
from meshwright.nsm.descriptors import Descriptor, Inode
from meshwright.nsm.errors import NoForwarder
from meshwright.nsm.peer import Peer
from meshwright.nsm.wire import NetworkServiceEndpoint

FORWARDER = "forwarder"  # the network service that forwarders are endpoints of

Found = TypeVar("Found")

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class LocalEndpoint:
    """One endpoint; `message` has the URL that it registered with."""

    message: NetworkServiceEndpoint
    owner: str
    peer: Peer
    socket: Descriptor | None

    @property
    def expires(self) -> datetime:
        """When its registration is over."""
        return self.message.expiration_time.ToDatetime(tzinfo=UTC)

    @property
    def inode(self) -> Inode | None:
        """What it is reached by; another one means that it was started anew."""
        return self.socket.inode if self.socket else None


class LocalEndpoints:
    """Endpoints by name. `joined` is called with the name of each that comes, or comes back on another socket."""

    def __init__(
        self,
        identity: IdentitySource | None,
        clock: Clock,
        *,
        lifetime: timedelta,
        joined: Callable[[str], None] = lambda name: None,
    ) -> None:
        self._identity, self._clock, self._lifetime = identity, clock, lifetime
        self.joined = joined
        self._by_name: dict[str, LocalEndpoint] = {}
        self._changed = asyncio.Event()

    async def put(self, message: NetworkServiceEndpoint, owner: str, socket: Descriptor | None) -> None:
        """Take in a registration or its refresh; the descriptor becomes this object's."""
        known = self._by_name.get(message.name)
        inode = socket.inode if socket else None
        if known is not None and (known.inode, known.owner, known.message.url) == (inode, owner, message.url):
            known.message = message
            if socket is not None:
                socket.close()
            return
        target = f"unix:/proc/self/fd/{socket.fileno()}" if socket else urls.dial(message.url)
        peer = Peer(
            message.name, target, self._identity, expected=owner or None, lifetime=self._lifetime, clock=self._clock
        )
        self._by_name[message.name] = LocalEndpoint(message, owner, peer, socket)
        if known is not None:
            await _close(known)
        log.info("nsmgr.endpoint.joined", endpoint=message.name, services=list(message.network_service_names))
        self._changed.set()
        self._changed = asyncio.Event()
        self.joined(message.name)

    def get(self, name: str) -> LocalEndpoint | None:
        """Return the endpoint of a name."""
        return self._by_name.get(name)

    async def remove(self, name: str) -> None:
        """Take an endpoint out."""
        known = self._by_name.pop(name, None)
        if known is not None:
            log.info("nsmgr.endpoint.left", endpoint=name)
            await _close(known)

    async def resolve(self, name: str, timeout: float) -> NextHop:
        """Return the hop of a name, waiting for it to come (back); raise NoForwarder."""
        known = await self._wait_for(lambda: self._by_name.get(name), timeout)
        if known is None:
            raise NoForwarder(f"{name or 'the next hop'} isn't registered with this manager at the moment")
        return known.peer

    def forwarders(self, labels: Mapping[str, str]) -> list[LocalEndpoint]:
        """Return the forwarders that have these labels."""
        return [
            known
            for known in self._by_name.values()
            if FORWARDER in known.message.network_service_names
            and labels.items() <= known.message.network_service_labels[FORWARDER].labels.items()
        ]

    async def wait_for_forwarders(self, labels: Mapping[str, str], timeout: float) -> list[LocalEndpoint]:
        """Return the forwarders that have these labels, waiting for a first one: this process may have just started."""
        return await self._wait_for(lambda: self.forwarders(labels), timeout)

    async def run(self) -> None:
        """Take out what isn't refreshed, until cancelled."""
        while True:
            await self._clock.sleep(1.0)
            now = self._clock.now()
            for name in [name for name, known in self._by_name.items() if known.expires <= now]:
                await self.remove(name)

    async def _wait_for(self, look: Callable[[], Found], timeout: float) -> Found:
        """Return what `look` finds as soon as it finds something, or what it finds at the end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not look():
                    await self._changed.wait()
        return look()

    async def close(self) -> None:
        """Close all connections to endpoints."""
        for name in list(self._by_name):
            await self.remove(name)

    def __len__(self) -> int:
        return len(self._by_name)

    def messages(self) -> list[NetworkServiceEndpoint]:
        """Return all registrations."""
        return [known.message for known in self._by_name.values()]


async def _close(endpoint: LocalEndpoint) -> None:
    await endpoint.peer.aclose()
    if endpoint.socket is not None:
        endpoint.socket.close()
