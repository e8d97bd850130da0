"""Shapes that SMP had before, turned into those of today; each turn leaves a note for the person.

One decision to know: a value is changed only where the old shape says what it means. The first published result has
`latencies_ms` that are in fact seconds: those are multiplied, and a result of today whose latencies are so small that
they can hardly be milliseconds is only told of.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from meshwright.core.errors import ConfigError

Note = Callable[[str], None]

_NAMES = {
    "smps_version": "smp_version",
    "endpoint_url": "endpoint_urls",
    "actual_QPS": "actual_qps",
    "testId": "test_id",
    "meshConfigId": "mesh_config_id",
    "envId": "env_id",
    "cpu_mCores": "cpu_mcores",
}
_PROTOCOLS = {"http": "PROTOCOL_HTTP", "tcp": "PROTOCOL_TCP", "udp": "PROTOCOL_UDP", "grpc": "PROTOCOL_GRPC"}
_LATENCIES = {
    "min": "min",
    "average": "average",
    "avg": "average",
    "p50": "p50",
    "p90": "p90",
    "p99": "p99",
    "max": "max",
}
_SUSPICIOUS_MS = 0.05  # nobody's slowest answer over a network takes less
_DEPTH = 64


def renamed(value: Any, note: Note, place: str = "", depth: int = 0) -> Any:
    """Return `value` with the names and enumerations of today."""
    if depth > _DEPTH:
        raise ConfigError(f"deeper than {_DEPTH} levels", field=place[:100], remedy="SMP has no such depth")
    if isinstance(value, list):
        return [renamed(item, note, f"{place}[{index}]", depth + 1) for index, item in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    fresh: dict[Any, Any] = {}
    for name, content in value.items():
        here = f"{place}.{name}" if place else str(name)
        new = _NAMES.get(name, name) if place.rpartition(".")[2] not in ("labels", "headers", "cookies") else name
        if new != name:
            if new in value:
                raise ConfigError(f"this is the old name of {new}, which is there too", field=here, remedy="keep one")
            note(f"{here}: an older name, read as {new}")
        if new == "endpoint_urls" and name == "endpoint_url":
            content = [content]
        if new == "protocol" and isinstance(content, str) and content in _PROTOCOLS:
            note(f"{here}: {content} is an older name, read as {_PROTOCOLS[content]}")
            content = _PROTOCOLS[content]
        fresh[new] = renamed(content, note, here, depth + 1)
    return fresh


def is_first_result(value: Mapping[str, Any]) -> bool:
    """Whether this is a result as the first specification had it: flat, with the client's figures in `client`."""
    return "exp_uuid" in value and "client" in value and "smp_version" not in value


def first_result(value: Mapping[str, Any], note: Note) -> dict[str, Any]:
    """Return the result in today's shape."""
    client = value.get("client")
    latencies = client.get("latencies_ms") if isinstance(client, Mapping) else None
    if not isinstance(client, Mapping) or not isinstance(latencies, Mapping):
        raise ConfigError("no latencies", field="client.latencies_ms", remedy="a result has min, average, p50 … max")
    fresh: dict[str, float] = {}
    for name, content in latencies.items():
        if name not in _LATENCIES or isinstance(content, bool) or not isinstance(content, int | float):
            raise ConfigError(
                "no latency", field=f"client.latencies_ms.{name}", remedy="min, average, p50 … with numbers"
            )
        fresh[_LATENCIES[name]] = content * 1000
    note("the shape of the first specification; its latencies_ms are seconds and were multiplied by 1000")
    labels = {
        f"first.{name}": str(content)
        for name, content in (*value.items(), *client.items())
        if isinstance(content, str | int | float) and name not in ("start_time", "end_time", "exp_uuid", "rps")
    }
    if "metrics" in value or "env" in value:
        note("metrics and env of that shape describe no field of today's result and were left out")
    rate = client.get("rps", 0)
    return {
        "id": str(value["exp_uuid"]),
        "labels": labels,
        **{name: value[name] for name in ("start_time", "end_time") if value.get(name)},
        "latencies_ms": fresh,
        "actual_qps": rate if isinstance(rate, int | float) else 0,
    }


def suspect_seconds(latencies: Any, note: Note, place: str) -> None:
    """Tell of latencies that look like seconds."""
    if 0 < latencies.max < _SUSPICIOUS_MS:
        note(
            f"{place}latencies_ms: the longest is {latencies.max:g} ms, which looks like seconds: multiply by 1000 "
            "if their writer meant seconds"
        )
