"""Two runs side by side: what differs, by which factor, and why they may not be comparable."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from meshwright.api.smp import smp_pb2 as smp
from meshwright.core.errors import ConfigError
from meshwright.platform.perf.results import Stored

_LATENCIES = ("min", "average", "p50", "p90", "p99", "max")
_CONDITIONS = {
    "load_generator": "load generators",
    "duration_s": "durations",
    "loop": "loops (open or closed)",
    "connections": "numbers of connections",
    "requested_qps": "requested rates",
}
_MESH = (
    ("sidecars' CPU (mcores)", "sidecar", "cpu_mcores"),
    ("sidecars' memory (MB)", "sidecar", "mem_mb"),
    ("policy's CPU (mcores)", "mesh_policy", "cpu_mcores"),
    ("policy's cache hit rate (%)", "mesh_policy", "cache_hit_rate"),
    ("control plane's CPU (mcores)", "mesh_control_plane", "cpu_mcores"),
    ("LDS latency (ms)", "mesh_control_plane", "lds_latency_ms"),
    ("CDS latency (ms)", "mesh_control_plane", "cds_latency_ms"),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of both runs."""

    what: str
    one: float
    other: float

    @property
    def ratio(self) -> float | None:
        """The other's over the one's."""
        return self.other / self.one if self.one else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Rows for each pair of results, and warnings."""

    pairs: tuple[tuple[str, tuple[Row, ...]], ...]
    mesh: tuple[Row, ...]
    warnings: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""

        def rows(found: tuple[Row, ...]) -> list[dict[str, Any]]:
            return [{"what": row.what, "one": row.one, "other": row.other, "ratio": row.ratio} for row in found]

        return {
            "pairs": [{"name": name, "figures": rows(found)} for name, found in self.pairs],
            "mesh": rows(self.mesh),
            "warnings": list(self.warnings),
        }


def compare(one: Stored, other: Stored) -> Comparison:
    """Compare the results of two runs in their order."""
    warnings = [f"{stored.name}: {note}" for stored in (one, other) for note in stored.measured.notes]
    first, second = one.measured.results, other.measured.results
    if len(first) != len(second):
        warnings.append(f"{one.name} has {len(first)} results and {other.name} {len(second)}: the first are compared")
    pairs = []
    for mine, yours in zip(first, second, strict=False):
        pairs.append((_title(mine), tuple(_rows(mine, yours))))
        warnings += _differences(mine, yours)
    mesh: tuple[Row, ...] = ()
    if one.measured.mesh_config and other.measured.mesh_config:
        mesh = tuple(_mesh_rows(one.measured.mesh_config, other.measured.mesh_config))
    return Comparison(tuple(pairs), mesh, tuple(dict.fromkeys(warnings)))


def _rows(mine: smp.PerformanceTestResult, yours: smp.PerformanceTestResult) -> Iterator[Row]:
    yield Row("requests a second", mine.actual_qps, yours.actual_qps)
    for name in _LATENCIES:
        yield Row(f"latency {name} (ms)", getattr(mine.latencies_ms, name), getattr(yours.latencies_ms, name))
    for label in ("latency_ms.p99.9", "unsent"):
        values = [_number(result, label) for result in (mine, yours)]
        if values[0] is not None and values[1] is not None:
            name = "latency p99.9 (ms)" if label != "unsent" else "requests not sent in time"
            yield Row(name, values[0], values[1])
    bad = [_bad(result) for result in (mine, yours)]
    if bad[0] is not None and bad[1] is not None:
        yield Row("requests that failed", bad[0], bad[1])


def _mesh_rows(mine: smp.ServiceMeshConfig, yours: smp.ServiceMeshConfig) -> Iterator[Row]:
    for what, part, name in _MESH:
        values = [float(getattr(getattr(config, part), name)) for config in (mine, yours)]
        if any(values):
            yield Row(what, values[0], values[1])


def _differences(mine: smp.PerformanceTestResult, yours: smp.PerformanceTestResult) -> Iterator[str]:
    for label, what in _CONDITIONS.items():
        values = [result.labels.get(label, "unknown") for result in (mine, yours)]
        if values[0] != values[1]:
            yield f"{what} differ ({values[0]} and {values[1]}): the figures may not be comparable"


def _title(result: smp.PerformanceTestResult) -> str:
    return result.labels.get("url") or result.labels.get("name") or result.id


def _number(result: smp.PerformanceTestResult, label: str) -> float | None:
    try:
        return float(result.labels[label]) if label in result.labels else None
    except ValueError as error:
        raise ConfigError(f"{result.labels[label]!r} is no number", field=f"labels.{label}") from error


def _bad(result: smp.PerformanceTestResult) -> float | None:
    requests, good = _number(result, "requests"), _number(result, "good")
    return requests - good if requests is not None and good is not None else None
