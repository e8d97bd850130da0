"""containerd, and the network that it gives to pods: a bridge with addresses from one range."""

from __future__ import annotations

from pathlib import Path

from tests.box import Box
from tests.kubernetes.node import archive
from tests.kubernetes.node.place import CONTAINERD, PODS, Place

PAUSE_IMAGE = "meshwright.test/pause:1"
PLUGINS = "/usr/lib/cni"  # where Debian's containernetworking-plugins are
SECONDS = 300  # for an import


def begin(box: Box, place: Place) -> None:
    """Start containerd."""
    network = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "pods0",
                "isGateway": True,
                "ipMasq": True,
                "hairpinMode": True,  # a pod may reach itself through its Service
                "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    networks = place.write("cni/10-pods.conflist", network).parent
    configuration = place.write(
        "containerd.toml",
        f"""version = 2
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
restrict_oom_score_adj = true  # a machine may forbid to lower it
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{PLUGINS}"
conf_dir = "{networks}"
""",
    )
    box.start("containerd", "containerd", f"--config={configuration}")


def ready(box: Box) -> None:
    """Wait for containerd and give it the image of pods' first container."""
    box.ready("containerd", lambda: control(box, "version"))


def add_pause(box: Box, place: Place, program: Path) -> None:
    """Give it the image of every pod's first container."""
    load(box, archive.of_program(place.folder / "pause.tar", PAUSE_IMAGE, program))


def load(box: Box, images: Path) -> None:
    """Import a file of images as `docker save` writes it; layers that are there already cost nothing."""
    control(box, "images", "import", images)


def control(box: Box, *words: object) -> str:
    """Run containerd's own client on Kubernetes' images and containers."""
    return box.run("ctr", f"--address={CONTAINERD}", "--namespace=k8s.io", *words, seconds=SECONDS)


def names(box: Box) -> set[str]:
    """Return the names of the images that are there."""
    return set(control(box, "images", "list", "--quiet").split())
