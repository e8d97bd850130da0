"""Mechanisms: how one hop's two ends meet.

KERNEL is a network interface in a namespace. MEMIF is memory that two processes share, agreed on over a socket. NOOP
is an end that needs no forwarder: it is on the wire already, and only tells where (addresses, VLAN).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from meshwright.nsm.descriptors import Inode
from meshwright.nsm.errors import InvalidMechanism
from meshwright.nsm.wire import Mechanism

KERNEL = "KERNEL"
MEMIF = "MEMIF"
NOOP = "NOOP"
LOCAL = "LOCAL"

NAME = "name"  # of the interface
INODE = "inodeURL"  # of its network namespace, or of a memif socket's file
SOCKET = "socketfile"  # the name, with @ in front, of a memif socket in that network namespace
PCI_ADDRESS = "pciAddress"  # of the virtual function that the interface is, or that user space drives

SRIOV_TOKEN = "sriovToken"  # the connection's label by which a client asks for one: <service domain>/<capability>

_NAME_LIMIT = 15  # IFNAMSIZ without its zero
_ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def kernel(inode: Inode | None = None, interface: str = "") -> Mechanism:
    """Return a KERNEL mechanism; without an inode it is a wish that the other side fills in."""
    parameters = {INODE: inode.url} if inode else {}
    if interface:
        parameters[NAME] = interface
    return Mechanism(cls=LOCAL, type=KERNEL, parameters=parameters)


def memif(inode: Inode | None = None, socket: str = "") -> Mechanism:
    """Return a MEMIF mechanism: of a socket's file, or of its name in a namespace; without either it is a wish."""
    parameters = {INODE: inode.url} if inode else {}
    if socket:
        parameters[SOCKET] = socket
    return Mechanism(cls=LOCAL, type=MEMIF, parameters=parameters)


def noop() -> Mechanism:
    """Return a NOOP mechanism."""
    return Mechanism(cls=LOCAL, type=NOOP)


def choose(current: Mechanism | None, preferences: Iterable[Mechanism], supported: Iterable[str]) -> Mechanism:
    """Return the mechanism of a request: the agreed one, or the first wish that is supported."""
    kinds = tuple(supported)
    wishes = [current] if current is not None and current.type else list(preferences)
    for wish in wishes:
        if wish.type in kinds and wish.cls in ("", LOCAL):
            return wish
    asked = ", ".join(f"{wish.cls or LOCAL}/{wish.type}"[:60] for wish in wishes[:8]) or "none"
    raise InvalidMechanism(
        f"asked for {asked}", field="mechanism_preferences", remedy=f"supported here: {LOCAL}/{', '.join(kinds)}"
    )


def inode(mechanism: Mechanism) -> Inode | None:
    """Return the inode that a mechanism names, or None."""
    url = mechanism.parameters.get(INODE)
    return Inode.parse(url) if url else None


def interface_name(mechanism: Mechanism, service: str, seed: str) -> str:
    """Return the interface's name: the asked one, or ``<service, 10 characters>-<4 more>``.

    The last four are drawn from `seed` (an id of the connection), so that who restarted gives the same name again.
    """
    name = mechanism.parameters.get(NAME, "")
    if name:
        if len(name.encode()) > _NAME_LIMIT or name in (".", "..") or any(c in "/:" or c.isspace() for c in name):
            raise InvalidMechanism(
                f"{name[:50]!r} can't name an interface", field="name", remedy="1 to 15 octets, no space, / or :"
            )
        return name
    stem = "".join(c for c in service.partition("@")[0] if c.isascii() and (c.isalnum() or c in "-_"))[:10] or "nsm"
    return f"{stem}-{''.join(_ALPHABET[octet % 36] for octet in hashlib.sha256(seed.encode()).digest()[:4])}"
