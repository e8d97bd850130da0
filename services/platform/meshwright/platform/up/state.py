"""run/state.json: what runs, for programs and for `meshwright up --status`; replaced as a whole at every change."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from meshwright.platform.up import lock
from meshwright.platform.up.layout import Layout
from meshwright.platform.up.part import State, Status
from meshwright.platform.up.trust import write_private


def write(path: Path, pid: int, healthy_after: float | None, statuses: Iterable[Status]) -> None:
    """Write the state file; `healthy_after` is how many seconds the start took, None while it goes on."""
    now = time.monotonic()
    parts = [
        {
            "name": status.name,
            "state": status.state.value,
            "reason": status.reason,
            "pid": status.pid,
            "ports": {port.purpose: port.number for port in status.ports},
            "sockets": list(status.sockets),
            "restarts": status.restarts,
            "optional": status.optional,
            "uptime_seconds": round(now - status.since, 1) if status.since else None,
        }
        for status in statuses
    ]
    healthy = bool(parts) and all(part["state"] == State.HEALTHY or part["optional"] for part in parts)
    content = {"pid": pid, "healthy": healthy, "healthy_after_seconds": healthy_after, "parts": parts}
    write_private(path, json.dumps(content, indent=1).encode())


def read(layout: Layout) -> dict[str, Any] | None:
    """Return what the state file says when an `up` holds the data directory, else None."""
    pid = lock.holder(layout.data)
    if pid is None:
        return None
    try:
        content: dict[str, Any] = json.loads(layout.state.read_text())
    except (OSError, ValueError):
        return {"pid": pid, "healthy": False, "healthy_after_seconds": None, "parts": []}
    return content
