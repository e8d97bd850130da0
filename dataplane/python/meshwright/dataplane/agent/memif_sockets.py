"""The sockets that this forwarder serves to memif clients: where each is, and how its client comes to it.

One decision to know: a client that names its network namespace gets a socket by name there (as newer programs of NSM
ask for it), any other a socket's file, whose descriptor travels beside the answer. The file's name follows from the
connection's id, so that after a restart the client finds its new socket where the old one was.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from meshwright.dataplane.forwarder import MemifPort
from meshwright.nsm import descriptors, mechanism
from meshwright.nsm.chain import Exchange
from meshwright.nsm.connections import ConnectionState
from meshwright.nsm.wire import Mechanism


class MemifSockets:
    """`folder` is where sockets' files are made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def offer(self, wish: Mechanism, state: ConnectionState) -> Mechanism:
        """Return what the client is answered with, except for a file's inode, which isn't there yet."""
        inode = mechanism.inode(wish)
        held = state.held.get(inode) if inode is not None else None
        if inode is None or held is None or descriptors.is_socket_file(held):
            return mechanism.memif()
        return mechanism.memif(inode, f"@meshwright/{_name(state.id)}")

    def port(self, offer: Mechanism, state: ConnectionState) -> MemifPort:
        """Return the port behind what the client was offered."""
        inode = mechanism.inode(offer)
        held = state.held.get(inode) if inode is not None else None
        if held is not None:
            descriptors.check_network_namespace(held)
            name = offer.parameters[mechanism.SOCKET].removeprefix("@")
            return MemifPort(serve=True, name=name, netns_fd=held.fileno())
        # Nobody finds a way to the sockets but by a descriptor that was passed; who has one may be any user.
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return MemifPort(serve=True, path=str(self._path(state.id)))

    def opened(self, offer: Mechanism, state: ConnectionState) -> None:
        """Let the client connect, whoever it runs as."""
        if mechanism.SOCKET not in offer.parameters:
            self._path(state.id).chmod(0o666)

    def answer(self, offer: Mechanism, answer: Mechanism, exchange: Exchange) -> None:
        """Fill in the answer; a file's descriptor goes beside it."""
        answer.CopyFrom(offer)
        if mechanism.SOCKET not in offer.parameters:
            state = exchange.state
            socket = state.held.keep(descriptors.socket_file(str(self._path(state.id))))
            answer.parameters[mechanism.INODE] = socket.inode.url
            exchange.answer.append(socket)

    def remove(self, identifier: str) -> None:
        """Remove a file that an earlier process made; none is success."""
        self._path(identifier).unlink(missing_ok=True)

    def _path(self, identifier: str) -> Path:
        return self._folder / f"{_name(identifier)}.sock"


def _name(identifier: str) -> str:
    # An id is the caller's text; a path has 107 bytes at most.
    return hashlib.sha256(identifier.encode()).hexdigest()[:32]
