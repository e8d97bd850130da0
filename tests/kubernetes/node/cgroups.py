"""The control groups below which a node's pods are, in each hierarchy that the machine has (version 1, 2 or both)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def begin(name: str) -> None:
    """Make the group, with every controller."""
    for top in _hierarchies():
        (top / name).mkdir(exist_ok=True)
        controllers = top / "cgroup.controllers"
        if controllers.exists():
            wanted = " ".join(f"+{each}" for each in controllers.read_text().split())
            (top / "cgroup.subtree_control").write_text(wanted)
            (top / name / "cgroup.subtree_control").write_text(wanted)


def end(name: str) -> None:
    """Remove the group and those below it, whose processes have ended."""
    for top in _hierarchies():
        for folder, _, _ in os.walk(top / name, topdown=False):
            with contextlib.suppress(FileNotFoundError):
                Path(folder).rmdir()


def _hierarchies() -> Iterator[Path]:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, *_ = line.split()
        if kind in ("cgroup", "cgroup2"):
            yield Path(where)
