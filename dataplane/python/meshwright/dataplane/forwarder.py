"""Cross-connects between network namespaces, made by the Rust forwarder.

One decision to know: a port is a namespace's *descriptor*; it is duplicated here and stays the caller's. All calls
block for some milliseconds while the kernel works (the GIL is free meanwhile): call them on a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from meshwright.dataplane import _native

ForwarderError = _native.ForwarderError
"""The kernel refused a step; the message names step, reason and remedy."""


@dataclass(frozen=True, slots=True)
class KernelPort:
    """A kernel interface: `addresses` with prefix length, `routes` as (prefix, next hop or None), `mtu` in bytes."""

    netns_fd: int
    interface: str
    addresses: Sequence[str] = ()
    routes: Sequence[tuple[str, str | None]] = ()
    neighbors: Sequence[tuple[str, str]] = ()
    mac: str | None = None
    mtu: int | None = None

    def native(self) -> _native.KernelPort:
        """Duplicate the descriptor and check the rest; ValueError names the field."""
        return _native.KernelPort(
            self.netns_fd,
            self.interface,
            addresses=list(self.addresses),
            routes=list(self.routes),
            neighbors=list(self.neighbors),
            mac=self.mac,
            mtu=self.mtu,
        )


@dataclass(frozen=True, slots=True)
class Side:
    """One end as the kernel sees it; counters from the interface's point of view, in packets and bytes."""

    interface: str
    mac: str
    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection that carries packets."""

    id: str
    client: Side
    endpoint: Side


@dataclass(frozen=True, slots=True)
class Forwarder:
    """The table of open cross-connects; methods may be called from any thread."""

    _table: _native.Forwarder = field(default_factory=_native.Forwarder)

    def connect(self, id: str, client: KernelPort, endpoint: KernelPort) -> Connected:
        """Connect two ports. The same id again changes them in place; interfaces of an earlier process are adopted.

        Raises ValueError for a port that can't be, ForwarderError when the kernel refuses.
        """
        return _connected(self._table.connect(id, client.native(), endpoint.native()))

    def close(self, id: str) -> None:
        """Remove the connection and all that was made for it; KeyError when there is none."""
        self._table.close(id)

    def remove(self, id: str, netns_fd: int) -> None:
        """Remove what an earlier process made for this id in a namespace, found by its mark; nothing is success."""
        self._table.remove(id, netns_fd)

    def list(self) -> list[Connected]:
        """Return the open connections with their counters, sorted by id."""
        return [_connected(found) for found in self._table.list()]


def _connected(found: _native.ConnectedDict) -> Connected:
    return Connected(found["id"], Side(**found["client"]), Side(**found["endpoint"]))
