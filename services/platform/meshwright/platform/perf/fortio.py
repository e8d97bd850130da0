"""A result's details in the JSON that Fortio writes, which people have tools for."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from meshwright.dataplane.load import Found, Load


def details(load: Load, found: Found, started: datetime, label: str) -> dict[str, Any]:
    """Return Fortio's fields; durations in seconds, but ActualDuration in nanoseconds, as Fortio has them."""
    total, below = max(found.count, 1), 0
    data: list[dict[str, Any]] = []
    for start, end, count in found.buckets:
        below += count
        data.append({"Start": start, "End": end, "Percent": 100 * below / total, "Count": count})
    return {
        "RunType": "GRPC" if found.grpc else "HTTP",
        "Labels": label,
        "StartTime": started.isoformat(),
        "RequestedQPS": f"{load.rate:g}" if load.rate else "max",
        "RequestedDuration": f"{load.duration:g}s",
        "ActualQPS": found.rate,
        "ActualDuration": round(found.elapsed * 1e9),
        "NumThreads": load.connections,
        "Version": "meshwright",
        "DurationHistogram": {
            "Count": found.count,
            "Min": found.min,
            "Max": found.max,
            "Sum": found.mean * found.count,
            "Avg": found.mean,
            "StdDev": found.deviation,
            "Data": data,
            "Percentiles": [{"Percentile": share, "Value": value} for share, value in found.percentiles.items()],
        },
        "Exactly": 0,
        "RetCodes": {str(status): count for status, count in found.statuses.items()}
        | ({"-1": sum(found.failures.values())} if found.failures else {}),
        "URL": load.url,
        "SocketCount": load.connections + found.reconnects,
        "AbortOn": 0,
        "load-generator": "meshwright",
    }
