"""The running mesh as SMP describes it: what its parts cost during a test, and what they say of themselves.

One decision to know: everything is asked of whoever does it. Costs come from the kernel, decisions from mixer, times to
acknowledgement from the manager, and whether there is mutual TLS from the listeners that sidecars have in force. What
nobody says is left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from meshwright.api.smp import smp_pb2 as smp
from meshwright.core import errors, identity
from meshwright.manager.client import Client
from meshwright.platform.perf import processes
from meshwright.platform.perf.smp import documents
from meshwright.platform.up import state
from meshwright.platform.up.layout import Layout

_ANSWER_SECONDS = 5.0
_SIDECAR = " sidecar"
_CONTROL = ("manager", "citadel", "citadel-agent", "nsm-registry", "nsmgr", "etcd", "nats")
_TELEMETRY = ("collector",)
_FORWARDER = "forwarder"

Values = Mapping[tuple[str, str], float]
"""Samples by name and by the one label that matters here."""


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the mesh."""

    when: float
    costs: Mapping[str, processes.Cost]
    metrics: Mapping[str, Values]  # by part
    requests: float  # that sidecars have taken from the mesh


@dataclass(frozen=True, slots=True)
class Proxies:
    """What the sidecars say of themselves."""

    mtls: bool = False
    policy: bool = False
    telemetry: bool = False
    concurrency: int = 0
    build: str = ""


