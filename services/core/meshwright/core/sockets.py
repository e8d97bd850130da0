"""Who listens on which TCP port or Unix socket, read from the kernel (/proc), never from our own tables.

One decision to know: servers and `up` use it to name the process that holds an address they want, and the demo to find
every port that the platform really opened: all need the truth, and none needs a netlink library for it.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"
_UNIX_ACCEPTS = "00010000"  # flags of a listening Unix socket


@dataclass(frozen=True, slots=True)
class Listener:
    """One listening TCP socket."""

    address: str
    port: int
    inode: int
    uid: int


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has a socket open; `pid` is 0 when the process can't be seen by this user."""

    pid: int
    name: str

    def __str__(self) -> str:
        """Name the process for an error message."""
        return f"process {self.pid} ({self.name})" if self.pid else self.name


def listeners(process: int | str = "self") -> list[Listener]:
    """Return the listening TCP sockets, IPv4 and IPv6, of the network namespace that `process` is in."""
    return [
        listener for table in ("tcp", "tcp6") for listener in _table(Path(f"/proc/{process}/net/{table}"))
    ]  # fmt: skip


def _table(path: Path) -> Iterator[Listener]:
    try:
        lines = path.read_text().splitlines()[1:]
    except OSError:  # no IPv6, or the process is gone
        return
    for line in lines:
        fields = line.split()
        if fields[3] == _LISTEN:
            address, _, port = fields[1].partition(":")
            yield Listener(_address(address), int(port, 16), int(fields[9]), int(fields[7]))


def _address(text: str) -> str:
    # Each 32-bit word is in the machine's byte order.
    words = bytes.fromhex(text)
    packed = b"".join(words[start : start + 4][::-1] for start in range(0, len(words), 4))
    if len(packed) == 4:
        return socket.inet_ntoa(packed)
    mapped = ipaddress.IPv6Address(packed).ipv4_mapped
    return str(mapped or ipaddress.IPv6Address(packed))


def inodes(pid: int) -> set[int]:
    """Return the inodes of the sockets that a process has open; empty when it is gone or another user's."""
    found: set[int] = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    found.add(int(target[8:-1]))
    return found


def pids() -> list[int]:
    """Return the ids of all processes that this process can see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def process_name(pid: int) -> str:
    """Return a process's short name, or a note that it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"


def holder(port: int) -> Holder | None:
    """Return who listens on a TCP port of this network namespace, or None when nobody does."""
    found = next((listener for listener in listeners() if listener.port == port), None)
    if found is None:
        return None
    return _opener(found.inode) or Holder(0, f"a process of user {found.uid} that this user can't look into")


def holder_of(address: str) -> Holder | None:
    """Return who listens on ``host:port`` or ``unix:/path``, or None when nobody does."""
    if not address.startswith("unix:"):
        port = address.rpartition(":")[2]
        return holder(int(port)) if port.isdigit() and int(port) else None
    inode = _unix_listener(address.removeprefix("unix:"))
    return None if inode is None else _opener(inode) or Holder(0, "a process that this user can't look into")


def _unix_listener(path: str) -> int | None:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/net/unix").read_text(errors="replace").splitlines()[1:]:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[3] == _UNIX_ACCEPTS and fields[7] == path:
                return int(fields[6])
    return None


def _opener(inode: int) -> Holder | None:
    return next((Holder(pid, process_name(pid)) for pid in pids() if inode in inodes(pid)), None)


def parent(pid: int) -> int:
    """Return a process's parent, or 0 when it is gone."""
    try:
        # The name in parentheses may hold anything: the fields after it begin behind the last parenthesis.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def start_time(pid: int) -> int:
    """Return a process's start in clock ticks since boot: with the pid it names a process for good; 0 when gone."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def descendants(root: int) -> set[int]:
    """Return `root` and every process below it."""
    children: dict[int, list[int]] = {}
    for pid in pids():
        children.setdefault(parent(pid), []).append(pid)
    found, queue = {root}, [root]
    while queue:
        for child in children.get(queue.pop(), ()):
            if child not in found:
                found.add(child)
                queue.append(child)
    return found


def listening_ports(processes: Iterable[int]) -> dict[Listener, int]:
    """Return each TCP listener that one of `processes` holds, with that process, over all their network namespaces."""
    found: dict[Listener, int] = {}
    for pid in sorted(processes):
        own = inodes(pid)
        found.update({listener: pid for listener in listeners(pid) if listener.inode in own})
    return found
