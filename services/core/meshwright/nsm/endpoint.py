"""A network service endpoint: serves connections into its own network namespace, or on the wire where it is.

Usable as it is from any process that sits in the namespace it serves:

    async with Endpoint("vpn-1", services=["vpn"], prefix="172.16.1.0/24", listen="unix:/run/vpn.sock",
                        connect_to="unix:/run/nsmgr.sock", identity=identity):
        await stop.wait()
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from meshwright.core import errors
from meshwright.core import identity as identities
from meshwright.core.clock import Clock, SystemClock
from meshwright.core.grpc import Authorization, Server
from meshwright.core.identity import IdentitySource
from meshwright.nsm import descriptors, urls, wire
from meshwright.nsm.chain import Chain
from meshwright.nsm.connections import Connections
from meshwright.nsm.elements.begin import Begin
from meshwright.nsm.elements.paths import UpdatePath
from meshwright.nsm.elements.serve import Serve
from meshwright.nsm.elements.token import Tokens
from meshwright.nsm.expiry import Expiry
from meshwright.nsm.ipam import PointToPoint
from meshwright.nsm.monitor import Monitor
from meshwright.nsm.offers import KernelOffer, MemifOffer, Offer, WireOffer
from meshwright.nsm.peer import Peer
from meshwright.nsm.registration import Registration
from meshwright.nsm.registry_client import RegistryClient
from meshwright.nsm.servicer import NEEDS, MonitorConnectionServicer, NetworkServiceServicer
from meshwright.nsm.wire import Connection, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels

_REGISTER_SECONDS = 30.0


class Endpoint:
    """Serves `services` from entering to leaving the context; while inside, it stays registered.

    `labels` are given by service. `manager` is the SPIFFE ID of the node's network service manager, the only one that
    may call; by default the platform's. `namespace` stays the caller's; by default it is the process's own. With `vlan`
    (0: none) the endpoint needs no forwarder at its end: who has the addresses is on that VLAN of the wire.
    With `memif` it is a program that serves a memif socket at that path.
    `socket_mode` lets a manager connect that runs as another user; certificates decide who may call.
    """

    def __init__(
        self,
        name: str,
        *,
        services: Sequence[str],
        prefix: str,
        listen: str,
        connect_to: str,
        identity: IdentitySource | None,
        labels: Mapping[str, Mapping[str, str]] | None = None,
        payload: str = "IP",
        manager: str | None = None,
        namespace: descriptors.Descriptor | None = None,
        vlan: int | None = None,
        memif: Path | None = None,
        lifetime: timedelta = timedelta(minutes=10),
        clock: Clock | None = None,
        socket_mode: int = 0o600,
    ) -> None:
        self.name = name
        self.connections = Connections()
        self._services, self._labels, self._payload = tuple(services), labels or {}, payload
        self._listen, self._connect_to, self._identity = listen, connect_to, identity
        self._manager, self._namespace, self._lifetime = manager, namespace, lifetime
        self._clock = clock or SystemClock()
        self._addresses, self._vlan, self._memif = PointToPoint(prefix), vlan, memif
        self._socket_mode = socket_mode
        self._cleanup = contextlib.AsyncExitStack()

    @property
    def open_connections(self) -> list[Connection]:
        """The connections as they were last answered."""
        return [state.accepted for state in self.connections if state.accepted is not None]

    async def __aenter__(self) -> Self:
        """Serve and register; return when both are done."""
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._cleanup = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Unregister and stop serving."""
        await self._cleanup.aclose()

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        monitor = Monitor()
        chain = Chain(
            UpdatePath(self.name, self.connections),
            Tokens(self._identity, lifetime=self._lifetime),
            Begin(self.connections),
            monitor,
            Serve(self.name, self._addresses, self._offer(stack)),
        )
        stack.callback(self._forget_all)
        manager = self._manager_id()
        authorize = Authorization([("/", [manager or ""])])
        front = Server(
            self._listen,
            self._identity,
            part=self.name,
            authorize=authorize,
            requires=NEEDS,
            socket_mode=self._socket_mode,
        )
        wire.add_NetworkServiceServicer_to_server(NetworkServiceServicer(chain, self._clock), front)
        wire.add_MonitorConnectionServicer_to_server(
            MonitorConnectionServicer(monitor, [manager] if manager else []), front
        )
        await front.start()
        stack.push_async_callback(front.stop, 1.0)
        peer = await stack.enter_async_context(
            Peer(
                "the manager",
                urls.dial(self._connect_to),
                self._identity,
                expected=manager,
                lifetime=self._lifetime,
                clock=self._clock,
            )
        )
        socket = stack.enter_context(descriptors.socket_file(self._listen.removeprefix("unix:")))
        registration = Registration(
            RegistryClient(peer),
            self._registered_as(socket.inode.url),
            self._clock,
            lifetime=self._lifetime,
            services=[NetworkService(name=service, payload=self._payload) for service in self._services],
            descriptors=[socket],
        )
        expiry = Expiry(chain, self.connections, self._clock)
        tasks = [
            asyncio.create_task(registration.run(), name=f"register {self.name}"),
            asyncio.create_task(expiry.run(), name=f"expiry {self.name}"),
        ]
        stack.push_async_callback(_end, tasks)
        try:
            async with asyncio.timeout(_REGISTER_SECONDS):
                await registration.first
        except TimeoutError as error:
            raise errors.Unavailable(
                f"{self.name} can't register at {self._connect_to} within {_REGISTER_SECONDS:g} s: {registration.fault}"
            ) from error
        stack.push_async_callback(registration.unregister)

    def _offer(self, stack: contextlib.AsyncExitStack) -> Offer:
        if self._vlan is not None:
            return WireOffer(self._vlan)
        if self._memif is not None:
            return MemifOffer(self._memif)
        return KernelOffer(self._namespace or stack.enter_context(descriptors.own_network_namespace()))

    def _manager_id(self) -> str | None:
        if self._identity is None:
            return None
        return self._manager or identities.part_id(self._identity.current().trust_domain, "nsmgr")

    def _registered_as(self, url: str) -> NetworkServiceEndpoint:
        endpoint = NetworkServiceEndpoint(name=self.name, network_service_names=self._services, url=url)
        for service, labels in self._labels.items():
            endpoint.network_service_labels[service].CopyFrom(NetworkServiceLabels(labels=labels))
        return endpoint

    def _forget_all(self) -> None:
        for state in self.connections:
            self.connections.forget(state)


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
