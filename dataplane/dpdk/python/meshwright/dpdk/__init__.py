"""DPDK's devices as ports: virtual ones, and network functions that are bound to vfio-pci.

An optional distribution (`pip install ./dataplane/dpdk`, which wants libdpdk 22.11 or newer); `meshwright` itself never
needs it. The forwarder finds it when it is installed.

    from meshwright import dpdk

    dpdk.init(pci=["0000:01:10.0"], hugepages=True)       # once a process; without devices no PCI is touched
    with dpdk.Port("0000:01:10.0") as function:           # or a virtual one: "net_null0", "net_memif0,role=client,…"
        print(function.mac, function.link_up)
        function.send([frame])                            # for trying out; 64 frames a call at most are received
        frames = function.receive()

    with dpdk.CrossConnect(dpdk.Port("net_null0"), dpdk.Port("net_null1")) as connected:
        one, other = connected.counters()                 # a thread in Rust carries packets until it is closed

`Port.capsule()` gives the port away to `meshwright.dataplane.forwarder.DpdkPort`, which connects it to any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from meshwright.dpdk import _native

DpdkError = _native.DpdkError
"""DPDK refused a step; the message names it and the remedy."""


def init(
    *,
    hugepages: bool = False,
    memory: int = 128,
    pci: Sequence[str] = (),
    buffers: int = 16_384,
    arguments: Sequence[str] = (),
) -> None:
    """Begin DPDK in this process, once.

    `memory` is in MB: of hugepages (`vm.nr_hugepages`; no mount is needed) or, without, of ordinary ones. `pci` are the
    functions that are opened at once; with one at least, others may be opened later. `buffers` of 2 KiB are for all
    ports together. `arguments` are DPDK's own.
    """
    _native.init(hugepages=hugepages, memory=memory, pci=list(pci), buffers=buffers, arguments=list(arguments))


@dataclass(frozen=True, slots=True)
class Device:
    """What a device says of itself."""

    mac: str
    link_up: bool
    rx_packets: int
    tx_packets: int
    missed: int
    rx_errors: int
    tx_errors: int
    no_buffer: int


class Port:
    """An open device with one queue in each direction, listening to all addresses.

    `device` is a PCI address or DPDK's description of a virtual device.
    """

    def __init__(self, device: str, *, descriptors: int = 1024, mtu: int = 0) -> None:
        self.device = device
        self._native = _native.Port(device, descriptors, mtu)

    def look(self) -> Device:
        """Return address, link and the device's own counters."""
        return Device(**self._native.look())

    @property
    def mac(self) -> str:
        """The hardware address."""
        return self.look().mac

    @property
    def link_up(self) -> bool:
        """Whether there is a link."""
        return self.look().link_up

    def send(self, frames: Sequence[bytes]) -> int:
        """Send frames, without the checksum at their end; return how many went."""
        return self._native.send(list(frames))

    def receive(self) -> list[bytes]:
        """Return the frames that have come, 64 at most, without waiting."""
        return self._native.receive()

    def capsule(self) -> object:
        """Give the port away, to whoever knows this kind of capsule (`meshwright.dataplane.forwarder`)."""
        return self._native.capsule()

    def close(self) -> None:
        """Close it, unless it was given away."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class CrossConnect:
    """A thread that carries packets between two ports, which it takes over, on a core that it takes over as well."""

    def __init__(self, one: Port, other: Port, *, core: int | None = None) -> None:
        self._native = _native.CrossConnect(one._native, other._native, core)

    def counters(self) -> list[tuple[dict[str, int], dict[str, int]]]:
        """Return, for each port, what came from it and what went to it: packets, bytes, drops by reason."""
        return self._native.counters()

    def cpu_seconds(self) -> float:
        """Return the CPU time of the threads that carry packets in this process."""
        return self._native.cpu_seconds()

    def close(self) -> None:
        """End the thread and close both ports."""
        self._native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
