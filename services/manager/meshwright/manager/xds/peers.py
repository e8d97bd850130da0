"""How callers must show who they are: which of TLS and plain text a port takes."""

from __future__ import annotations

from meshwright.manager.model.access import PeerTls
from meshwright.manager.model.governed import Governed


def mode(governed: Governed, port: int, default: PeerTls) -> PeerTls:
    """Return what a port takes: rules for some workloads come first, then the namespace's, then the root's."""
    for rule in sorted(governed.peers, key=lambda rule: not rule.selector):
        ports = dict(rule.ports)
        if port in ports:
            return ports[port]
        if rule.mode is not None:
            return rule.mode
    return default


def takes_tls(found: PeerTls) -> bool:
    """Whether callers with a certificate may come."""
    return found is not PeerTls.DISABLED


def takes_plain(found: PeerTls) -> bool:
    """Whether callers without one may."""
    return found is not PeerTls.STRICT
