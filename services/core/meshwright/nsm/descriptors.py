"""File descriptors that travel beside messages: a network namespace, or the socket file that an endpoint listens on.

One decision to know: a message names a descriptor by device and inode (``inode://device/number``), never by a path or a
process, and a hop keeps one descriptor for each inode: the same one arrives again with every refresh.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from meshwright.nsm.errors import InvalidMechanism, InvalidUrl

_URL = re.compile(r"inode://(\d{1,20})/(\d{1,20})")
_NS_GET_NSTYPE = 0xB703  # ioctl of nsfs, linux/nsfs.h
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True, slots=True)
class Inode:
    """What a descriptor refers to, the same for every duplicate of it."""

    device: int
    number: int

    @property
    def url(self) -> str:
        """The form that messages carry."""
        return f"inode://{self.device}/{self.number}"

    @staticmethod
    def parse(url: str) -> Inode:
        """Read the URL form; raise InvalidUrl."""
        match = _URL.fullmatch(url)
        if not match or max(int(match[1]), int(match[2])) >= 1 << 64:
            raise InvalidUrl(
                f"{url[:200]!r} names no descriptor",
                field="inodeURL",
                remedy="pass the descriptor beside the message and write inode://device/number",
            )
        return Inode(int(match[1]), int(match[2]))

    @staticmethod
    def of(fd: int) -> Inode:
        """Return what `fd` refers to."""
        status = os.fstat(fd)
        return Inode(status.st_dev, status.st_ino)


class Descriptor:
    """A descriptor that this object owns and closes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.inode = Inode.of(fd)

    def fileno(self) -> int:
        """Return the number, for calls that take it while this object lives."""
        if self._fd < 0:
            raise ValueError("the descriptor is closed")
        return self._fd

    def duplicate(self) -> Descriptor:
        """Return a second descriptor of the same thing, with a life of its own."""
        return Descriptor(fcntl.fcntl(self.fileno(), fcntl.F_DUPFD_CLOEXEC, 3))

    def close(self) -> None:
        """Close it; again is nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Descriptor({self._fd}, {self.inode.url})"


class Held:
    """The descriptors that a connection keeps, one for each inode."""

    def __init__(self) -> None:
        self._by_inode: dict[Inode, Descriptor] = {}

    def keep(self, descriptor: Descriptor) -> Descriptor:
        """Take ownership; a second one of a held inode is closed. Return the one that is held."""
        held = self._by_inode.setdefault(descriptor.inode, descriptor)
        if held is not descriptor:
            descriptor.close()
        return held

    def get(self, inode: Inode) -> Descriptor | None:
        """Return the held descriptor of `inode`, still owned by this object."""
        return self._by_inode.get(inode)

    def only(self, inodes: set[Inode]) -> None:
        """Close all but those of `inodes`."""
        for inode in [inode for inode in self._by_inode if inode not in inodes]:
            self._by_inode.pop(inode).close()

    def close(self) -> None:
        """Close all."""
        self.only(set())

    def __iter__(self) -> Iterator[Descriptor]:
        return iter(tuple(self._by_inode.values()))

    def __len__(self) -> int:
        return len(self._by_inode)


def own_network_namespace() -> Descriptor:
    """Return a descriptor of the calling thread's network namespace."""
    return Descriptor(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))


def socket_file(path: str) -> Descriptor:
    """Return a descriptor that stands for a listening socket's file; connecting through it needs no path."""
    descriptor = Descriptor(os.open(path, os.O_PATH | os.O_CLOEXEC))
    if not stat.S_ISSOCK(os.fstat(descriptor.fileno()).st_mode):
        descriptor.close()
        raise InvalidUrl(f"{path} isn't a socket", field="listen")
    return descriptor


def is_socket_file(descriptor: Descriptor) -> bool:
    """Return whether `descriptor` stands for a socket's file."""
    return stat.S_ISSOCK(os.fstat(descriptor.fileno()).st_mode)


def check_network_namespace(descriptor: Descriptor) -> None:
    """Raise InvalidMechanism unless the descriptor is a network namespace."""
    kind = 0
    with contextlib.suppress(OSError):  # not a namespace at all
        kind = fcntl.ioctl(descriptor.fileno(), _NS_GET_NSTYPE)
    if kind != _CLONE_NEWNET:
        raise InvalidMechanism(
            "the passed descriptor isn't a network namespace", field="inodeURL", remedy="pass /proc/self/ns/net, opened"
        )
