"""A stream lives as long as its client may have what it gets: a push that may not be ends it, and no other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from envoys import serving
from meshes import SHOP, World

from meshwright.api.envoy.config.core.v3.base_pb2 import Node
from meshwright.api.envoy.service.discovery.v3 import ads_pb2_grpc
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from meshwright.core.grpc import Channel
from meshwright.core.identity import StaticIdentity
from meshwright.core.spiffe import part_id
from meshwright.manager.xds import types
from meshwright.manager.xds.hub import Hub
from meshwright.manager.xds.platform import node_id
from meshwright.manager.xds.server import DiscoveryServer
from pki import Pki

SECONDS = 20
MOVED = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-0}
spec: {address: 127.0.0.1, labels: {app: shop}, serviceAccount: another}
"""


@contextlib.asynccontextmanager
async def connected(pki: Pki, address: str, workload: str, account: str) -> AsyncIterator[Any]:
    """A proxy's stream that asks for its clusters, and has read the first answer."""
    channel = Channel(address, StaticIdentity(pki.workload(account)), peer=part_id("mesh.local", "manager"))
    async with channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        node = Node(id=node_id("default", workload))
        await call.write(DeltaDiscoveryRequest(node=node, type_url=types.CLUSTER))
        await take(call)
        yield call
        call.cancel()


async def take(call: Any) -> Any:
    """Read a response and acknowledge it."""
    async with asyncio.timeout(SECONDS):
        response = await call.read()
    await call.write(DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))
    return response


@pytest.mark.parametrize(
    ("text", "remove", "code"),
    [
        (MOVED, (), grpc.StatusCode.PERMISSION_DENIED),
        ("", ("WorkloadEntry/shop-0",), grpc.StatusCode.NOT_FOUND),
    ],
    ids=["another account", "deleted"],
)
async def test_a_change_of_identity_ends_the_stream_and_no_other(
    pki: Pki, text: str, remove: tuple[str, ...], code: grpc.StatusCode
) -> None:
    world, hub = World(SHOP), Hub()
    hub.publish(world.snapshot)
    register = DiscoveryServer(hub, "mesh.local").add_to
    async with (
        serving("127.0.0.1:0", pki.part("manager"), register) as address,
        connected(pki, address, "shop-0", "shop") as shop,
        connected(pki, address, "catalog-v1-0", "catalog") as catalog,
    ):
        hub.publish(world.apply(text, remove=remove))
        with pytest.raises(grpc.aio.AioRpcError) as found:
            await take(shop)
        assert found.value.code() is code
        assert [one.client.node.workload for one in hub.connections()] == ["catalog-v1-0"]
        assert not catalog.done()
