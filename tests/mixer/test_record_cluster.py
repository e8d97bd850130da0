"""Reports through three NATS servers: any of them may be killed under way, and nothing that was answered is lost."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import grpc
import pytest
import servers
from mixers import Mixer
from nats_cluster import NatsCluster
from record_platform import Platform, paths, running, unmarked

from meshwright.core import errors
from pki import Pki

pytestmark = pytest.mark.timeout(300)  # ten processes on a busy machine

REPORTERS = 4


@pytest.fixture
async def cluster(tmp_path: Path, pki: Pki) -> AsyncIterator[tuple[Platform, NatsCluster]]:
    infrastructure = servers.InfrastructurePki()
    nats = NatsCluster(tmp_path, infrastructure)
    async with running(tmp_path, pki, infrastructure, nats) as platform:
        yield platform, nats


class Flow:
    """Reporters that don't stop; `answered` are the paths of the records whose Report was answered OK."""

    def __init__(self, platform: Platform, mixer: Mixer, name: str) -> None:
        self._platform, self._mixer, self._name = platform, mixer, name
        self.answered: set[str] = set()
        self._stopping = False

    async def report(self, reporter: int) -> None:
        sidecar, number = self._platform.pki.workload("shop"), 0
        while not self._stopping:
            number += 1
            path = f"/{self._name}/{reporter}/{number}"
            with contextlib.suppress(grpc.RpcError, errors.MeshwrightError):
                await self._mixer.report(sidecar, {"request.path": path, "response.code": 200}, timeout=40)
                self.answered.add(path)

    async def grows(self, by: int = 40) -> None:
        """Return when so many more were answered."""
        goal = len(self.answered) + by
        await until(lambda: len(self.answered) >= goal)

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as reporters:
            for reporter in range(REPORTERS):
                reporters.create_task(self.report(reporter))
            try:
                yield
            finally:
                self._stopping = True


async def until(condition: Callable[[], bool], seconds: float = 90) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.05)


async def test_a_killed_leader_costs_no_record(cluster: tuple[Platform, NatsCluster]) -> None:
    """Two mixers report and deliver; the stream's leader is killed, comes back, and then the next leader is."""
    platform, nats = cluster
    one, two = (platform.mixer(name, "--record-replicas", "3") for name in ("one", "two"))
    await asyncio.gather(one.start(), two.start())
    flows = [Flow(platform, one, "one"), Flow(platform, two, "two")]
    led: list[str] = []
    async with flows[0].flowing(), flows[1].flowing():
        for _ in range(2):
            await asyncio.gather(*(flow.grows() for flow in flows))
            led.append(nats.leader())
            nats.members[led[-1]].kill()
            await until(lambda: nats.leader() not in ("", led[-1]))
            await asyncio.gather(*(flow.grows() for flow in flows))
            await asyncio.to_thread(nats.members[led[-1]].start)
    answered = flows[0].answered | flows[1].answered
    await platform.collector.until(lambda: answered <= paths(platform.collector).keys(), 90)
    assert unmarked(platform.collector) == 1
    assert [await asyncio.to_thread(mixer.stop) for mixer in (one, two)] == [0, 0]


async def test_a_leader_killed_while_the_backend_is_away_costs_no_record(cluster: tuple[Platform, NatsCluster]) -> None:
    """What adapters refused waits on the servers that are left, and comes, marked, when the backend is back."""
    platform, nats = cluster
    mixer, collector = platform.mixer("mixer", "--record-replicas", "3"), platform.collector
    await mixer.start()
    await collector.stop()
    await platform.report(mixer, 200, timeout=40)
    await mixer.until_metric("meshwright_mixer_records_returned_total", lambda value: value >= 200, 60)
    leader = nats.leader()
    nats.members[leader].kill()
    await until(lambda: nats.leader() not in ("", leader))
    await platform.report(mixer, 200, timeout=40, first=200)
    await collector.start()
    await collector.until(lambda: len(paths(collector)) == 400, 90)
    assert unmarked(collector) == 1
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_a_stream_of_one_copy_gets_three(cluster: tuple[Platform, NatsCluster]) -> None:
    """When mixer is started with more replicas than before; what is in the stream stays."""
    platform, nats = cluster
    await platform.collector.stop()
    before = platform.mixer("before")
    await before.start()
    await platform.report(before, 50, timeout=40)
    await until(lambda: nats.copies() == 1)
    assert await asyncio.to_thread(before.stop) == 0
    after = platform.mixer("after", "--record-replicas", "3")
    await asyncio.gather(after.start(), platform.collector.start())
    await until(lambda: nats.copies() == 3, 60)
    await platform.collector.until(lambda: len(paths(platform.collector)) == 50, 60)
    assert await asyncio.to_thread(after.stop) == 0


async def test_without_a_majority_reports_wait(cluster: tuple[Platform, NatsCluster]) -> None:
    """One server of three takes nothing: a Report isn't answered before a second one is back."""
    platform, nats = cluster
    mixer, collector = platform.mixer("mixer", "--record-replicas", "3"), platform.collector
    await mixer.start()
    await platform.report(mixer, 10, timeout=40)
    first, second, _ = nats.members.values()
    first.kill()
    second.kill()
    reporting = asyncio.create_task(platform.report(mixer, 50, timeout=90, first=10))
    await mixer.until(lambda health: health["parts"].get("records", {}).get("state") == "degraded", 60)
    assert not reporting.done()
    await asyncio.gather(asyncio.to_thread(first.start), asyncio.to_thread(second.start))
    await reporting
    await collector.until(lambda: len(paths(collector)) == 60, 90)
    assert unmarked(collector) == 1
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_a_clients_certificate_opens_no_route(cluster: tuple[Platform, NatsCluster]) -> None:
    """Who is a client could otherwise join the cluster, and read and write everything."""
    platform, nats = cluster

    async def talk(identity: Path) -> bytes:
        context = ssl.create_default_context(cafile=str(identity / "ca.pem"))
        context.load_cert_chain(identity / "cert.pem", identity / "key.pem")
        port = nats.routes["nats-0"]
        try:
            reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        except (ssl.SSLError, ConnectionError):
            return b""
        heard = b""
        with contextlib.closing(writer), contextlib.suppress(ssl.SSLError, ConnectionError):
            writer.write(b'CONNECT {"name":"nats-9","cluster":"meshwright"}\r\nPING\r\n')
            while (line := await reader.readline()) and not line.startswith(b"PONG"):
                heard += line
            return line or heard
        return heard

    async with asyncio.timeout(20):
        assert await talk(platform.folder / "nats-1" / "tls") == b"PONG\r\n"
        assert b"Authorization Violation" in await talk(platform.nats_tls)
