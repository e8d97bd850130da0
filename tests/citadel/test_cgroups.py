"""Which pod a process is in, from /proc/<pid>/cgroup: what kubelets write is understood, what others write isn't."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.citadel.agent import cgroups
from meshwright.citadel.agent.cgroups import Container

UID = "a1b2c3d4-0001-4002-8003-00000000abcd"
OTHER = "ffffffff-0001-4002-8003-00000000abcd"
ID = "0123456789abcdef" * 4
SYSTEMD = UID.replace("-", "_")
HERE = Container(UID, ID)

# How kubelets of different drivers and runtimes write it; seen on Kubernetes 1.34 with containerd (cgroupfs, v1), the
# others after the kubelet's own naming (pkg/kubelet/cm).
WRITTEN = {
    "cgroupfs, guaranteed": f"/kubepods/pod{UID}/{ID}",
    "cgroupfs, burstable": f"/kubepods/burstable/pod{UID}/{ID}",
    "cgroupfs, best effort": f"/kubepods/besteffort/pod{UID}/{ID}",
    "systemd, guaranteed": f"/kubepods.slice/kubepods-pod{SYSTEMD}.slice/cri-containerd-{ID}.scope",
    "systemd, burstable": f"/kubepods.slice/kubepods-burstable.slice/"
    f"kubepods-burstable-pod{SYSTEMD}.slice/crio-{ID}.scope",
    "kind": f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/"
    f"kubelet-kubepods-besteffort-pod{SYSTEMD}.slice/cri-containerd-{ID}.scope",
    "cgroup root": f"/kubelet/kubepods/burstable/pod{UID}/{ID}",
    "from a neighbour": f"/../../pod{UID}/{ID}",
    "from another class": f"/../../../burstable/pod{UID}/{ID}",
    "from a service": f"/../../kubepods/burstable/pod{UID}/{ID}",
    "a group of the container's own": f"/kubepods/pod{UID}/{ID}/kubepods/pod{OTHER}/{ID}",
    "a group below, by systemd": f"/kubepods/pod{UID}/{ID}/init.scope",
}


@pytest.mark.parametrize("path", WRITTEN.values(), ids=WRITTEN.keys())
def test_what_a_kubelet_writes_is_understood(path: str) -> None:
    assert cgroups.container(f"0::{path}\n") == HERE


def test_the_kubelets_root_is_where_the_agents_own_pod_is() -> None:
    """A kubelet with --cgroup-root; what begins elsewhere is another kubelet's, or nobody's."""
    root = cgroups.root(f"9:cpu:/\n8:pids:/nodes/one/kubepods/burstable/pod{OTHER}/{ID}\n")
    assert root == ("nodes", "one")
    assert cgroups.container(f"8:pids:/nodes/one/kubepods/besteffort/pod{UID}/{ID}", root) == HERE
    for path in (
        f"/nodes/two/kubepods/besteffort/pod{UID}/{ID}",
        f"/kubepods/besteffort/pod{UID}/{ID}",
        f"/kubelet/kubepods/besteffort/pod{UID}/{ID}",
        f"/nodes/one/pod{UID}/{ID}",
    ):
        assert cgroups.container(f"8:pids:{path}", root) is None, path
    assert cgroups.root("0::/\n") is None
    assert cgroups.root(f"0::/kubepods.slice/kubepods-pod{SYSTEMD}.slice/cri-containerd-{ID}.scope") == ()
    assert cgroups.container(f"0::/kubepods/pod{UID}/{ID}", ()) == HERE
    assert cgroups.container(f"0::/kubelet/kubepods/pod{UID}/{ID}", ()) is None


def test_all_hierarchies_of_a_hybrid_machine_say_the_same() -> None:
    pod = f"/kubepods/besteffort/pod{UID}/{ID}"
    text = f"12:pids:{pod}\n11:cpu,cpuacct:{pod}\n1:name=systemd:{pod}\n0::/\n"
    assert cgroups.container(text) == HERE
    assert cgroups.container(text + f"3:memory:/kubepods/besteffort/pod{OTHER}/{ID}\n") is None, "two pods are none"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/user.slice/user-1000.slice/session-1.scope",
        f"/user.slice/user-1000.slice/user@1000.service/kubepods.slice/kubepods-pod{SYSTEMD}.slice/cri-containerd-{ID}.scope",
        f"/user.slice/kubepods/pod{UID}/{ID}",
        f"/../../user.slice/pod{UID}/{ID}",
        f"/pod{UID}/{ID}",
        f"/burstable/pod{UID}/{ID}",
        f"/kubelet/pod{UID}/{ID}",
        f"/docker/{ID}/kubepods/pod{UID}/{ID}",
        f"/kubepods/pod{UID}",
        f"/kubepods/pod{UID}/{ID[:63]}",
        f"/kubepods/pod{UID}/{ID}.scope",
        f"/kubepods/pod{UID[:-1]}/{ID}",
        f"/kubepods/pod{UID.upper()}/{ID}",
        f"/kubepods/besteffort/burstable/pod{UID}/{ID}",
        f"kubepods/pod{UID}/{ID}",
    ],
)
def test_what_others_can_write_is_not(path: str) -> None:
    """A user of the host may name the groups below its own as it likes."""
    assert cgroups.container(f"0::{path}\n") is None


segments = st.one_of(
    st.sampled_from(
        [f"pod{UID}", f"pod{OTHER}", ID, "kubepods", "burstable", "kubelet", "..", "user.slice", "", "x:y"]
    ),
    st.text(max_size=20),
)


@given(st.lists(st.lists(segments, max_size=8), max_size=4))
def test_any_text_is_read(paths: list[list[str]]) -> None:
    """Nothing raises, and what is found is the outermost pod of a path that begins as a kubelet's."""
    text = "\n".join(f"{number}:any:/{'/'.join(path)}" for number, path in enumerate(paths))
    found = cgroups.container(text)
    if found is not None:
        begin = r"(\.\./)*(kubelet/)?(kubepods/)?(burstable/|besteffort/)?"
        whole = rf"\d+:any:/{begin}pod{found.pod_uid}/{found.container_id}(/.*)?"
        line = next(line for line in text.splitlines() if re.fullmatch(whole, line))
        assert line.split(":", 2)[2].startswith(("/..", "/kubepods", "/kubelet/kubepods"))


@given(st.binary(max_size=400))
def test_any_bytes_are_read(data: bytes) -> None:
    assert cgroups.container(data.decode("utf-8", "replace")) is None


@given(st.lists(segments, max_size=6))
def test_nobody_below_changes_what_is_above(below: list[str]) -> None:
    path = "/".join([f"/kubepods/burstable/pod{UID}/{ID}", *(part.replace("\n", "") for part in below)])
    path = "".join(path.splitlines())
    assert cgroups.container(f"0::{path}") == HERE
