"""A one-node cluster: everything in start order, and the two clients that talk to it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from tests import box
from tests.box import Box
from tests.kubernetes import build
from tests.kubernetes.node import certificates, cgroups, control_plane, kubelet, names, network, runtime
from tests.kubernetes.node.place import NAME, Place

FOLDER = build.FOLDER / "node"
# Of the folder, what a next node on it would take for its own.
STATE = ("pki", "lib", "log")


def missing() -> str | None:
    """Return why this machine can have no node, or None."""
    if reason := box.missing("containerd", "runc", "ctr", "nft"):
        return reason
    if not (Path(runtime.PLUGINS) / "bridge").exists():
        return f"the CNI plugins aren't in {runtime.PLUGINS} (Debian: containernetworking-plugins)"
    return None


class Cluster:
    """A cluster under way."""

    def __init__(self, place: Place, box: Box) -> None:
        self.place, self.box = place, box

    @classmethod
    def begin(cls, folder: Path = FOLDER, *, outlive: bool = False) -> Cluster:
        """Bring a new cluster up, after what one in the same folder may have left."""
        place = Place(folder, build.build())
        cls.end_at(folder)
        folder.mkdir(parents=True, exist_ok=True)
        certificates.write(place)
        cgroups.begin(place.cgroup)
        self = cls(place, Box.begin(folder, outlive=outlive))
        try:
            self._begin()
        except BaseException:
            self.box.end()
            raise
        return self

    @classmethod
    def at(cls, folder: Path = FOLDER) -> Cluster | None:
        """Return the cluster that goes on in a folder."""
        found = Box.at(folder)
        return cls(Place(folder, build.BIN), found) if found else None

    @classmethod
    def end_at(cls, folder: Path = FOLDER) -> None:
        """End the cluster in a folder, if one goes on, and remove what it kept except its logs."""
        Box.end_at(folder)
        cgroups.end(Place(folder, build.BIN).cgroup)
        for name in STATE:
            shutil.rmtree(folder / name, ignore_errors=True)

    def end(self) -> None:
        """End it."""
        self.box.end()
        self.end_at(self.place.folder)

    def kubectl(self, *words: object, text: str | None = None, seconds: float = 60) -> str:
        """Run kubectl as administrator and return what it printed."""
        return self.box.run(*self.kubectl_command(*words), text=text, seconds=seconds)

    def kubectl_command(self, *words: object) -> list[object]:
        """Return the words of a kubectl command, to be run in the box."""
        return [self.place.program("kubectl"), f"--kubeconfig={self.place.kubeconfig('admin')}", *words]

    def get(self, *words: object) -> Any:
        """Return an object or a list of the cluster."""
        return json.loads(self.kubectl("get", *words, "--output=json"))

    def helm(self, *words: object, seconds: float = 300) -> str:
        """Run Helm as administrator and return what it printed; its own state stays in the folder."""
        return self.box.run(*self.helm_command(*words), seconds=seconds)

    def helm_command(self, *words: object) -> list[object]:
        """Return the words of a helm command, to be run in the box."""
        own = [f"HELM_{kind}_HOME={self.place.folder / 'helm'}" for kind in ("CACHE", "CONFIG", "DATA")]
        words = (self.place.program("helm"), f"--kubeconfig={self.place.kubeconfig('admin')}", *words)
        return ["env", *own, *words]

    def load(self, images: Path) -> None:
        """Give the node images of a file as `docker save` writes it."""
        runtime.load(self.box, images)

    def _begin(self) -> None:
        place, node = self.place, self.box
        network.begin(node)
        runtime.begin(node, place)
        control_plane.begin_api(node, place)
        runtime.ready(node)
        runtime.add_pause(node, place, box.pause())
        node.ready("kube-apiserver", lambda: self.kubectl("get", "--raw=/readyz").strip() == "ok", 120)
        control_plane.begin_controllers(node, place)
        kubelet.begin(node, place)
        names.begin(node, place)
        node.ready("kubelet", self._ready, 120)
        node.ready("kube-controller-manager", lambda: self.kubectl("get", "serviceaccount", "default", "--output=name"))
        node.ready("kube-proxy", lambda: node.run("nft", "list", "table", "ip", "kube-proxy"))
        node.ready("coredns", lambda: node.run(sys.executable, "-c", names.QUERY))

    def _ready(self) -> bool:
        conditions = self.get("node", NAME)["status"]["conditions"]
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
