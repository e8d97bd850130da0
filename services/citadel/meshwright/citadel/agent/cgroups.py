"""Which pod's container a process is in, read from where the kubelet has put it: /proc/<pid>/cgroup.

One decision to know: only paths that begin as the kubelet's own do are believed, and the outermost pod in one decides.
A container may make groups below its own, and a user of the host below the one that systemd gave them, and name them as
they like; neither can make one above.

    0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope    systemd
    9:cpu:/kubepods/besteffort/pod<uid>/<id>                                                                  cgroupfs
    0::/../../pod<uid>/<id>                         seen from a cgroup namespace: relative to the reader's own place
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BYTES = 64 * 1024

_UID = r"(?P<uid>[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})"
# A kubelet with --cgroup-root (kind's, for one) has all of its groups below `kubelet`.
_ROOT = re.compile(r"kubelet(\.slice)?")
_KUBEPODS = re.compile(r"kubepods|(kubelet-)?kubepods\.slice")
_CLASS = re.compile(r"burstable|besteffort|(kubelet-)?kubepods-(burstable|besteffort)\.slice")
_POD = re.compile(rf"pod{_UID}|(kubelet-)?kubepods(-(burstable|besteffort))?-pod{_UID.replace('uid', 'slice')}\.slice")
_CONTAINER = re.compile(r"(?P<id>[0-9a-f]{64})|(cri-containerd|crio|docker)-(?P<scope>[0-9a-f]{64})\.scope")


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod."""

    pod_uid: str
    container_id: str


def container(text: str) -> Container | None:
    """Return the container that a process is in by its /proc/<pid>/cgroup, or None when it is in none.

    Hierarchies in which it is in no pod don't matter (the unified one of a hybrid machine); two that name different
    ones are no kubelet's work.
    """
    found = {one for line in text.splitlines() if (one := _of_path(line)) is not None}
    return found.pop() if len(found) == 1 else None


def _of_path(line: str) -> Container | None:
    # hierarchy:controllers:path; the path may hold colons itself (cgroups(7)).
    fields = line.split(":", 2)
    if len(fields) != 3 or not fields[2].startswith("/"):
        return None
    segments = fields[2][1:].split("/")
    up = 0
    while up < len(segments) and segments[up] == "..":
        up += 1
    rest = segments[up:]
    # Seen from below, the beginning of the path that both have in common is left out.
    patterns = (_ROOT, _KUBEPODS, _CLASS)
    begun = up > 0
    for index, pattern in enumerate(patterns):
        if rest and pattern.fullmatch(rest[0]):
            rest = rest[1:]
            begun = begun or index == 1
    if not begun or len(rest) < 2:
        return None
    pod, inside = _POD.fullmatch(rest[0]), _CONTAINER.fullmatch(rest[1])
    if pod is None or inside is None:
        return None
    uid = (pod["uid"] or pod["slice"]).replace("_", "-")
    return Container(uid, inside["id"] or inside["scope"])
