"""What the native gRPC servers and channels of this process count, as metrics: in `/metrics` and by OTLP.

Names and attributes of calls are those of OpenTelemetry's conventions for RPC, translated for Prometheus as the
OpenTelemetry specification says. One decision to know: nothing is copied while calls run; the counters are read when
somebody collects.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import prometheus_client
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from meshwright.core.conventions import SERVER_FAULTS, ConventionalMetric
from meshwright.dataplane import telemetry as native

_BUCKETS = [*(f"{bound:g}" for bound in native.bounds()), "+Inf"]
_NOT_COUNTERS = ("_open", "_held")  # ends of the names of counters that fall as well


class Server(Protocol):
    """What is asked of a server; `meshwright.dataplane.grpc.NativeServer` is one."""

    @property
    def addresses(self) -> list[str]:
        """The bound addresses."""

    def stats(self) -> Mapping[str, int]:
        """Return the counters by name."""


class GrpcCollector(Collector):
    """Reads the counters. Make none: `register` keeps the process's one."""

    def __init__(self) -> None:
        self._servers: weakref.WeakSet[Server] = weakref.WeakSet()

    def add(self, server: Server) -> None:
        """Show the counters of `server` for as long as it lives."""
        self._servers.add(server)

    def collect(self) -> Iterator[Metric]:
        """Return all metrics of this moment."""
        servers, clients = native.calls("server"), native.calls("client")
        yield _durations("server", "Measures the duration of an incoming Remote Procedure Call (RPC).", servers)
        yield _durations("client", "Measures the duration of an outgoing Remote Procedure Call (RPC).", clients)
        yield from _numbers("server", servers)
        yield from _numbers("client", clients)
        yield from _stats(self._servers)


_COLLECTOR = GrpcCollector()
_REGISTRIES: weakref.WeakSet[prometheus_client.CollectorRegistry] = weakref.WeakSet()


def register(server: Server) -> None:
    """Show `server` in the metrics of this process, until it is no more."""
    _COLLECTOR.add(server)
    install()


def install(registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY) -> None:
    """Show the calls of this process's servers and channels in `registry`; once is enough."""
    if registry not in _REGISTRIES:
        _REGISTRIES.add(registry)
        registry.register(_COLLECTOR)


def _labels(calls: native.MethodCalls) -> dict[str, str]:
    labels = {"rpc_system_name": "grpc", "rpc_method": calls.method}
    if calls.address:
        host, port = native.server_of(calls.address)
        labels["server_address"] = host
        if port is not None:
            labels["server_port"] = str(port)
    return labels


_ATTRIBUTES = {
    "rpc_system_name": "rpc.system.name",
    "rpc_method": "rpc.method",
    "rpc_response_status_code": "rpc.response.status_code",
    "error_type": "error.type",
    "server_address": "server.address",
    "server_port": "server.port",
}


def _durations(side: str, text: str, methods: Iterable[native.MethodCalls]) -> Metric:
    name = f"rpc.{side}.call.duration"
    metric = ConventionalMetric(name, text, "histogram", "s", _ATTRIBUTES)
    for calls in methods:
        for ended in calls.ended:
            labels = _labels(calls) | {"rpc_response_status_code": ended.status}
            if ended.status in SERVER_FAULTS or (side == "client" and ended.status != "OK"):
                labels["error_type"] = ended.status
            _add_histogram(metric, labels, ended)
    return metric


def _add_histogram(metric: Metric, labels: dict[str, str], ended: native.StatusCalls) -> None:
    below = 0
    for bound, count, exemplar in zip(_BUCKETS, ended.counts, ended.exemplars, strict=True):
        below += count
        metric.add_sample(f"{metric.name}_bucket", labels | {"le": bound}, below, exemplar=_exemplar(exemplar))
    metric.add_sample(f"{metric.name}_count", labels, below)
    metric.add_sample(f"{metric.name}_sum", labels, ended.seconds)


def _exemplar(found: tuple[float, bytes, bytes, int] | None) -> Exemplar | None:
    if found is None:
        return None
    seconds, trace, span, at = found
    return Exemplar({"trace_id": trace.hex(), "span_id": span.hex()}, seconds, at / 1e9)


def _numbers(side: str, methods: Sequence[native.MethodCalls]) -> Iterator[Metric]:
    prefix = f"meshwright_grpc_{side}"
    started = Metric(f"{prefix}_calls_started", "Calls begun", "counter")
    active = Metric(f"{prefix}_calls_active", "Calls under way", "gauge")
    for calls in methods:
        ended = sum(sum(status.counts) for status in calls.ended)
        started.add_sample(f"{started.name}_total", _labels(calls), calls.started)
        active.add_sample(active.name, _labels(calls), calls.started - ended)
    yield started
    yield active


def _stats(servers: Iterable[Server]) -> Iterator[Metric]:
    metrics: dict[str, Metric] = {}
    for server in servers:
        address = next(iter(server.addresses), "")
        for stat, value in server.stats().items():
            if stat in ("calls_started", "calls_open"):
                continue  # told by method already
            name = f"meshwright_grpc_server_{stat}"
            is_gauge = stat.endswith(_NOT_COUNTERS)
            if name not in metrics:
                text = f"{stat.replace('_', ' ').capitalize()}, of the server at this address"
                metrics[name] = Metric(name, text, "gauge" if is_gauge else "counter")
            metrics[name].add_sample(name if is_gauge else f"{name}_total", {"server_address": address}, value)
    yield from metrics.values()
