"""A quota is one quota, however many replicas are asked: they find one another in etcd and charge one cell."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import servers
from mixers import Mixer
from rule_documents import quota

from pki import Pki

pytestmark = pytest.mark.timeout(150)  # processes start slowly on a busy machine

LIMIT = 12


@pytest.fixture
async def replicas(tmp_path: Path, pki: Pki) -> AsyncIterator[list[Mixer]]:
    """Two replicas on one etcd, with the rules in a folder."""
    infrastructure = servers.InfrastructurePki()
    etcd = servers.etcd(tmp_path / "etcd", infrastructure)
    etcd.start()
    tls = infrastructure.write(tmp_path / "client", "root")
    store = ("--etcd", etcd.address, "--etcd-tls", str(tls), "--replica-ttl", "2")
    both = [
        Mixer(tmp_path / name, pki, "--replica", name, *store, config=tmp_path / "config") for name in ("one", "two")
    ]
    both[0].write("rules.yaml", quota(LIMIT, "60s"))
    await asyncio.gather(*(mixer.start() for mixer in both))
    await asyncio.gather(*(knows(mixer, 2) for mixer in both))
    yield both
    for mixer in both:
        mixer.kill()
    etcd.kill()


async def knows(mixer: Mixer, count: int) -> None:
    async with asyncio.timeout(30):
        while await mixer.metric("meshwright_mixer_replicas") != count:
            await asyncio.sleep(0.05)


async def grants(mixers: list[Mixer], pki: Pki, service: str, asked: int) -> int:
    """How many of `asked` requests of one each are granted, asked at all the replicas in turn."""
    sidecar = pki.workload("shop")
    answers = await asyncio.gather(
        *(
            mixers[number % len(mixers)].check(sidecar, {"destination.service.name": service}, requestcount=1)
            for number in range(asked)
        )
    )
    return sum(answer["quotas"]["requestcount"]["granted"] for answer in answers)


async def test_a_limit_holds_across_replicas_and_survives_one(replicas: list[Mixer], pki: Pki) -> None:
    """Exactly the limit is granted, whichever replica owns the cell; a killed one's cells move to the other."""
    granted = [await grants(replicas, pki, f"service-{number}", 2 * LIMIT) for number in range(6)]
    assert granted == [LIMIT] * 6
    forwarded = [await mixer.metric("meshwright_mixer_quota_forwarded_total") for mixer in replicas]
    served = [await mixer.metric("meshwright_mixer_quota_served_total") for mixer in replicas]
    assert sum(forwarded) > 0
    assert sum(forwarded) == sum(served)

    replicas[0].kill()
    await knows(replicas[1], 1)
    assert await grants(replicas[1:], pki, "after", 2 * LIMIT) == LIMIT
