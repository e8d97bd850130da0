"""A performance test on a real mesh: its result has the mesh's part, and each figure follows its cause."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from meshwright_up import free_base_port

from meshwright.api.istio.mixer.v1 import mixer_pb2, mixer_pb2_grpc
from meshwright.api.smp import smp_pb2 as smp
from meshwright.core.grpc import Channel
from meshwright.core.identity import part_id
from meshwright.mixer import check
from meshwright.platform.demo import objects
from meshwright.platform.demo.app import application
from meshwright.platform.demo.application import Application
from meshwright.platform.demo.session import Session
from meshwright.platform.demo.workloads import workloads
from meshwright.platform.perf import mesh, plan, results
from meshwright.platform.perf import run as runs
from meshwright.platform.perf.smp import documents
from meshwright.platform.up.app import Start
from meshwright.platform.up.settings import UpSettings

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(240)]

TEST = """
name: shop
duration: {seconds}s
clients:
- internal: true
  rps: 40
  connections: 4
  headers: {{host: shop}}
  endpoint_urls: ["https://127.0.0.1:{port}/"]
  additional_options: peer=spiffe://mesh.local/ns/demo/sa/shop timeout=20s
"""


async def described(running: mesh.RunningMesh, before: mesh.Look) -> smp.ServiceMeshConfig:
    return await running.describe(before, await running.look())


async def test_a_result_has_the_meshs_part_and_each_figure_follows_its_cause(data: Path) -> None:
    """Without sidecars there is no mutual TLS; with them a member's load is answered, and everything is filled in."""
    base = free_base_port()
    chain = workloads(base)
    start = Start(UpSettings(data=data, base_port=base, log_level="warning"), [one.port for one in chain])
    async with start.run() as platform:
        running = mesh.RunningMesh.find(data)
        assert running is not None
        bare = await described(running, await running.look())
        assert not bare.mtls_enabled
        assert bare.sidecar.count == 0
        assert bare.mesh_control_plane.lds_latency_ms == 0

        async with application(platform, Application(platform, chain)) as session:
            await settled(data)
            running = mesh.RunningMesh.find(data)
            assert running is not None
            await the_load_is_described(data, running, session)
            await a_clients_cache_moves_the_hit_rate(running, session)
            await a_change_of_listeners_is_timed(running, session)
            await a_slow_proxy_moves_the_latency_of_clusters(running, session)


async def settled(data: Path) -> None:
    """Wait until the state file knows the sidecars."""
    async with asyncio.timeout(20):
        while True:
            running = mesh.RunningMesh.find(data)
            if running is not None and all(running.pids([f"{name} sidecar" for name in running.sidecars] or ["none"])):
                return
            await asyncio.sleep(0.1)


async def the_load_is_described(data: Path, running: mesh.RunningMesh, session: Session) -> None:
    test = documents.read_test(TEST.format(seconds=3, port=session.workload("shop").port.number).encode(), "t.yaml")
    planned, notes = plan.planned(test.config)
    assert notes == []
    run = await runs.run(test.config, planned, running, lambda *_: None, asyncio.Event())
    stored = yaml.safe_load(results.write(data, run).read_text())
    result = json_format.ParseDict(stored["results"][0], smp.PerformanceTestResult())
    config = json_format.ParseDict(stored["mesh_config"], smp.ServiceMeshConfig())
    environment = json_format.ParseDict(stored["environment"], smp.EnvironmentConfig())
    assert int(result.labels["good"]) + int(result.labels["unsent"]) == 120
    assert int(result.labels["good"]) > 0
    assert (result.mesh_config_id, result.env_id) == (config.id, environment.id)
    assert config.mtls_enabled
    assert config.mesh_policy_enabled
    assert config.mesh_telemetry_enabled
    assert config.sidecar.count == 4
    assert config.sidecar.cpu_mcores > 0
    assert config.sidecar.mem_mb > 0
    assert config.sidecar.rps > 0
    assert config.mesh_policy.rps > 0
    assert config.mesh_policy.cache_hit_rate == 0
    assert config.mesh_control_plane.sidecars == 4
    assert config.mesh_control_plane.services == 5
    assert config.mesh_control_plane.lds_latency_ms == 0  # nothing was changed since there are proxies
    assert config.mesh_control_plane.cds_latency_ms == 0
    assert config.proxy_concurrency == 1
    assert {workload.name for workload in environment.individual_workloads} == set(running.sidecars)


async def a_clients_cache_moves_the_hit_rate(running: mesh.RunningMesh, session: Session) -> None:
    """One decision asked of mixer, three that a client had in its cache: 75 per cent."""
    before = await running.look()
    ports = session.platform.ports
    async with Channel(
        ports.mixers[0].address, session.customer.identity, peer=part_id("mesh.local", "mixer")
    ) as channel:
        await check.check(channel, check.request({"request.url_path": "/"}, {}))
        report = mixer_pb2.ReportRequest(
            repeated_attributes_semantics=mixer_pb2.ReportRequest.INDEPENDENT_ENCODING,
            attributes=[check.request({"check.cache_hit": True}).attributes for _ in range(3)],
        )
        await mixer_pb2_grpc.MixerStub(channel).Report(report, timeout=5)
    assert (await described(running, before)).mesh_policy.cache_hit_rate == 75


async def a_change_of_listeners_is_timed(running: mesh.RunningMesh, session: Session) -> None:
    """Another answer to an outage of policy is another listener; no cluster differs."""
    before = await running.look()
    workloads = session.application.workloads
    path = objects.application(session.folder, running.layout, workloads, outage="allow")
    await session.acknowledged(await session.apply_file(path))
    config = await described(running, before)
    assert config.mesh_control_plane.lds_latency_ms > 0
    assert config.mesh_control_plane.cds_latency_ms == 0


async def a_slow_proxy_moves_the_latency_of_clusters(running: mesh.RunningMesh, session: Session) -> None:
    """Of four proxies all are needed for nine tenths: one that is stopped for a second holds the change up."""
    quick = await change_clusters(running, session, "one", 0.0)
    slow = await change_clusters(running, session, "two", 1.0)
    assert slow.mesh_control_plane.cds_latency_ms >= 1000
    assert quick.mesh_control_plane.cds_latency_ms < slow.mesh_control_plane.cds_latency_ms
    assert "during the test" in slow.labels["mesh_control_plane.cds_latency_ms"]
    assert "since the manager's start" in slow.labels["mesh_control_plane.lds_latency_ms"]


async def change_clusters(
    running: mesh.RunningMesh, session: Session, name: str, stopped: float
) -> smp.ServiceMeshConfig:
    """Add a service, one sidecar being stopped meanwhile; return what the mesh says of that time."""
    before = await running.look()
    [pid] = running.pids(["stock sidecar"])
    assert pid is not None
    document: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "demo"},
        "spec": {"selector": {"app": "stock"}, "ports": [{"name": "http", "port": 80}]},
    }
    path = session.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        revision = await session.apply_file(path)
        await asyncio.sleep(stopped)  # the delay is the cause that is varied
    finally:
        os.kill(pid, signal.SIGCONT)
    await session.acknowledged(revision)
    return await described(running, before)
