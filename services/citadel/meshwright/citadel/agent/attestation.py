"""From a connection to selectors: who the kernel says is calling.

One decision to know: `unix:pid` names one process by number and start time. A launcher that started a process registers
exactly that one; neither another process of the same user and executable nor a later one with its number fits, which no
other selector of a single machine can say. Forked children are other processes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from meshwright.citadel.agent.process import Facts, Process, ticks_ago
from meshwright.citadel.registrations.model import Selector
from meshwright.core.errors import Forbidden, Unavailable


@dataclass(frozen=True, slots=True)
class Caller:
    """The kernel's word on the peer of a Unix socket (SO_PEERCRED, SO_PEERPIDFD): not to be forged, fixed at connect.

    `pidfd` holds the very process; it belongs to the call's context. `connected` is when that was, in clock ticks since
    boot, rounded up.
    """

    pid: int
    uid: int
    gid: int
    connected: int
    pidfd: int


def caller(context: Any) -> Caller:
    """Return who is calling; Forbidden when that process has ended.

    Unavailable when the server doesn't know, which isn't the caller's fault.
    """
    properties = context.auth_context()
    try:
        pid, uid, gid = (int(properties[name][0]) for name in ("unix_pid", "unix_uid", "unix_gid"))
    except (KeyError, IndexError, ValueError) as error:
        raise Unavailable("the agent can't tell who is calling (it must serve a Unix socket)") from error
    try:
        return Caller(pid, uid, gid, ticks_ago(context.connection_age()), context.peer_pidfd())
    except ProcessLookupError as error:
        raise Forbidden(f"process {pid} has ended") from error
    except OSError as error:
        raise Unavailable(f"process {pid} can't be held: {error}") from error


def attest(peer: Caller, process: Process) -> frozenset[Selector]:
    """Return the selectors of a held process; raise Forbidden when it isn't the one that connected."""
    return selectors(process.facts(peer.uid, peer.gid, peer.connected))


def selectors(facts: Facts) -> frozenset[Selector]:
    """Return what is known of a process as selectors."""
    found = {
        Selector("unix:uid", str(facts.uid)),
        Selector("unix:gid", str(facts.gid)),
        Selector("unix:pid", f"{facts.pid}@{facts.started}"),
    }
    if facts.executable is not None:
        found.add(Selector("unix:path", facts.executable))
    if facts.container is not None:
        # Which pod that is, citadel knows: it sends what is registered for pods under their uid.
        found.add(Selector("k8s:pod-uid", facts.container.pod_uid))
        found.add(Selector("k8s:container-id", facts.container.container_id))
    return frozenset(found)
