"""Which pod's container a process is in, read from where the kubelet has put it: /proc/<pid>/cgroup.

One decision to know: only paths that begin as the kubelet's own do are believed, and the outermost pod in one decides.
A container may make groups below its own, and a user of the host below the one that systemd gave them, and name them as
they like; neither can make one above. Where the kubelet's groups begin (--cgroup-root) the agent's own path shows, as
it runs in a pod itself.

    0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/cri-containerd-<id>.scope    systemd
    9:cpu:/kubepods/besteffort/pod<uid>/<id>                                                                  cgroupfs
    0::/../../pod<uid>/<id>                         seen from a cgroup namespace: relative to the reader's own place
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_BYTES = 64 * 1024

_UID = r"(?P<uid>[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12})"
_ROOT = re.compile(r"kubelet(\.slice)?")  # kind's kubelets; for an agent that runs in no pod
_KUBEPODS = re.compile(r"kubepods|(kubelet-)?kubepods\.slice")
_CLASS = re.compile(r"burstable|besteffort|(kubelet-)?kubepods-(burstable|besteffort)\.slice")
_POD = re.compile(rf"pod{_UID}|(kubelet-)?kubepods(-(burstable|besteffort))?-pod{_UID.replace('uid', 'slice')}\.slice")
_CONTAINER = re.compile(r"(?P<id>[0-9a-f]{64})|(cri-containerd|crio|docker)-(?P<scope>[0-9a-f]{64})\.scope")


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod."""

    pod_uid: str
    container_id: str


def root(text: str) -> tuple[str, ...] | None:
    """Return the kubelet's --cgroup-root by the /proc/self/cgroup of a process in a pod; None when it is in none."""
    for line in text.splitlines():
        segments = _segments(line)
        for index, segment in enumerate(segments):
            if _KUBEPODS.fullmatch(segment):
                return tuple(segments[:index])
    return None


def container(text: str, begin: tuple[str, ...] | None = None) -> Container | None:
    """Return the container that a process is in by its /proc/<pid>/cgroup, or None when it is in none.

    `begin` is where the kubelet's groups are, as `root` told. Hierarchies in which the process is in no pod don't
    matter (the unified one of a hybrid machine); two that name different ones are no kubelet's work.
    """
    found = {one for line in text.splitlines() if (one := _of_path(_segments(line), begin)) is not None}
    return found.pop() if len(found) == 1 else None


def _segments(line: str) -> list[str]:
    # hierarchy:controllers:path; the path may hold colons itself (cgroups(7)).
    fields = line.split(":", 2)
    return fields[2][1:].split("/") if len(fields) == 3 and fields[2].startswith("/") else []


def _of_path(segments: list[str], begin: tuple[str, ...] | None) -> Container | None:
    up = 0
    while up < len(segments) and segments[up] == "..":
        up += 1
    rest = segments[up:]
    if begin and not up:
        if tuple(rest[: len(begin)]) != begin:
            return None
        rest = rest[len(begin) :]
    elif begin is None and rest and _ROOT.fullmatch(rest[0]):
        rest = rest[1:]
    # Seen from below, the beginning of the path that both have in common is left out.
    begun = up > 0
    for pattern in (_KUBEPODS, _CLASS):
        if rest and pattern.fullmatch(rest[0]):
            rest, begun = rest[1:], begun or pattern is _KUBEPODS
    if not begun or len(rest) < 2:
        return None
    pod, inside = _POD.fullmatch(rest[0]), _CONTAINER.fullmatch(rest[1])
    if pod is None or inside is None:
        return None
    uid = (pod["uid"] or pod["slice"]).replace("_", "-")
    return Container(uid, inside["id"] or inside["scope"])
