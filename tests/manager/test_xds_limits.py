"""A client that floods, stalls or never acknowledges costs bounded memory, and nobody else's time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from envoys import eventually
from xds_clients import cluster, endpoints

from meshwright.api.envoy.config.core.v3.base_pb2 import Node
from meshwright.api.envoy.service.discovery.v3 import ads_pb2_grpc
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DiscoveryRequest
from meshwright.api.envoy.service.endpoint.v3 import eds_pb2_grpc
from meshwright.core.grpc import Server
from meshwright.manager.xds import stream, streams, types
from meshwright.manager.xds.allowance import Allowance
from meshwright.manager.xds.cache import Cache
from meshwright.manager.xds.server import XdsServer

SECONDS = 30


@contextlib.asynccontextmanager
async def served(*put: Any) -> AsyncIterator[tuple[Cache, str]]:
    """A cache with its server, in plain text."""
    cache = Cache()
    cache.update("g", put)
    server = Server("127.0.0.1:0", None)
    XdsServer(cache).add_to(server)
    try:
        yield cache, await server.start()
    finally:
        await server.stop(None)


@contextlib.asynccontextmanager
async def connected(address: str, node_id: str) -> AsyncIterator[Any]:
    """A stream of increments that asks for endpoints `a`; it acknowledges when it is told to."""
    async with grpc.aio.insecure_channel(address) as channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        node = Node(id=node_id, cluster="g")
        await call.write(DeltaDiscoveryRequest(node=node, type_url=types.ENDPOINT, resource_names_subscribe=["a"]))
        yield call
        call.cancel()


async def update(call: Any) -> str:
    """Take one update and acknowledge it; return the version."""
    async with asyncio.timeout(SECONDS):
        response = await call.read()
    await call.write(DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce))
    return str(response.resources[0].version)


async def test_who_never_acknowledges_gets_one_response_and_then_the_newest() -> None:
    async with served(endpoints("a")) as (cache, address), connected(address, "mute") as mute:
        async with connected(address, "good") as good:
            versions = [await update(good)]
            async with asyncio.timeout(SECONDS):
                first = await mute.read()
            for number in range(2, 30):
                cache.update("g", [endpoints("a", number)])
                versions.append(await update(good))
            assert len(set(versions)) == 29
        [silent] = [one for one in cache.streams.connections() if one.node_id == "mute"]
        state = silent.subscription.types[types.ENDPOINT]
        assert state.nonce == first.nonce, "nothing more was made for it"
        await mute.write(DeltaDiscoveryRequest(type_url=types.ENDPOINT, response_nonce=first.nonce))
        assert await update(mute) == versions[-1]


async def test_who_does_not_read_is_sent_no_more_than_the_network_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It acknowledges everything blindly, and reads nothing: what waits for it stays one pass' responses."""
    large = [endpoints("a"), *(cluster(f"c{number}", 10**9) for number in range(4000))]
    for one in large[1:]:
        one.alt_stat_name = "x" * 500
    async with served(*large) as (cache, address), grpc.aio.insecure_channel(address) as channel:
        stall = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
        node = Node(id="stalled", cluster="g")
        await stall.write(DiscoveryRequest(node=node, type_url=types.CLUSTER))
        await eventually(lambda: cache.streams.connections(), "it is connected", timeout=SECONDS)
        [connection] = cache.streams.connections()
        state = connection.subscription.types[types.CLUSTER]
        sent = set()
        async with connected(address, "good") as good:
            for number in range(2, 40):
                await eventually(lambda: state.last_nonce, "it was sent something", timeout=SECONDS)
                sent.add(state.last_nonce)
                answer = DiscoveryRequest(
                    type_url=types.CLUSTER, response_nonce=state.last_nonce, version_info=state.sent_version
                )
                await stall.write(answer)
                await update(good)
                large[1].alt_stat_name = str(number)
                cache.update("g", [large[1], endpoints("a", number)])
        assert len(sent) < 20, "after what the network holds, nothing more is made for it"
        stall.cancel()


async def test_who_floods_is_read_slowly_and_others_are_served() -> None:
    async with served(endpoints("a")) as (cache, address), connected(address, "flood") as flood:

        async def pour() -> None:
            for number in range(100_000):
                await flood.write(
                    DeltaDiscoveryRequest(type_url=types.ENDPOINT, resource_names_subscribe=[f"n{number}"])
                )

        async def drink() -> None:
            async for response in flood:
                await flood.write(DeltaDiscoveryRequest(type_url=types.ENDPOINT, response_nonce=response.nonce))

        pouring = [asyncio.create_task(pour()), asyncio.create_task(drink())]
        async with connected(address, "good") as good:
            versions = {await update(good)}
            for number in range(2, 20):
                cache.update("g", [endpoints("a", number)])
                versions.add(await update(good))
        assert len(versions) == 19
        for task in pouring:
            task.cancel()
        await asyncio.gather(*pouring, return_exceptions=True)


def test_a_flood_waits_and_an_allowance_comes_back() -> None:
    allowance = Allowance(0.0)
    assert all(allowance.wait(100, 0.0) == 0 for _ in range(500))
    waits = [allowance.wait(100, 0.0) for _ in range(200)]
    assert waits[-1] > 1.5
    assert allowance.wait(100, 60.0) == 0
    assert Allowance(0.0).wait(100 << 20, 0.0) > 50, "one long request counts as many"


async def test_who_says_nothing_at_first_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_FIRST_REQUEST_SECONDS", 0.05)
    async with served() as (_, address), grpc.aio.insecure_channel(address) as channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).DeltaAggregatedResources()
        with pytest.raises(grpc.aio.AioRpcError) as found:
            await call.read()
        assert found.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_streams_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "MAX_STREAMS", 1)
    async with served(endpoints("a")) as (_, address), connected(address, "one") as one:
        await update(one)
        async with connected(address, "two") as two:
            with pytest.raises(grpc.aio.AioRpcError) as found:
                await update(two)
            assert found.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_stream_of_one_type_has_that_type_only() -> None:
    """Its requests needn't name it, and may name no other."""
    async with served(endpoints("a")) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = eds_pb2_grpc.EndpointDiscoveryServiceStub(channel)
        call = stub.StreamEndpoints()
        await call.write(DiscoveryRequest(node=Node(id="n", cluster="g"), resource_names=["a"]))
        assert (await call.read()).type_url == types.ENDPOINT
        call.cancel()
        call = stub.DeltaEndpoints()
        await call.write(DeltaDiscoveryRequest(node=Node(id="n", cluster="g"), resource_names_subscribe=["a"]))
        assert [one.name for one in (await call.read()).resources] == ["a"]
        await call.write(DeltaDiscoveryRequest(type_url=types.CLUSTER))
        with pytest.raises(grpc.aio.AioRpcError) as found:
            await call.read()
        assert found.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_unreadable_requests_end_their_stream_only() -> None:
    async with served(endpoints("a")) as (_, address), connected(address, "good") as good:
        async with grpc.aio.insecure_channel(address) as channel:
            path = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
            call = channel.stream_stream(path)()
            await call.write(b"\xff\xff")
            with pytest.raises(grpc.aio.AioRpcError) as found:
                await call.read()
            assert found.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await update(good)
