"""Virtual functions of network cards, found, made and given away by the Rust forwarder.

One decision to know: a function that nobody has is bound to no driver, so it has no interface. All calls block while
the kernel works (binding a driver takes up to some hundred milliseconds; the GIL is free meanwhile): call them on a
thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from meshwright.dataplane import _native
from meshwright.dataplane.forwarder import KernelPort, Side

_SYSFS = "/sys"


@dataclass(frozen=True, slots=True)
class VirtualFunction:
    """One function: PCI address, driver, IOMMU group, and its interface if that is in this network namespace."""

    address: str
    driver: str | None
    iommu_group: int | None
    interface: str | None


@dataclass(frozen=True, slots=True)
class PhysicalFunction:
    """A card that can make `total` virtual functions; `model` is vendor:device."""

    address: str
    model: str
    driver: str | None
    interface: str | None
    total: int
    functions: Sequence[VirtualFunction]


@dataclass(frozen=True, slots=True)
class Served:
    """A physical function (PCI address or interface) and what its virtual ones are for.

    `services` are ``<service domain>/<capability>``; `driver` is the virtual functions' kernel driver, by default the
    one that goes with the card's.
    """

    device: str
    functions: int
    services: Sequence[str]
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A function of the pool, and the connection that has it."""

    physical: str
    function: VirtualFunction
    services: Sequence[str]
    holder: str | None


@dataclass(frozen=True, slots=True)
class Given:
    """A function that a connection has; `side` is its interface in the client's namespace, None in user space."""

    address: str
    iommu_group: int | None
    side: Side | None


def physical_functions(root: str = _SYSFS) -> list[PhysicalFunction]:
    """Return the cards of this machine that can make virtual functions, sorted by address."""
    return [
        PhysicalFunction(
            found["address"],
            found["model"],
            found["driver"],
            found["interface"],
            found["total"],
            [VirtualFunction(**each) for each in found["functions"]],
        )
        for found in _native.physical_functions(root)
    ]


class FunctionPool:
    """The virtual functions of `served`; methods may be called from any thread.

    Raises ValueError that names what is wrong with `served`, ForwarderError when the kernel refuses.
    """

    def __init__(self, served: Sequence[Served], root: str = _SYSFS) -> None:
        wanted = [(each.device, each.functions, list(each.services), each.driver) for each in served]
        self._pool = _native.FunctionPool(wanted, root)

    def restore(self, id: str, address: str) -> bool:
        """Note what a connection of an earlier process has; False when the function isn't this pool's to give."""
        return self._pool.restore(id, address)

    def settle(self) -> list[str]:
        """Take back what no connection has, once all are restored; return those functions' addresses."""
        return self._pool.settle()

    def give_interface(self, id: str, service: str, port: KernelPort, mac: str, vlan: int) -> Given:
        """Give a connection a function as an interface in the port's namespace; the same id again changes it in place.

        Raises ValueError for what can't be, ForwarderError when the kernel refuses or none is free.
        """
        return _given(self._pool.give_interface(id, service, mac, vlan, port.native()))

    def give_device(self, id: str, service: str, mac: str, vlan: int) -> Given:
        """Give a connection a function that user space drives, bound to vfio-pci."""
        return _given(self._pool.give_device(id, service, mac, vlan))

    def give_back(self, id: str) -> None:
        """Take a connection's function back from wherever it is; a connection that has none is success."""
        self._pool.give_back(id)

    def fallen(self) -> list[str]:
        """Return the connections whose interfaces came back by themselves, because their namespaces are gone."""
        return self._pool.fallen()

    def list(self) -> list[Listed]:
        """Return all functions and who has them."""
        return [
            Listed(found["physical"], VirtualFunction(**found["function"]), found["services"], found["holder"])
            for found in self._pool.list()
        ]


def _given(found: _native.GivenDict) -> Given:
    side = found["side"]
    return Given(found["address"], found["iommu_group"], Side(**side) if side else None)
