"""The guest's two cards, which are one wire's two ends (tests/sriov/machine.py), and what the kernel shows of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

NEAR = "0000:01:00.0"  # the forwarder's
FAR = "0000:02:00.0"  # what is on the wire beyond
TOKEN = "ward.example/10G"

_DEVICES = Path("/sys/bus/pci/devices")


def drivers() -> dict[str, str]:
    """The near card's functions that are bound, with their drivers."""
    bound = {}
    for link in sorted((_DEVICES / NEAR).glob("virtfn*")):
        driver = link / "driver"
        if driver.exists():
            bound[os.path.basename(os.readlink(link))] = os.path.basename(os.readlink(driver))
    return bound


def bind_free() -> str:
    """Bind a function of the near card that has no driver, as a process would that ends at this moment."""
    bound = drivers()
    every = [os.path.basename(os.readlink(link)) for link in (_DEVICES / NEAR).glob("virtfn*")]
    function = next(address for address in every if address not in bound)
    (_DEVICES / function / "driver_override").write_text("igbvf")
    Path("/sys/bus/pci/drivers_probe").write_text(function)
    assert drivers()[function] == "igbvf"
    return function


def interfaces() -> list[str]:
    """The interfaces in this process's namespace that are neither cards' own nor lo."""
    own = {path.name for card in (NEAR, FAR) for path in (_DEVICES / card / "net").glob("*")}
    return sorted(path.name for path in Path("/sys/class/net").iterdir() if path.name not in own | {"lo"})


class Far:
    """The far card's interface in a namespace of its own: the network that functions are on."""

    def __init__(self) -> None:
        (card,) = (_DEVICES / FAR / "net").iterdir()
        self._card = card.name
        _ip("netns", "add", "far")
        _ip("link", "set", self._card, "netns", "far")
        self._ip("link", "set", self._card, "up")

    def serve(self, vlan: int, addresses: list[str], clients: list[str]) -> None:
        """Have these addresses on this VLAN, where the clients' are neighbours."""
        name = f"vlan{vlan}"
        if subprocess.run(["ip", "-n", "far", "link", "show", name], capture_output=True, check=False).returncode:
            self._ip("link", "add", "link", self._card, "name", name, "type", "vlan", "id", str(vlan))
            self._ip("link", "set", name, "up")
        for address in addresses:
            self._ip("address", "replace", address, "dev", name)
        for client in clients:
            self._ip("route", "replace", client, "dev", name)

    def end(self) -> None:
        """Bring the card back into the machine's namespace."""
        self._ip("link", "set", self._card, "netns", "1")
        _ip("netns", "delete", "far")

    def _ip(self, *arguments: str) -> None:
        _ip("-n", "far", *arguments)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=30)
