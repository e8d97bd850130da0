"""One stream of one caller: attested at its start, held as long as its process runs, woken by what changes.

One decision to know: the process is held by a descriptor for the whole stream, and the stream ends with the process,
even when somebody else inherited its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from meshwright.citadel.agent import attestation
from meshwright.citadel.agent.process import Process
from meshwright.citadel.agent.workloads import Svid, Workloads
from meshwright.citadel.registrations.model import Registration, Selector


class Session:
    """What a servicer needs to know of its caller."""

    def __init__(self, peer: attestation.Caller, selectors: frozenset[Selector], workloads: Workloads) -> None:
        self.peer, self.selectors, self._workloads = peer, selectors, workloads
        self.ended = False
        self._mine: set[str] = set()  # whose certificates the caller holds
        self._wake = asyncio.Event()

    def svids(self) -> list[Svid]:
        """Return the caller's certificates, its default first."""
        svids = [] if self.ended else self._workloads.svids(self.selectors)
        self._mine = {svid.registration_id for svid in svids}
        return svids

    def registrations(self) -> list[Registration]:
        """Return what the caller is registered as, its default first."""
        return [] if self.ended else self._workloads.matching(self.selectors)

    @property
    def bundle(self) -> tuple[bytes, ...]:
        """The trust bundle, DER."""
        return self._workloads.bundle

    def wake(self) -> None:
        """Make `changed` return."""
        self._wake.set()

    def heed(self, registration_id: str) -> None:
        """Wake up for a change of the bundle, of one of the caller's registrations, or of one that may have been."""
        registration = self._workloads.registrations.get(registration_id)
        if registration is None or self.selectors.issuperset(registration.selectors) or registration_id in self._mine:
            self._wake.set()

    async def changed(self) -> None:
        """Return after the next change of the node's identities, the end of the process, or `wake`."""
        await self._wake.wait()
        self._wake.clear()

    def end(self) -> None:
        """Take note that the process has ended."""
        self.ended = True
        self._wake.set()


@contextlib.asynccontextmanager
async def attested(context: Any, workloads: Workloads) -> AsyncIterator[Session]:
    """Attest the caller and hold its process; raise Forbidden when it can't be told who it is."""
    peer = attestation.caller(context)
    with Process(peer.pid, peer.pidfd) as process:
        session = Session(peer, attestation.attest(peer, process), workloads)
        loop = asyncio.get_running_loop()
        descriptor = process.fileno()

        def on_end() -> None:
            loop.remove_reader(descriptor)  # it stays readable
            session.end()

        loop.add_reader(descriptor, on_end)
        unwatch = workloads.watch(session.heed)
        try:
            yield session
        finally:
            unwatch()
            loop.remove_reader(descriptor)
