"""The node's network: one interface with its address, whose other end is in the same box, so that nothing leaves it."""

from __future__ import annotations

from tests.box import Box
from tests.kubernetes.node.place import ADDRESS


def begin(box: Box) -> None:
    """Give the box the node's address and a default route, without which no ClusterIP could be reached from it."""
    box.run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node0-end")
    for name in ("node0", "node0-end"):
        box.run("ip", "link", "set", name, "up")
    box.run("ip", "address", "add", f"{ADDRESS}/24", "dev", "node0")
    box.run("ip", "route", "add", "default", "dev", "node0")
    box.run("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward")
