"""A process where a kubelet puts those of a pod: in a group of its own, as another user, in other namespaces.

The group is below /kubelet, the root of kind's kubelets, so that no kubelet of this machine takes it for a pod of its.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CONTAINER = "0123456789abcdef" * 4
SIDECAR = 1337  # its user

_WORKLOAD = """
import ctypes, json, os, pathlib, sys
import grpc, grpc._channel  # the second is imported by the first channel only, too late
from cryptography import x509
from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc
from meshwright.core import identity

# After the imports: another user, and root in a user namespace, may not read where the packages lie.
if int(sys.argv[2]):
    os.setgroups([])
    os.setresgid(*[int(sys.argv[2])] * 3)
    os.setresuid(*[int(sys.argv[2])] * 3)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE: its own entries in /proc are its own again
if sys.argv[3:] == ["user namespace"]:
    uid = os.getuid()
    if ctypes.CDLL(None).unshare(0x10000000):
        raise SystemExit(77)
    pathlib.Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
told = {"pid": os.getpid(), "uid": os.getuid()}
with grpc.insecure_channel(sys.argv[1]) as channel:
    call = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel).FetchX509SVID(
        workload_pb2.X509SVIDRequest(), metadata=(("workload.spiffe.io", "true"),), timeout=20
    )
    try:
        told["ids"] = [svid.spiffe_id for svid in next(call).svids]
        call.cancel()
    except grpc.RpcError as error:
        told["refused"] = error.details()
print(json.dumps(told))
"""


def _hierarchy() -> Path | None:
    """Return a folder in which groups of processes can be made."""
    for mount in Path("/proc/self/mounts").read_text().splitlines():
        _, folder, kind, options, *_ = mount.split()
        is_one = kind == "cgroup2" or (kind == "cgroup" and "pids" in options.split(","))
        if is_one and os.access(folder, os.W_OK):
            return Path(folder)
    return None


@contextlib.contextmanager
def group(pod_uid: str) -> Iterator[Path]:
    """Make the group of a pod's container, until the context ends; skip where that can't be had."""
    folder = _hierarchy()
    if os.getuid() != 0 or folder is None:
        pytest.skip("needs root and a cgroup hierarchy that can be written")
    made = folder / "kubelet" / "kubepods" / "besteffort" / f"pod{pod_uid}" / CONTAINER
    made.mkdir(parents=True)
    try:
        yield made
    finally:
        for each in (made, made.parent):
            each.rmdir()
        for each in (made.parents[1], made.parents[2], made.parents[3]):
            with contextlib.suppress(OSError):  # another test's pod is in it
                each.rmdir()


def run(
    group: Path | None, socket: str, *, namespaces: bool = False, user_namespace: bool = False
) -> dict[str, object]:
    """Run a workload in the group, and return what it was told; as a sidecar's user in namespaces of its own.

    In a user namespace it believes itself to be root.
    """
    user = SIDECAR if namespaces else 0
    command = [sys.executable, "-c", _WORKLOAD, socket, str(user), *(["user namespace"] if user_namespace else [])]
    if namespaces:
        if not shutil.which("unshare"):
            pytest.skip("needs unshare(1)")
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--ipc", "--uts", *command]
    if group is not None:
        command = ["sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(group), *command]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50, check=False)
    if done.returncode == 77:
        pytest.skip("needs unprivileged user namespaces")
    assert done.returncode == 0, done.stderr
    told: dict[str, object] = json.loads(done.stdout)
    return told
