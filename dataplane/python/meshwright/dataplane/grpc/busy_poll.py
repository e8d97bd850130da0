"""How long the io threads poll before they sleep, where nobody says: not at all where CPU time is rationed.

One decision to know: a container that has used up its share of a period stands still until the next one, which costs
its callers far more than a core's waking; so a CPU quota switches polling off, and only a given value turns it on.
"""

from __future__ import annotations

import math
from pathlib import Path

UNLIMITED_SECONDS = 100e-6
"""Longer than a caller on the same host needs from an answer to its next call, its core's waking included; shorter than
most pauses of callers that do something else in between. Linux polls up to 200 µs for its guests (halt_poll_ns)."""


def seconds(given: float | None, *, root: Path = Path("/")) -> float:
    """Return what to poll for: what was given, else the default. ValueError for what can't be meant."""
    if given is None:
        return 0.0 if has_quota(root) else UNLIMITED_SECONDS
    if not 0 <= given <= 0.01 or math.isnan(given):
        raise ValueError(f"busy_poll_seconds must be 0 (never) to 0.01, not {given}: a thread that polls uses a core")
    return given


def has_quota(root: Path = Path("/")) -> bool:
    """Return whether a cgroup above this process, of either version, has a CPU quota (Linux, cgroup-v2, "cpu.max")."""
    groups = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return False
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            top, name, none = groups, "cpu.max", "max"
        elif "cpu" in controllers.split(","):
            top, name, none = groups / "cpu", "cpu.cfs_quota_us", "-1"
        else:
            continue
        # In a container the path may be the host's and not be there; its own group is then the top.
        group = top / path.lstrip("/")
        while True:
            if _first_word(group / name) not in ("", none):
                return True
            if group == top or top not in group.parents:
                break
            group = group.parent
    return False


def _first_word(file: Path) -> str:
    try:
        return file.read_text().partition(" ")[0].strip()
    except OSError:
        return ""  # the top group of a host has none