@dataclass(frozen=True, slots=True)
class RunningMesh:
    """The mesh that `meshwright up` or `demo` runs on a data directory."""

    layout: Layout
    parts: Sequence[Mapping[str, Any]] = field(repr=False)

    @classmethod
    def find(cls, data: Path) -> RunningMesh | None:
        """Return the mesh that runs on `data`, if one does."""
        layout = Layout(data.expanduser().absolute())
        content = state.read(layout)
        return cls(layout, content["parts"]) if content else None

    @property
    def admin(self) -> identity.FileIdentity:
        """The administrator's identity."""
        return identity.FileIdentity(self.layout.admin)

    def address(self, part: str) -> str:
        """A part's first TCP address."""
        ports = next(found["ports"] for found in self.parts if found["name"] == part)
        return f"127.0.0.1:{next(iter(ports.values()))}"

    @property
    def mixers(self) -> list[str]:
        """Names of mixer's replicas."""
        return [part["name"] for part in self.parts if part["name"].split("-")[0] == "mixer"]

    @property
    def sidecars(self) -> list[str]:
        """Names of the workloads that have a sidecar."""
        return [part["name"].removesuffix(_SIDECAR) for part in self.parts if part["name"].endswith(_SIDECAR)]

    def pids(self, names: Sequence[str]) -> list[int | None]:
        """The processes of parts."""
        by_name = {part["name"]: part["pid"] for part in self.parts}
        return [by_name.get(name) for name in names]

    async def look(self) -> Look:
        """Look at everything that changes."""
        reporting = [*self.mixers, "manager"]
        metrics = await asyncio.gather(*(self._metrics(part) for part in reporting))
        requests = await asyncio.gather(*(self._requests(name) for name in self.sidecars))
        return Look(
            time.monotonic(),
            {part["name"]: processes.cost(part["pid"]) for part in self.parts},
            dict(zip(reporting, metrics, strict=True)),
            sum(requests),
        )

    async def describe(self, before: Look, after: Look) -> smp.ServiceMeshConfig:
        """Fill SMP's ServiceMeshConfig for the time between two looks."""
        proxies = await self._proxies()
        config = smp.ServiceMeshConfig(
            smp_version=documents.VERSION,
            mesh_policy_enabled=proxies.policy,
            mesh_telemetry_enabled=proxies.telemetry,
            mtls_enabled=proxies.mtls,
            proxy_concurrency=proxies.concurrency,
            mesh_build=_version(),
            proxy_build=proxies.build,
        )
        config.mesh_type.version = _version()
        config.mesh_type.labels["name"] = "meshwright"  # SMP's list of meshes doesn't have it
        seconds = max(after.when - before.when, 1e-9)
        self._cost(config.sidecar, [f"{name}{_SIDECAR}" for name in self.sidecars], before, after)
        self._cost(config.mesh_policy, self.mixers, before, after)
        self._cost(config.mesh_telemetry, _TELEMETRY, before, after)
        self._cost(config.mesh_control_plane, _CONTROL, before, after)
        config.sidecar.rps = round(max(0.0, after.requests - before.requests) / seconds)
        self._describe_policy(config, before, after, seconds)
        self._describe_pushes(config, before, after)
        await self._describe_objects(config)
        return config

    def environment(self, before: Look, after: Look, endpoint: str) -> smp.EnvironmentConfig:
        """Fill SMP's EnvironmentConfig."""
        found = environment(endpoint)
        seconds = max(after.when - before.when, 1e-9)
        for name in self.sidecars:
            early, late = before.costs.get(name, processes.Cost()), after.costs.get(name, processes.Cost())
            found.individual_workloads.add(
                name=name,
                count=1,
                cpu_mcores=round(processes.spent([early], [late]) / seconds * 1000),
                mem_mb=round(late.memory_mb),
            )
        return found

    def _cost(self, message: Any, names: Sequence[str], before: Look, after: Look) -> None:
        there = [name for name in names if name in after.costs and name in before.costs]
        seconds = max(after.when - before.when, 1e-9)
        cpu = processes.spent([before.costs[name] for name in there], [after.costs[name] for name in there])
        message.count = len(there)
        message.cpu_mcores = round(cpu / seconds * 1000)
        message.mem_mb = round(sum(after.costs[name].memory_mb for name in there))

    def _describe_policy(self, config: smp.ServiceMeshConfig, before: Look, after: Look, seconds: float) -> None:
        """The share of decisions that were answered from a cache, in per cent; a client tells mixer of its own."""
        asked, cached = (
            sum(_increase(before.metrics[name], after.metrics[name], metric) for name in self.mixers)
            for metric in ("meshwright_mixer_checks_total", "meshwright_mixer_checks_cached_total")
        )
        config.mesh_policy.rps = round((asked + cached) / seconds)
        config.mesh_policy.cache_hit_rate = round(100 * cached / (asked + cached)) if asked + cached else 0
        config.labels["mesh_policy.decisions"] = str(round(asked + cached))

    def _describe_pushes(self, config: smp.ServiceMeshConfig, before: Look, after: Look) -> None:
        """Mean time to acknowledgement of changes during the test, or if there were none of all since its start."""
        for kind, name in (("Listener", "lds_latency_ms"), ("Cluster", "cds_latency_ms")):
            early, late = before.metrics["manager"], after.metrics["manager"]
            count, total = (
                _increase(early, late, f"meshwright_manager_acknowledged_seconds_{what}", kind)
                for what in ("count", "sum")
            )
            when = "during the test"
            if not count:
                count, total = (
                    late.get((f"meshwright_manager_acknowledged_seconds_{what}", kind), 0.0)
                    for what in ("count", "sum")
                )
                when = "since the manager's start"
            if count:
                # A latency is more than nothing, and SMP has whole milliseconds.
                setattr(config.mesh_control_plane, name, max(1, round(1000 * total / count)))
                config.labels[f"mesh_control_plane.{name}"] = f"mean of {count:.0f} changes {when}"

    async def _describe_objects(self, config: smp.ServiceMeshConfig) -> None:
        admin = self.admin
        async with Client(
            self.address("manager"), admin, trust_domain=admin.current().trust_domain, timeout=_ANSWER_SECONDS
        ) as client:
            objects, _ = await client.list()
            status = await client.status()
        kinds = [found.key.kind for found in objects]
        plane = config.mesh_control_plane
        plane.services = kinds.count("Service")
        plane.endpoints = kinds.count("WorkloadEntry")
        plane.virtual_services = kinds.count("VirtualService")
        plane.destination_rules = kinds.count("DestinationRule")
        plane.sidecars = len(status.proxies)

    async def _metrics(self, part: str) -> Values:
        status, body = await self._get(self.layout.health_socket(part), "/metrics")
        if status != 200:
            raise errors.Unavailable(f"{part} gives no metrics: HTTP status {status}")
        return {
            (sample.name, next(iter(sample.labels.values()), "")): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
            if sample.name.startswith("meshwright_")
        }

    async def _requests(self, sidecar: str) -> float:
        path = r"/stats?usedonly&filter=^http\.inbound_.*downstream_rq_total$"
        _, body = await self._get(self.layout.socket(f"{sidecar}-envoy"), path)
        return sum(float(line.rpartition(b": ")[2]) for line in body.splitlines() if b": " in line)

    async def _proxies(self) -> Proxies:
        """Whatever is said of a mesh must hold for all of its sidecars."""
        found = await asyncio.gather(*(self._proxy(name) for name in self.sidecars))
        if not found:
            return Proxies()
        return Proxies(
            mtls=all(proxy.mtls for proxy in found),
            policy=all(proxy.policy for proxy in found),
            telemetry=all(proxy.telemetry for proxy in found),
            concurrency=max(proxy.concurrency for proxy in found),
            build=found[0].build,
        )

    async def _proxy(self, name: str) -> Proxies:
        socket = self.layout.socket(f"{name}-envoy")
        _, body = await self._get(socket, "/server_info")
        info = json.loads(body)
        _, body = await self._get(socket, "/config_dump?resource=dynamic_listeners")
        active = [found.get("active_state", {}).get("listener", {}) for found in json.loads(body).get("configs", [])]
        chains = [
            chain
            for listener in active
            if listener.get("traffic_direction") == "INBOUND"
            for chain in listener["filter_chains"]
        ]
        managers = [filter_["typed_config"] for chain in chains for filter_ in chain["filters"]]
        return Proxies(
            mtls=bool(chains) and all(_wants_certificate(chain) for chain in chains),
            policy=bool(managers) and all(_asks_policy(manager) for manager in managers),
            telemetry=bool(managers) and all(manager.get("access_log") for manager in managers),
            concurrency=int(info.get("command_line_options", {}).get("concurrency", 0)),
            build=str(info.get("version", "")),
        )

    async def _get(self, socket: Path, path: str) -> tuple[int, bytes]:
        transport = httpx.AsyncHTTPTransport(uds=str(socket))
        try:
            async with httpx.AsyncClient(transport=transport, timeout=_ANSWER_SECONDS) as client:
                answer = await client.get(f"http://localhost{path}")
                return answer.status_code, answer.content
        except httpx.HTTPError as error:
            raise errors.Unavailable(f"{socket.name} doesn't answer: is `meshwright up` healthy? ({error})") from error


def environment(endpoint: str) -> smp.EnvironmentConfig:
    """Return what is known of the machine without any mesh."""
    pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    found = smp.EnvironmentConfig(smp_version=documents.VERSION)
    found.nodes.add(
        type=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=os.cpu_count() or 0,
        mem_mb=pages * size >> 20,
    )
    found.traffic_metadata.host_endpoint = endpoint
    found.traffic_metadata.user_agent = f"meshwright/{_version()}"
    return found


def _wants_certificate(chain: Mapping[str, Any]) -> bool:
    return chain.get("transport_socket", {}).get("typed_config", {}).get("require_client_certificate") is True


def _asks_policy(manager: Mapping[str, Any]) -> bool:
    return any(filter_["name"] == "envoy.filters.http.ext_authz" for filter_ in manager.get("http_filters", []))


def _increase(before: Values, after: Values, name: str, label: str | None = None) -> float:
    """How much a counter grew, over all its labels when none is named; one that began anew counts from there."""
    keys = [key for key in after if key[0] == name and label in (None, key[1])]
    return sum(after[key] - (before.get(key, 0.0) if before.get(key, 0.0) <= after[key] else 0.0) for key in keys)


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("meshwright")
