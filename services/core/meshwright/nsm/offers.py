"""What an endpoint can offer: its network namespace, a program's memif socket, or a place on the wire."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from meshwright.nsm import descriptors, mechanism
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.wire import Connection, Mechanism


class Offer(Protocol):
    """Makes this side's mechanism of a connection."""

    @property
    def kind(self) -> str:
        """The mechanism that clients must wish for."""
        ...

    def make(self, wish: Mechanism, connection: Connection, seed: str) -> tuple[Mechanism, Descriptor | None]:
        """Return the mechanism and the descriptor that goes along; the connection's context may be filled in.

        `seed` tells connections apart. The caller owns the descriptor.
        """
        ...


@dataclass(frozen=True, slots=True)
class KernelOffer:
    """A network namespace, into which the forwarder puts an interface."""

    namespace: Descriptor
    kind: ClassVar[str] = mechanism.KERNEL

    def make(self, wish: Mechanism, connection: Connection, seed: str) -> tuple[Mechanism, Descriptor | None]:
        """Name the interface as the client wishes, else after the service."""
        interface = mechanism.interface_name(wish, connection.network_service, seed)
        return mechanism.kernel(self.namespace.inode, interface), self.namespace.duplicate()


@dataclass(frozen=True, slots=True)
class MemifOffer:
    """The socket's file of a program that serves memif."""

    path: Path
    kind: ClassVar[str] = mechanism.MEMIF

    def make(self, wish: Mechanism, connection: Connection, seed: str) -> tuple[Mechanism, Descriptor | None]:
        """Pass the socket's file."""
        socket = descriptors.socket_file(str(self.path))
        return mechanism.memif(socket.inode), socket


@dataclass(frozen=True, slots=True)
class WireOffer:
    """An endpoint on the wire, on this VLAN (0: none): nothing for the forwarder to do."""

    vlan: int
    kind: ClassVar[str] = mechanism.NOOP

    def make(self, wish: Mechanism, connection: Connection, seed: str) -> tuple[Mechanism, Descriptor | None]:
        """Tell the VLAN."""
        connection.context.ethernet_context.vlan_tag = self.vlan
        return mechanism.noop(), None
