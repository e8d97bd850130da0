"""Two mixers hold one limit: the owner of a cell charges it for the other, over mutual TLS."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import grpc
import pytest

from meshwright.api.istio.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from meshwright.api.mixer.v1 import quota_pb2, quota_pb2_grpc
from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeChannel, NativeServer
from meshwright.dataplane.policy import Engine
from pki import Pki

MIXER = "spiffe://mesh.local/ns/meshwright-system/sa/mixer"
SHOP = "spiffe://mesh.local/ns/demo/sa/shop"


@asynccontextmanager
async def replica(pki: Pki, policy: bytes) -> AsyncIterator[tuple[Engine, NativeServer, str]]:
    """A mixer replica of its own."""
    identity = StaticIdentity(pki.identity(MIXER))
    engine = Engine(identity)
    engine.load(policy)
    server = NativeServer("127.0.0.1:0", identity, native=[engine.services])
    address = await server.start()
    try:
        yield engine, server, address
    finally:
        await server.stop(1)
        engine.close()


async def granted(channel: grpc.aio.Channel, caller: str, number: int) -> int:
    """Ask for one of the quota."""
    request = mixer_pb2.CheckRequest(deduplication_id=f"{caller}-{number}-{id(channel)}")
    request.attributes.words.extend(["request.url_path", "/limited", "source.principal", caller])
    request.attributes.strings.update({-1: -2, -3: -4})
    request.quotas["requestcount"].amount = 1
    response = await mixer_pb2_grpc.MixerStub(channel).Check(request, timeout=5)
    return int(response.quotas["requestcount"].granted_amount)


async def test_a_limit_holds_across_replicas(pki, policy) -> None:
    """Whichever replica is asked, three pass; and when one is gone the other decides alone."""
    async with AsyncExitStack() as stack:
        first, _, first_address = await stack.enter_async_context(replica(pki, policy.bytes()))
        second, second_server, second_address = await stack.enter_async_context(replica(pki, policy.bytes()))
        replicas = [("a", first_address), ("b", second_address)]
        first.set_replicas("a", replicas)
        second.set_replicas("b", replicas)
        shop = StaticIdentity(pki.identity(SHOP))
        channels = [
            await stack.enter_async_context(NativeChannel(address, shop, peer=MIXER))
            for address in (first_address, second_address)
        ]
        for caller in ("ann", "bob", "cid", "dan", "eve", "fay"):
            answers = [await granted(channels[number % 2], caller, number) for number in range(8)]
            assert answers == [1, 1, 1, 0, 0, 0, 0, 0], caller
        forwarded = [engine.stats()["quota_forwarded"] for engine in (first, second)]
        assert sum(forwarded) == 24, "half of the charges are asked at the wrong replica"
        assert first.stats()["quota_cells"] + second.stats()["quota_cells"] == 6

        await second_server.stop(0)
        for number in range(20):
            assert await granted(channels[0], f"new-{number}", 0) == 1
        assert first.stats()["quota_owner_unreachable"] > 0


async def test_only_mixer_charges_at_a_peer(pki, policy) -> None:
    """A workload could use up any quota otherwise."""
    request = quota_pb2.ChargeRequest(cell=b"cell", max_amount=5, window_nanos=10**9, amount=4)
    async with replica(pki, policy.bytes()) as (engine, _, address):
        async with NativeChannel(address, StaticIdentity(pki.identity(SHOP)), peer=MIXER) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as failure:
                await quota_pb2_grpc.QuotaPeerStub(channel).Charge(request, timeout=5)
            assert failure.value.code() == grpc.StatusCode.PERMISSION_DENIED
        async with NativeChannel(address, StaticIdentity(pki.identity(MIXER)), peer=MIXER) as channel:
            response = await quota_pb2_grpc.QuotaPeerStub(channel).Charge(request, timeout=5)
            assert (response.granted, response.valid_nanos) == (4, 10**9)
        assert engine.stats()["quota_served"] == 1
