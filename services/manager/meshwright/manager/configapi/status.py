"""Which revision each proxy has acknowledged, over all replicas of the manager.

One decision to know: replicas announce only their address in the store (leased), and are asked when somebody wants to
know. Writing every acknowledgement of every proxy there would make each push cost as many writes as there are proxies.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Any

import grpc

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core import identity
from meshwright.core.grpc import Channel
from meshwright.manager.configapi.catalogue import Catalogue
from meshwright.manager.xds.hub import Connection, Hub

_ASK_SECONDS = 2.0
_REFUSALS = 20  # that are told of one type of one proxy

Replicas = Callable[[], Awaitable[Iterable[tuple[str, str]]]]
"""Returns (name, address) of the other replicas."""


async def alone() -> Iterable[tuple[str, str]]:
    """Say that there is no other replica."""
    return ()


class StatusBoard:
    """Collects what proxies said."""

    def __init__(
        self,
        name: str,
        hub: Hub,
        catalogue: Catalogue,
        *,
        credentials: identity.IdentitySource | None,
        trust_domain: str,
        replicas: Replicas = alone,
    ) -> None:
        self._name, self._hub, self._catalogue = name, hub, catalogue
        self._credentials, self._trust_domain, self._replicas = credentials, trust_domain, replicas

    def here(self) -> Any:
        """Return a ProxyStatusResponse for the proxies of this replica."""
        return config_pb2.ProxyStatusResponse(
            revision=self._catalogue.state.revision,
            proxies=[self._proxy(connection) for connection in self._hub.connections()],
        )

    async def add_others(self, response: Any) -> None:
        """Add what the other replicas say; those that don't answer in time are named."""
        others = list(await self._replicas())
        for (name, address), answer in zip(
            others, await asyncio.gather(*(self._ask(address) for _, address in others)), strict=True
        ):
            if answer is None:
                response.unreachable.append(f"{name} ({address})")
            else:
                response.proxies.extend(answer.proxies)
                response.revision = max(response.revision, answer.revision)

    async def _ask(self, address: str) -> Any:
        peer = identity.part_id(self._trust_domain, "manager") if self._credentials else None
        async with Channel(address, self._credentials, peer=peer) as channel:
            request = config_pb2.ProxyStatusRequest(this_replica=True)
            try:
                return await config_pb2_grpc.ConfigServiceStub(channel).ProxyStatus(request, timeout=_ASK_SECONDS)
            except grpc.aio.AioRpcError:
                return None

    def _proxy(self, connection: Connection) -> Any:
        subscription = connection.subscription
        return config_pb2.ProxyStatusResponse.Proxy(
            node_id=connection.node_id,
            spiffe_id=connection.spiffe_id,
            acknowledged_revision=subscription.acknowledged_revision,
            manager=self._name,
            types=[
                config_pb2.ProxyStatusResponse.TypeState(
                    type_url=type_url,
                    sent_version=state.sent_version,
                    acknowledged_version=state.acknowledged_version,
                    error=state.error,
                    refused=[
                        config_pb2.ProxyStatusResponse.Refusal(name=name, words=words)
                        for name, words in islice(state.refused.items(), _REFUSALS)
                        if words
                    ],
                )
                for type_url, state in subscription.types.items()
                if state.asked
            ],
        )
