"""What the dashboard shows, asked of the parts with the administrator's identity.

One decision to know: a part that doesn't answer leaves its piece of the picture empty with the reason beside it; the
rest is drawn. Nothing is kept here: a picture is what the parts say at its moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from meshwright.api.collector.v1 import collector_pb2, collector_pb2_grpc
from meshwright.api.networkservicemesh import registry_pb2, registry_pb2_grpc
from meshwright.core import errors
from meshwright.core.grpc import Channel
from meshwright.core.identity import part_id
from meshwright.manager.answers import ProxyStatus
from meshwright.manager.client import Client
from meshwright.platform.perf import results
from meshwright.platform.up.app import Platform

_SECONDS = 3.0
_TRACES, _DECISIONS, _RUNS = 8, 12, 6
_SPANS = 60  # of one trace that are shown
_REQUESTS = "istio_requests_total"
_DECISION = "policy.check"

Picture = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Painter:
    """Asks the parts."""

    platform: Platform
    manager: Client
    collector: collector_pb2_grpc.CollectorQueryStub
    services: registry_pb2_grpc.NetworkServiceRegistryStub
    endpoints: registry_pb2_grpc.NetworkServiceEndpointRegistryStub

    async def paint(self) -> Picture:
        """Return the picture of now."""
        pieces: dict[str, Awaitable[Any]] = {
            "mesh": self._mesh(),
            "network": self._network(),
            "traces": self._traces(),
            "decisions": self._decisions(),
            "performance": asyncio.to_thread(self._performance),
        }
        found = await asyncio.gather(*map(_tried, pieces.values()))
        return {"parts": self._parts()} | {
            name: {"error": fault} if fault else {"value": value}
            for name, (value, fault) in zip(pieces, found, strict=True)
        }

    def _parts(self) -> list[Picture]:
        return [
            {"name": status.name, "state": str(status.state), "reason": status.reason, "restarts": status.restarts}
            for status in self.platform.supervisor.statuses()
        ]

    async def _mesh(self) -> Picture:
        objects, revision = await self.manager.list()
        status = await self.manager.status()
        points = await self.collector.FindMetrics(collector_pb2.FindMetricsRequest(name=_REQUESTS), timeout=_SECONDS)
        return {
            "revision": revision,
            "services": sorted(
                f"{found.key.name}.{found.key.namespace}" for found in objects if found.key.kind == "Service"
            ),
            "workloads": sorted(
                f"{found.key.name}.{found.key.namespace}" for found in objects if found.key.kind == "WorkloadEntry"
            ),
            "calls": _calls(points.points, status.proxies),
            "proxies": [
                {
                    "workload": proxy.workload,
                    "identity": proxy.spiffe_id,
                    "revision": proxy.acknowledged_revision,
                    "error": proxy.error,
                }
                for proxy in status.proxies
            ],
        }

    async def _network(self) -> list[Picture]:
        service = registry_pb2.NetworkServiceQuery(network_service=registry_pb2.NetworkService())
        endpoint = registry_pb2.NetworkServiceEndpointQuery(
            network_service_endpoint=registry_pb2.NetworkServiceEndpoint()
        )
        endpoints = [found.network_service_endpoint async for found in self.endpoints.Find(endpoint, timeout=_SECONDS)]
        return [
            {
                "name": found.network_service.name,
                "payload": found.network_service.payload,
                "endpoints": sorted(
                    one.name for one in endpoints if found.network_service.name in one.network_service_names
                ),
            }
            async for found in self.services.Find(service, timeout=_SECONDS)
        ]

    async def _traces(self) -> list[Picture]:
        request = collector_pb2.FindTracesRequest(limit=40)
        answer = await self.collector.FindTraces(request, timeout=_SECONDS)
        # The platform's own calls of one hop would push out what people look for.
        whole = sorted(answer.traces, key=lambda trace: len({span.service for span in trace.spans}) < 3)
        return [_trace(trace) for trace in whole[:_TRACES]]

    async def _decisions(self) -> list[Picture]:
        request = collector_pb2.FindTracesRequest(span_name=_DECISION, limit=_DECISIONS)
        answer = await self.collector.FindTraces(request, timeout=_SECONDS)
        found = [
            {
                "trace": trace.trace_id,
                "at": span.start_unix_nano / 1e9,
                "decision": span.attributes.get("policy.decision", ""),
                "quota": span.attributes.get("policy.quota", ""),
                "rule": span.attributes.get("policy.rule", ""),
                "subject": _subject(trace, span),
            }
            for trace in answer.traces
            for span in trace.spans
            if span.name == _DECISION
        ]
        return sorted(found, key=lambda one: -float(str(one["at"])))[:_DECISIONS]

    def _performance(self) -> list[Picture]:
        data = self.platform.layout.data
        found: list[Picture] = []
        for name in results.names(data)[:_RUNS]:
            with contextlib.suppress(errors.MeshwrightError):
                for result in results.read(data, name).measured.results:
                    latency = result.latencies_ms
                    found.append(
                        {
                            "name": name,
                            "url": result.labels.get("url", ""),
                            "rate": result.actual_qps,
                            "p50": latency.p50,
                            "p90": latency.p90,
                            "p99": latency.p99,
                            "max": latency.max,
                        }
                    )
        return found


async def _tried(work: Awaitable[Any]) -> tuple[Any, str]:
    try:
        return await work, ""
    except grpc.aio.AioRpcError as error:
        return None, f"{error.code().name}: {error.details()}"
    except errors.MeshwrightError as error:
        return None, str(error)


def _calls(points: Iterable[Any], proxies: Iterable[ProxyStatus]) -> list[Picture]:
    """Requests between workloads, over all their answers, with how many were refused or failed.

    A caller is known by its identity, which several workloads may share: then they are named together. One that has no
    proxy is named by its service account.
    """
    members: dict[str, list[str]] = {}
    for proxy in proxies:
        members.setdefault(proxy.spiffe_id, []).append(proxy.workload.partition(".")[0])
    calls: dict[tuple[tuple[str, ...], str], list[float]] = {}
    for point in points:
        name = point.attributes.get("source_workload", "unknown")
        principal = point.attributes.get("source_principal", "unknown")
        known = members.get(principal, [principal.rpartition("/")[2]]) if name == "unknown" else [name]
        source = tuple(sorted(known))
        target = point.attributes.get("destination_workload", "unknown")
        counts = calls.setdefault((source, target), [0.0, 0.0])
        counts[0] += point.value
        counts[1] += point.value if point.attributes.get("response_code", "0")[:1] in ("4", "5") else 0.0
    return [
        {"from": list(source), "to": target, "requests": counts[0], "bad": counts[1]}
        for (source, target), counts in sorted(calls.items())
    ]


def _trace(trace: Any) -> Picture:
    spans = list(trace.spans)[:_SPANS]
    known = {span.span_id for span in spans}
    began = min(span.start_unix_nano for span in spans)
    ended = max(span.end_unix_nano for span in spans)
    return {
        "id": trace.trace_id,
        "at": began / 1e9,
        "ms": (ended - began) / 1e6,
        "spans": [
            {
                "id": span.span_id,
                "parent": span.parent_span_id if span.parent_span_id in known else "",
                "name": span.name,
                "service": span.service,
                "start": (span.start_unix_nano - began) / 1e6,
                "ms": (span.end_unix_nano - span.start_unix_nano) / 1e6,
                "error": span.status == "error",
            }
            for span in spans
        ],
    }


def _subject(trace: Any, decision: Any) -> str:
    """Whose sidecar asked: the nearest span above the decision that isn't mixer's."""
    by_id = {span.span_id: span for span in trace.spans}
    span = decision
    for _ in range(len(by_id)):
        span = by_id.get(span.parent_span_id)
        if span is None:
            return ""
        if span.service != decision.service:
            return str(span.service)
    return ""


@contextlib.asynccontextmanager
async def painting(platform: Platform) -> AsyncIterator[Painter]:
    """Open the parts' APIs for the length of the context."""
    trust_domain, ports = platform.settings.trust_domain, platform.ports
    async with contextlib.AsyncExitStack() as stack:

        async def channel(part: str, address: str) -> Channel:
            return await stack.enter_async_context(Channel(address, platform.admin, peer=part_id(trust_domain, part)))

        registry = await channel("nsm-registry", ports.nsm_registry.address)
        client = Client(ports.manager.address, platform.admin, trust_domain=trust_domain, timeout=_SECONDS)
        yield Painter(
            platform,
            await stack.enter_async_context(client),
            collector_pb2_grpc.CollectorQueryStub(await channel("collector", ports.collector.address)),
            registry_pb2_grpc.NetworkServiceRegistryStub(registry),
            registry_pb2_grpc.NetworkServiceEndpointRegistryStub(registry),
        )
