"""Check 2: every hop is mutual TLS with SPIFFE certificates, they rotate unnoticed, and strangers get nothing.

One decision to know: the list of ports is the kernel's (sockets.listening_ports over our process tree), not ours: a
port that a part opened without our knowledge is tried too.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshwright.core import errors, sockets
from meshwright.core.identity import part_id
from meshwright.platform.demo import client, intruder, load
from meshwright.platform.demo.harness import Failure, Measurements, until
from meshwright.platform.demo.session import Session, xfcc
from meshwright.platform.up.ports import HOST

ROTATION_SECONDS = 75.0  # more than a lifetime: every certificate must have changed by then
_LOOK_SECONDS = 1.0


@dataclass(slots=True)
class Watch:
    """Serial numbers of the certificates that sidecars serve with, seen in handshakes of our own."""

    serials: dict[str, list[int]] = field(default_factory=dict)
    handshakes: int = 0
    failures: list[str] = field(default_factory=list)

    async def run(self, session: Session) -> None:
        """Look once a second until cancelled."""
        while True:
            for workload in session.application.workloads:
                expected = workload.spiffe_id(session.platform.settings.trust_domain)
                self.handshakes += 1
                try:
                    peer = await client.peer(HOST, workload.port.number, session.customer.identity.current(), expected)
                except (errors.MeshwrightError, TimeoutError) as error:
                    self.failures.append(f"{workload.name}: {error}")
                    continue
                seen = self.serials.setdefault(workload.name, [])
                if peer.serial not in seen:
                    seen.append(peer.serial)
            await asyncio.sleep(_LOOK_SECONDS)

    def rotated(self) -> Mapping[str, int]:
        """How many further certificates each sidecar has served with."""
        return {name: len(serials) - 1 for name, serials in self.serials.items()}


async def run(session: Session, watch: Watch, steady: load.Tally) -> Measurements:
    """Look at one request's hops, wait for the rotations, and try every port as a stranger."""
    hops = await _hops(session)
    began = time.monotonic()
    await _until_rotated(session, watch)
    rotated = time.monotonic()
    doors = await _doors(session)
    measured = {
        "peers_seen": hops,
        "server_certificates_replaced": watch.rotated(),
        "client_certificates_seen": {name: len(found) for name, found in session.hashes.items()},
        "requests_during_rotation": steady.sent,
        "failed": steady.failed + len(watch.failures),
        "handshakes": watch.handshakes,
        "waited_for_rotation_seconds": round(rotated - began, 1),
        "ports_tried": len(doors),
        "trying_ports_seconds": round(time.monotonic() - rotated, 1),
        "ports": sorted(doors),
    }
    if steady.failed:
        raise Failure(f"{steady.failed} of {steady.sent} requests failed: {steady.failures[0]}", measured)
    if watch.failures:
        raise Failure(f"{len(watch.failures)} handshakes failed: {watch.failures[0]}", measured)
    open_doors = {port: fault for port, fault in doors.items() if fault}
    if open_doors:
        raise Failure("; ".join(f"port {port} {fault}" for port, fault in open_doors.items()), measured)
    return measured


async def _hops(session: Session) -> Mapping[str, str]:
    """Return who called whom in one request, as the callee's sidecar saw the caller's certificate."""
    trust_domain = session.platform.settings.trust_domain
    hop = json.loads((await session.shop()).body)
    seen: dict[str, str] = {}
    expected = session.customer.identity.current().spiffe_id
    while hop:
        found = xfcc(hop["caller"]).get("URI", "nobody")
        if found != expected:
            raise Failure(f"{hop['service']} was called by {found}, expected {expected}")
        seen[str(hop["service"])] = found
        expected = session.workload(_instance(hop)).spiffe_id(trust_domain)
        hop = hop.get("upstream")
    if set(seen) != {"shop", "catalog", "stock"}:
        raise Failure(f"the chain shop, catalog, stock wasn't whole: {seen}")
    return seen


def _instance(hop: Mapping[str, str]) -> str:
    return f"catalog-{hop['version']}" if hop["service"] == "catalog" else str(hop["service"])


async def _until_rotated(session: Session, watch: Watch) -> None:
    """Wait until every sidecar has served with a second certificate, and the customer has come with one."""

    async def missing() -> str:
        # Callers inside the mesh keep their connections, and with them their certificate, for as long as both live: a
        # second certificate of theirs is counted when seen, and not waited for.
        late = [name for name in _names(session) if watch.rotated().get(name, 0) < 1]
        if len(session.hashes.get("shop", ())) < 2:
            late.append("the customer")
        return f"a second certificate of {', '.join(late)}" if late else ""

    await until(missing, ROTATION_SECONDS, look=_LOOK_SECONDS / 2)


def _names(session: Session) -> list[str]:
    return [workload.name for workload in session.application.workloads]


async def _doors(session: Session) -> Mapping[str, str]:
    """Try every TCP port that our processes listen on; return what a stranger got, by port and process."""
    found = sockets.listening_ports(sockets.descendants(os.getpid()))
    known = {port.number for status in session.platform.supervisor.statuses() for port in status.ports}
    missed = known - {listener.port for listener in found}
    if missed:
        raise Failure(f"the kernel shows no listener on ports that our parts should serve: {sorted(missed)}")
    strange = intruder.foreign_context(part_id(session.platform.settings.trust_domain, "admin"))
    nameless = intruder.anonymous_context()

    async def knock(listener: sockets.Listener, pid: int) -> tuple[str, str]:
        host = {"0.0.0.0": HOST, "::": "::1"}.get(listener.address, listener.address)
        name = f"{listener.port} {sockets.process_name(pid)}"
        if fault := await intruder.plain_text(host, listener.port):
            return name, fault
        if fault := await intruder.foreign(host, listener.port, strange):
            return name, f"took a foreign certificate: {fault}"
        if fault := await intruder.foreign(host, listener.port, nameless):
            return name, f"asked for no certificate: {fault}"
        return name, ""

    return dict(await asyncio.gather(*(knock(listener, pid) for listener, pid in found.items())))
