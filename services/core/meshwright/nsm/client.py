"""A network service client: asks for connections into its own network namespace and keeps them fresh.

Usable as it is from any process that sits in the namespace it wants connected:

    async with Client("shop", connect_to="unix:/run/nsmgr.sock", identity=identity) as client:
        attachment = await client.connect("kernel://vpn/nsm-1")
        ...
        await attachment.close()
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import structlog

from meshwright.core import errors
from meshwright.core import identity as identities
from meshwright.core.clock import Clock, SystemClock
from meshwright.core.identity import IdentitySource
from meshwright.nsm import descriptors, mechanism, path, urls
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.peer import Peer
from meshwright.nsm.wire import Connection, NetworkServiceRequest

_SHARE = 1 / 3  # of the shortest token's life after which a connection is refreshed
_RETRY_FIRST, _RETRY_MOST = 0.2, 5.0  # seconds, doubling
_SECONDS = 15.0

log = structlog.get_logger(__name__)


class Client:
    """Connections by one manager. `manager` is the manager's SPIFFE ID, by default the platform's.

    `name` must be unique among this identity's clients on the node (a pod's name is): the same identity with the same
    name takes up the connections that it left behind.
    """

    def __init__(
        self,
        name: str,
        *,
        connect_to: str,
        identity: IdentitySource | None,
        manager: str | None = None,
        lifetime: timedelta = timedelta(minutes=10),
        clock: Clock | None = None,
    ) -> None:
        self.name = name
        self._clock = clock or SystemClock()
        if manager is None and identity is not None:
            manager = identities.part_id(identity.current().trust_domain, "nsmgr")
        self._peer = Peer(
            "the manager", urls.dial(connect_to), identity, expected=manager, lifetime=lifetime, clock=self._clock
        )
        self._numbers = itertools.count()
        self._attachments: set[Attachment] = set()

    async def connect(
        self,
        url: str,
        *,
        labels: Mapping[str, str] | None = None,
        namespace: descriptors.Descriptor | None = None,
        identifier: str | None = None,
        timeout: float = _SECONDS,
    ) -> Attachment:
        """Ask for ``kernel://service/interface`` in `namespace` (by default this process's) and keep it fresh.

        ``memif://service`` gives a socket that a memif client connects to: `Attachment.socket` is its file, or, where a
        namespace is given, `Attachment.socket_name` its name there.

        Raises PermissionDenied's kin with the policy's reason, NotFound when there is no such service or endpoint.
        `identifier` names the connection; the same one again takes up a connection that this client left behind.
        """
        asked = urls.parse(url)
        if asked.mechanism not in (mechanism.KERNEL, mechanism.MEMIF):
            raise InvalidMechanism(
                f"{asked.mechanism!r} in {url}", field="network service", remedy="use kernel:// or memif://"
            )
        own = namespace.duplicate() if namespace else descriptors.own_network_namespace()
        connection = Connection(network_service=asked.service, labels={**asked.labels, **(labels or {})})
        path.start(connection, self.name, identifier or f"{self.name}-{next(self._numbers)}")
        wish = mechanism.kernel(own.inode, asked.interface)
        if asked.mechanism == mechanism.MEMIF:
            wish = mechanism.memif(own.inode if namespace else None)
        request = NetworkServiceRequest(connection=connection, mechanism_preferences=[wish])
        attachment = Attachment(self._peer, own, request, self._clock)
        try:
            await attachment.request(timeout)
        except BaseException:
            own.close()
            raise
        attachment.keep_fresh()
        self._attachments.add(attachment)
        return attachment

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop refreshing. Connections that weren't closed go on until their tokens are over."""
        for attachment in self._attachments:
            await attachment.leave()
        await self._peer.aclose()


class Attachment:
    """One connection of a client, refreshed until it is closed or refused."""

    def __init__(
        self, peer: Peer, namespace: descriptors.Descriptor, request: NetworkServiceRequest, clock: Clock
    ) -> None:
        self._peer, self._namespace, self._request, self._clock = peer, namespace, request, clock
        self._refreshing: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self.socket: descriptors.Descriptor | None = None  # of a memif: the socket's file
        self.lost: str = ""  # why it isn't refreshed any more

    @property
    def connection(self) -> Connection:
        """The connection as last answered."""
        return self._request.connection

    @property
    def interface(self) -> str:
        """The name of the interface in this client's namespace."""
        return str(self.connection.mechanism.parameters.get(mechanism.NAME, ""))

    @property
    def socket_name(self) -> str:
        """The name of a memif's socket in this client's namespace, without the @ in front."""
        return str(self.connection.mechanism.parameters.get(mechanism.SOCKET, "")).removeprefix("@")

    @property
    def addresses(self) -> list[str]:
        """This side's addresses, with prefix length."""
        return list(self.connection.context.ip_context.src_ip_addrs)

    @property
    def endpoint_addresses(self) -> list[str]:
        """The endpoint's addresses, with prefix length."""
        return list(self.connection.context.ip_context.dst_ip_addrs)

    async def request(self, timeout: float = _SECONDS) -> None:
        """Ask for the connection, or refresh it now."""
        async with self._turn:
            answer, descriptor = await self._peer.request(self._request, timeout=timeout, descriptors=self._named())
            self._request.connection.CopyFrom(answer)
            if descriptor is not None:
                self._forget_socket()
                self.socket = descriptor

    async def close(self, timeout: float = _SECONDS) -> None:
        """Close the connection; nothing of it is left when this returns."""
        await self._stop()
        async with self._turn:
            await self._peer.close(self.connection, timeout=timeout, descriptors=self._named())
        self._namespace.close()
        self._forget_socket()

    async def leave(self) -> None:
        """Stop refreshing without closing."""
        await self._stop()
        self._namespace.close()
        self._forget_socket()

    def _named(self) -> list[descriptors.Descriptor]:
        """Return the descriptors that the request names, which go beside it."""
        wishes = (self._request.connection.mechanism, *self._request.mechanism_preferences)
        inodes = {mechanism.inode(wish) for wish in wishes}
        return [held for held in (self._namespace, self.socket) if held is not None and held.inode in inodes]

    def _forget_socket(self) -> None:
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def keep_fresh(self) -> None:
        """Begin to refresh in the background."""
        outside = contextvars.Context()  # refreshes aren't part of the trace that the connection began in
        self._refreshing = asyncio.create_task(self._refresh(), name=f"refresh {self.connection.id}", context=outside)

    async def _refresh(self) -> None:
        delay = _RETRY_FIRST
        wait = self._until_refresh()
        while True:
            await self._clock.sleep(wait)
            try:
                await self.request()
            except (errors.Forbidden, errors.NotFound, errors.ConfigError) as error:
                self.lost = str(error)
                log.warning("nsm.client.refused", connection=self.connection.id, reason=self.lost)
                return
            except errors.MeshwrightError as error:
                log.info("nsm.client.refresh_failed", connection=self.connection.id, reason=str(error))
                wait, delay = delay, min(2 * delay, _RETRY_MOST)
            else:
                wait, delay = self._until_refresh(), _RETRY_FIRST

    def _until_refresh(self) -> float:
        ends = [
            segment.expires.ToDatetime(tzinfo=UTC)
            for segment in self.connection.path.path_segments
            if segment.HasField("expires")
        ]
        now: datetime = self._clock.now()
        return max(_RETRY_FIRST, (min(ends) - now).total_seconds() * _SHARE) if ends else _RETRY_MOST

    async def _stop(self) -> None:
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.gather(self._refreshing, return_exceptions=True)
            self._refreshing = None
