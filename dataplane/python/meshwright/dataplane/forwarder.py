"""Cross-connects between network namespaces, made by the Rust forwarder.

One decision to know: a port is a namespace's *descriptor*; it is duplicated here and stays the caller's. All calls
block for some milliseconds while the kernel works (the GIL is free meanwhile): call them on a thread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

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
class MemifPort:
    """A memif interface: with `serve` this forwarder owns the socket, otherwise it connects to it, and again.

    The socket is one of: the `path` of a file, a socket's file that is held open (`socket_fd`), or a `name` in the
    network namespace `netns_fd` (by default this process's).
    """

    serve: bool
    path: str | None = None
    socket_fd: int | None = None
    name: str | None = None
    netns_fd: int | None = None

    def native(self) -> _native.MemifPort:
        """Duplicate the descriptors; ValueError names the field."""
        return _native.MemifPort(
            self.serve, path=self.path, socket_fd=self.socket_fd, name=self.name, netns_fd=self.netns_fd
        )


class Capsule(Protocol):
    """What gives a port of another extension module away; `meshwright.dpdk.Port` does."""

    @property
    def device(self) -> str:
        """The device's name."""
        ...

    def capsule(self) -> object:
        """Give the port away."""
        ...


@dataclass(frozen=True, slots=True)
class DpdkPort:
    """A DPDK device, opened by `meshwright.dpdk` (the distribution meshwright-dpdk); connecting takes it over."""

    port: Capsule

    def native(self) -> tuple[str, object]:
        """Take the port out of its module's hands."""
        return self.port.device, self.port.capsule()


UserPort = KernelPort | MemifPort | DpdkPort


@dataclass(frozen=True, slots=True)
class Flow:
    """Packets of one direction that passed, and those that didn't, by reason."""

    packets: int
    bytes: int
    drops: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MemifState:
    """Where a memif stands; `links` is how often it was connected, `fault` why it isn't now."""

    up: bool
    links: int
    peer: str
    fault: str


@dataclass(frozen=True, slots=True)
class Flows:
    """One side of a connection that this process's threads carry: what came from it and what went to it."""

    received: Flow
    sent: Flow
    memif: MemifState | None


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


class Forwarder:
    """The table of open cross-connects; methods may be called from any thread.

    What the kernel doesn't carry is carried by `workers` threads (0: one a core), bound to `cores`, that sleep when
    nothing comes, or never when `busy`. They begin with the first connection that needs them.
    """

    def __init__(self, *, workers: int = 0, cores: Sequence[int] = (), busy: bool = False) -> None:
        self._table = _native.Forwarder(workers=workers, cores=list(cores), busy=busy)

    def connect(self, id: str, client: KernelPort, endpoint: KernelPort) -> Connected:
        """Connect two ports. The same id again changes them in place; interfaces of an earlier process are adopted.

        Raises ValueError for a port that can't be, ForwarderError when the kernel refuses.
        """
        return _connected(self._table.connect(id, client.native(), endpoint.native()))

    def connect_user_space(self, id: str, client: UserPort, endpoint: UserPort, ip: bool = False) -> Connected:
        """Connect two ports whose packets (Ethernet frames, or IP packets) this process carries.

        The id must not be connected. Raises as `connect` does.
        """
        return _connected(self._table.connect_user_space(id, client.native(), endpoint.native(), ip=ip))

    def flows(self) -> dict[str, tuple[Flows, Flows]]:
        """Return, by id, the client's and the endpoint's side of each connection that this process carries."""
        return {id: (_flows(client), _flows(endpoint)) for id, client, endpoint in self._table.flows()}

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


def _flows(found: _native.FlowsDict) -> Flows:
    memif = MemifState(*found["memif"]) if found["memif"] is not None else None
    return Flows(Flow(*found["received"]), Flow(*found["sent"]), memif)
