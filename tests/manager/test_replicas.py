"""Several managers: each knows the others' addresses, and status covers the proxies of all."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from envoys import eventually
from managers import client, objects, running
from meshes import SHOP

from meshwright.api.envoy.config.core.v3.base_pb2 import Node
from meshwright.api.envoy.service.discovery.v3 import ads_pb2_grpc
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest
from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.core.grpc import Channel
from meshwright.core.health import Health
from meshwright.core.identity import StaticIdentity, part_id
from meshwright.core.store import MemoryStore
from meshwright.manager.configapi.catalogue import Catalogue
from meshwright.manager.configapi.status import StatusBoard
from meshwright.manager.replicas import Replicas
from meshwright.manager.xds import types
from meshwright.manager.xds.hub import Hub
from meshwright.manager.xds.platform import node_id
from pki import Pki


async def test_replicas_announce_themselves_while_they_run() -> None:
    store = MemoryStore()
    first, second = Replicas(store, "first", Health()), Replicas(store, "second", Health())
    task = asyncio.create_task(second.announce("127.0.0.1:2"))

    async def known() -> bool:
        return list(await first.others()) == [("second", "127.0.0.1:2")]

    await eventually(known, "the second replica")
    assert list(await second.others()) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert list(await first.others()) == []


async def test_status_asks_the_other_replicas_and_names_the_silent(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))

        async def others() -> list[tuple[str, str]]:
            return [("other", address), ("dead", "127.0.0.1:1")]

        board = StatusBoard(
            "this",
            Hub(),
            Catalogue(Health(), strict=False, on_change=lambda _: None),
            credentials=StaticIdentity(pki.part("manager")),
            trust_domain="mesh.local",
            replicas=others,
        )
        response = board.here()
        assert response.revision == 0
        await board.add_others(response)
        assert response.revision == 1
        assert list(response.unreachable) == ["dead (127.0.0.1:1)"]


async def test_waiting_at_one_replica_counts_the_proxies_of_all(pki: Pki, tmp_path: Path, etcd: dict[str, Any]) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    async with (
        running(pki, tmp_path / "one", **etcd) as first,
        running(pki, tmp_path / "other", **etcd) as second,
        client(pki, second) as admin,
        Channel(first, StaticIdentity(pki.workload("shop")), peer=part_id("mesh.local", "manager")) as channel,
    ):
        await admin.apply(objects(SHOP))
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
        await call.write(DiscoveryRequest(node=Node(id=node_id("default", "shop-0")), type_url=types.CLUSTER))
        response = await call.read()

        async def known() -> bool:
            return len((await admin.status()).proxies) == 1

        await eventually(known, "the other replica's proxy")
        refusal = DiscoveryRequest(type_url=types.CLUSTER, response_nonce=response.nonce)
        refusal.error_detail.message = "no such thing"
        await call.write(refusal)

        async def refused() -> bool:
            with pytest.raises(errors.DeadlineExceeded) as late:
                await admin.wait(1, timeout=0.2)
            return "shop-0.default is at 0 (Cluster: no such thing)" in str(late.value)

        await eventually(refused, "the refusal, at the other replica")
        service = Key("", "Service", "", "catalog")
        with pytest.raises(errors.DeadlineExceeded, match=r"shop-0.default.* refused .*: no such thing"):
            await admin.wait_for([service], "Programmed", timeout=0.2)
        call.cancel()  # who is gone is waited for no longer
        assert (await admin.wait(1, timeout=20)).proxies == ()
        await admin.wait_for([service], "Programmed", timeout=20)
