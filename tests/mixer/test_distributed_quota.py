"""A distributed quota (`memquota` with `distributed: true`) holds its limit exactly, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import servers
from check_servers import engine_of
from mixers import Mixer
from rule_documents import quota

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core.clock import ManualClock
from meshwright.core.health import Health
from meshwright.core.store import MemoryStore
from meshwright.dataplane.policy import Engine, Want
from meshwright.mixer import check
from meshwright.mixer.config.adapters import MemQuota
from meshwright.mixer.quota.leases import PREFIX, QuotaLeases
from pki import Pki

pytestmark = pytest.mark.timeout(150)  # processes start slowly on a busy machine

LIMIT, SERVICES, CALLERS = 60, 4, 12


class Cluster:
    """Two replicas on one etcd, all of which may be killed."""

    def __init__(self, etcd: Any, mixers: list[Mixer], channels: list[Any]) -> None:
        self.etcd, self.mixers, self.channels = etcd, mixers, channels
        self.granted: Counter[str] = Counter()
        self.lost = 0

    async def ask(self, service: str, replica: int) -> bool | None:
        """Whether one was granted; None: the replica gave no answer."""
        message = check.request({"destination.service.name": service}, {"requestcount": 1})
        try:
            response = await check.check(self.channels[replica], message, timeout=10)
        except grpc.aio.AioRpcError:
            self.lost += 1
            return None
        granted = response.quotas["requestcount"].granted_amount
        self.granted[service] += granted
        return granted > 0


@pytest.fixture
async def cluster(tmp_path: Path, pki: Pki) -> AsyncIterator[Cluster]:
    infrastructure = servers.InfrastructurePki()
    etcd = servers.etcd(tmp_path / "etcd", infrastructure)
    etcd.start()
    tls = infrastructure.write(tmp_path / "client", "root")
    store = ("--etcd", etcd.address, "--etcd-tls", str(tls), "--replica-ttl", "2")
    mixers = [
        Mixer(tmp_path / name, pki, "--replica", name, *store, config=tmp_path / "config") for name in ("one", "two")
    ]
    mixers[0].write("rules.yaml", quota(LIMIT, "300s", distributed=True))
    await asyncio.gather(*(mixer.start() for mixer in mixers))
    async with asyncio.timeout(30):
        for mixer in mixers:
            while await mixer.metric("meshwright_mixer_replicas") != 2:
                await asyncio.sleep(0.05)
    async with contextlib.AsyncExitStack() as stack:
        identity = pki.workload("shop")
        channels = [await stack.enter_async_context(mixer.channel(identity)) for mixer in mixers]
        yield Cluster(etcd, mixers, channels)
    for mixer in mixers:
        mixer.kill()
    etcd.kill()


async def test_the_limit_holds_while_a_replica_dies_under_load(cluster: Cluster) -> None:
    """Nothing more is granted than the limit; less only by what the dead one had leased, a fifth at most, and
    by the answers that it didn't live to give."""
    killed = False

    async def caller(number: int) -> None:
        nonlocal killed
        service, refused = f"service-{number % SERVICES}", 0
        # Until the survivor, which has all cells by then, refuses for good.
        while refused < 3:
            replica = 1 if killed else number % 2
            granted = await cluster.ask(service, replica)
            if not killed and sum(cluster.granted.values()) > LIMIT * SERVICES // 2:
                killed = True
                cluster.mixers[0].kill()
            refused = refused + 1 if killed and granted is False else 0

    async with asyncio.TaskGroup() as tasks:
        for number in range(CALLERS):
            tasks.create_task(caller(number))
    assert killed
    least = LIMIT - LIMIT // 5 - cluster.lost
    assert all(least <= cluster.granted[f"service-{number}"] <= LIMIT for number in range(SERVICES)), (
        cluster.granted,
        cluster.lost,
    )


async def test_without_the_store_the_owner_holds_the_limit(cluster: Cluster) -> None:
    """An outage of etcd refuses nobody, and the limit still holds while its owner lives."""
    cluster.etcd.kill()
    answers = await asyncio.gather(*(cluster.ask("outage", number % 2) for number in range(2 * LIMIT)))
    assert cluster.lost == 0
    assert sum(map(bool, answers)) == LIMIT
    away = [await mixer.metric("meshwright_mixer_quota_store_away_total") for mixer in cluster.mixers]
    assert sum(away) > 0


class Cells:
    """Stands for the engine's cells: wants what a test puts in, and keeps the answers."""

    def __init__(self) -> None:
        self.wants: list[Want] = []
        self.answers: dict[int, Any] = {}

    def now(self) -> int:
        return 5_000_000_000

    def wanted_leases(self, timeout: float) -> list[Want]:
        wants, self.wants = self.wants, []
        return wants

    def leased(self, cell: bytes, id_: int, lease: Any) -> None:
        self.answers[id_] = lease


async def test_leases_are_taken_from_the_store_and_ledgers_swept() -> None:
    store, cells, clock = MemoryStore(), Cells(), ManualClock()
    leases = QuotaLeases(store, cells, "one", Health(), clock)  # type: ignore[arg-type]
    other = QuotaLeases(store, cells, "two", Health(), clock)  # type: ignore[arg-type]
    second = 1_000_000_000

    def want(id_: int, amount: int, settled: list[tuple[int, int, int]] | None = None) -> Want:
        return Want(b"cell", id_, 10, 10 * second, False, amount, second, settled or [])

    async def answer(owner: QuotaLeases, asked: Want) -> None:
        """Who loses the compare-and-set pauses before it tries again."""
        task = asyncio.create_task(owner._answer(asked))
        while not task.done():
            await asyncio.sleep(0)
            await clock.advance(0.0005)

    for owner, asked in ((leases, want(1, 6)), (other, want(2, 6)), (leases, want(3, 6))):
        await answer(owner, asked)
    first, rest, none = (cells.answers[id_] for id_ in (1, 2, 3))
    assert first == (6, 6 * second, 16 * second, 16 * second)
    assert (rest.amount, none.amount) == (4, 0)
    await clock.advance(1)
    await answer(leases, want(4, 6, [(1, 1, 16 * second)]))
    assert cells.answers[4].amount == 5

    await leases.sweep_once()
    assert len((await store.list(PREFIX))[0]) == 1
    await clock.advance(20)
    await leases.sweep_once()
    assert (await store.list(PREFIX))[0] == []
    await answer(leases, want(5, 6))
    assert cells.answers[5].amount == 6


async def test_a_limit_without_a_window_cannot_be_leased() -> None:
    for window in ("0s", "0.5s"):
        with pytest.raises(ValueError, match="1s or more"):
            MemQuota.model_validate(
                {"quotas": [{"name": "a", "maxAmount": 1, "validDuration": window}], "distributed": True}
            )


async def test_an_engine_alone_grants_its_own_limit() -> None:
    """With nobody to ask the store it is as memquota without `distributed`."""
    engine: Engine = engine_of(quota(5, "60s", distributed=True))
    grants = []
    for _ in range(7):
        response = engine.check(check.request({}, {"requestcount": 1}).SerializeToString())
        grants.append(mixer_pb2.CheckResponse.FromString(response).quotas["requestcount"].granted_amount)
    assert grants == [1, 1, 1, 1, 1, 0, 0]
