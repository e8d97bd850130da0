"""Workloads that register themselves: bound to their identity, there for as long as they renew, whoever dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoys import eventually
from managers import client, objects, running
from meshes import SHOP

from meshwright.api.registration.v1 import registration_pb2, registration_pb2_grpc
from meshwright.core import errors
from meshwright.core.clock import ManualClock
from meshwright.core.config import Key
from meshwright.core.grpc import Channel
from meshwright.core.health import Health
from meshwright.core.identity import StaticIdentity, X509Identity, part_id
from meshwright.core.store import MemoryStore
from meshwright.manager.client import Client
from meshwright.manager.explain.request import Request
from meshwright.manager.model.parse import Parsed
from meshwright.manager.sources.registration.follower import Follower
from meshwright.manager.sources.registration.instance import PREFIX, Instance
from meshwright.manager.sources.registration.leases import MAX_OF_ONE_IDENTITY, Leases
from pki import Pki

LABELS = {"app": "catalog", "version": "v1"}


@asynccontextmanager
async def registering(identity: X509Identity, address: str) -> AsyncIterator[Any]:
    """A stub with an identity."""
    peer = part_id("mesh.local", "manager")
    async with Channel(address, StaticIdentity(identity), peer=peer) as channel:
        yield registration_pb2_grpc.RegistrationServiceStub(channel)


def request(name: str = "vm-1", **fields: Any) -> Any:
    fields = {"address": "10.1.2.3", "ports": {"http": 8080}, "labels": LABELS, **fields}
    return registration_pb2.RegisterRequest(name=name, **fields)


async def endpoints(admin: Client) -> str:
    """What the mesh says of who answers for the catalog."""
    found = await admin.explain(Request("catalog-v1", "/"), "shop-0")
    return found.shares[0].detail


async def test_a_workload_is_in_the_mesh_while_it_says_so(pki: Pki, tmp_path: Path, etcd: dict[str, Any]) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    async with (
        running(pki, tmp_path / "one", **etcd) as first,
        running(pki, tmp_path / "other", **etcd) as second,
        client(pki, second) as admin,
        registering(pki.workload("catalog"), first) as mine,
        registering(pki.workload("catalog"), second) as elsewhere,
    ):
        await admin.apply(objects(SHOP))
        answer = await mine.Register(request(ttl_seconds=60), timeout=15)
        assert (answer.namespace, answer.service_account, answer.ttl_seconds) == ("default", "catalog", 60)

        async def seen(count: str) -> bool:
            return await endpoints(admin) == count

        await eventually(lambda: seen("2 endpoints"), "the instance, at the other replica")
        assert (await mine.Renew(registration_pb2.RenewRequest(name="vm-1"), timeout=15)).ttl_seconds == 60
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await elsewhere.Renew(registration_pb2.RenewRequest(name="vm-1"), timeout=15)
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        # It isn't configuration: nobody can list, delete or roll it back; a dry run knows it all the same.
        assert "vm-1" not in [found.name for found in (await admin.list("WorkloadEntry"))[0]]
        assert (await admin.apply(objects(SHOP), dry_run=True, preview="names")).resources == ()
        await admin.apply(objects(SHOP.replace("policy-outage: allow", "policy-outage: deny")))
        assert await seen("2 endpoints")
        await elsewhere.Deregister(registration_pb2.DeregisterRequest(name="vm-1"), timeout=15)
        await eventually(lambda: seen("1 endpoint"), "the instance gone")


async def test_only_itself_and_only_what_can_be(pki: Pki, tmp_path: Path) -> None:
    async with (
        running(pki, tmp_path) as address,
        registering(pki.workload("catalog"), address) as mine,
        registering(pki.workload("shop"), address) as others,
    ):
        await mine.Register(request(), timeout=15)
        await mine.Register(request(address="10.1.2.4"), timeout=15)  # again: it moved
        for call, code, told in (
            (others.Register(request()), "PERMISSION_DENIED", "registered by another service account"),
            (others.Deregister(registration_pb2.DeregisterRequest(name="vm-1")), "PERMISSION_DENIED", "another"),
            (others.Renew(registration_pb2.RenewRequest(name="vm-1")), "NOT_FOUND", "register it again"),
            (mine.Register(request(ttl_seconds=1)), "INVALID_ARGUMENT", "ttl_seconds: is 1"),
            (mine.Register(request(ttl_seconds=float("nan"))), "INVALID_ARGUMENT", "ttl_seconds"),
            (mine.Register(request(address="nowhere")), "INVALID_ARGUMENT", "address: "),
            (mine.Register(request(name="No Name")), "INVALID_ARGUMENT", "name: "),
            (mine.Register(request(ports={"http": 70_000})), "INVALID_ARGUMENT", "70000"),
            (mine.Register(request(labels={"x": "y" * 20_000})), "RESOURCE_EXHAUSTED", "at most 16384"),
        ):
            with pytest.raises(grpc.aio.AioRpcError, match=told) as refused:
                await call
            assert refused.value.code().name == code


class Replica:
    """Leases on a store, with a clock that the test moves."""

    def __init__(self, store: MemoryStore, clock: ManualClock) -> None:
        self.tasks: list[asyncio.Task[Any]] = []
        self.leases = Leases(store, self._spawn, clock)

    def _spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.create_task(work, name=name))
        return self.tasks[-1]


async def test_who_falls_silent_is_forgotten_and_who_renews_stays() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock)
    replica = Replica(store, clock)
    silent, loud = (Instance("default", "catalog", name, "10.0.0.1") for name in ("silent", "loud"))
    for instance in (silent, loud):
        await replica.leases.register(instance, 30)
    assert len((await store.list(PREFIX))[0]) == 2
    for _ in range(4):
        await clock.advance(10)
        replica.leases.renew("default", "catalog", "loud")

    async def only_loud() -> bool:
        return [entry.key for entry in (await store.list(PREFIX))[0]] == [loud.path]

    await eventually(only_loud, "the silent one gone")
    with pytest.raises(errors.NotFound, match="register it again"):
        replica.leases.renew("default", "catalog", "silent")
    for task in replica.tasks:
        task.cancel()
    await asyncio.gather(*replica.tasks, return_exceptions=True)
    assert (await store.list(PREFIX))[0] == []


async def test_one_identity_holds_so_many_instances() -> None:
    store = MemoryStore()
    replica = Replica(store, ManualClock())
    for number in range(MAX_OF_ONE_IDENTITY):
        await replica.leases.register(Instance("default", "catalog", f"vm-{number}", "10.0.0.1"), 0)
    with pytest.raises(errors.Exhausted, match="at most 10000 and 256"):
        await replica.leases.register(Instance("default", "catalog", "one-more", "10.0.0.1"), 0)
    await replica.leases.register(Instance("default", "shop", "other", "10.0.0.1"), 0)
    for task in replica.tasks:
        task.cancel()
    await asyncio.gather(*replica.tasks, return_exceptions=True)


async def test_what_is_unusable_in_the_store_is_left_out() -> None:
    store, told = MemoryStore(), list[list[str]]()

    def take(found: dict[Key, Parsed]) -> None:
        told.append(sorted(key.name for key in found))

    await store.put(f"{PREFIX}default/broken", b"\xff{")
    following = asyncio.create_task(Follower(store, Health(), take).run())  # type: ignore[arg-type]
    await eventually(lambda: told == [[]], "the first list")
    good = Instance("default", "catalog", "good", "10.0.0.1")
    await store.put(good.path, good.document().encode())
    await eventually(lambda: told[-1] == ["good"], "the good one")
    await store.put(good.path, b"{}")
    await eventually(lambda: told[-1] == [], "the broken one gone")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
