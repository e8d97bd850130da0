"""Which part listens on which TCP port of 127.0.0.1, and the check that all of them are free before anything starts."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from meshwright.core import errors, sockets

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Port:
    """One TCP port, the part that wants it, and what for."""

    number: int
    part: str
    purpose: str

    @property
    def address(self) -> str:
        """`host:port`, as gRPC targets and listeners want it."""
        return f"{HOST}:{self.number}"


@dataclass(frozen=True, slots=True)
class Ports:
    """The platform's ports; every one of them is mutual TLS, but the dashboard's."""

    etcd: Port
    etcd_peer: Port
    nats: Port
    manager: Port
    mixers: tuple[Port, ...]
    citadel: Port
    nsm_registry: Port
    nsmgr: Port
    collector: Port
    dashboard: Port

    @classmethod
    def choose(cls, base: int | None, mixers: int) -> Self:
        """Return the well-known ports, or with `base` a run of consecutive ones: 10 and one for each mixer."""
        known = [2379, 2380, 4222, 15012, 8060, 5002, 5001, 4317, 15080]
        numbers = iter(known if base is None else range(base, base + len(known)))
        mixer = 9091 if base is None else base + 10
        return cls(
            etcd=Port(next(numbers), "etcd", "clients"),
            etcd_peer=Port(next(numbers), "etcd", "peers"),
            nats=Port(next(numbers), "nats", "clients"),
            manager=Port(next(numbers), "manager", "configuration and xDS"),
            citadel=Port(next(numbers), "citadel", "certificates"),
            nsm_registry=Port(next(numbers), "nsm-registry", "registry"),
            nsmgr=Port(next(numbers), "nsmgr", "network services"),
            collector=Port(next(numbers), "collector", "OTLP"),
            dashboard=Port(next(numbers), "dashboard", "browsers"),
            mixers=tuple(Port(mixer + index, mixer_name(index), "policy and telemetry") for index in range(mixers)),
        )

    def all(self) -> list[Port]:
        """Every port."""
        return [
            self.etcd, self.etcd_peer, self.nats, self.manager, self.citadel, self.nsm_registry, self.nsmgr,
            self.collector, self.dashboard, *self.mixers,
        ]  # fmt: skip


def mixer_name(index: int) -> str:
    """Return the name of a mixer replica: `mixer`, `mixer-2`, `mixer-3`."""
    return "mixer" if index == 0 else f"mixer-{index + 1}"


def require_free(ports: Iterable[Port]) -> None:
    """Raise Unavailable naming every port that is taken, the part that wanted it, and the process that holds it."""
    taken = [
        f"port {port.number}, wanted by {port.part} for {port.purpose}, is held by {_holder(port)}"
        for port in ports
        if not _free(port)
    ]
    if taken:
        raise errors.Unavailable("; ".join(taken) + " (stop that process, or choose other ports with --base-port)")


def _free(port: Port) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers do it: a connection of a server that has just ended (TIME_WAIT) doesn't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port.number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise errors.Unavailable(
                f"port {port.number}, wanted by {port.part} for {port.purpose}: {error.strerror} "
                "(choose ports that this user may open with --base-port)"
            ) from error
    # SO_REUSEADDR lets bind pass where a listener on the wildcard address of IPv6 would still take our connections.
    return sockets.holder(port.number) is None


def _holder(port: Port) -> str:
    return str(sockets.holder(port.number) or "a socket that isn't listening (ss -tanp shows it)")
