"""Builds the platform on one machine top to bottom; the demo uses the same and adds its application."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from meshwright.citadel.infrastructure import bootstrap
from meshwright.core import errors, identity
from meshwright.core.citadel_identity import CitadelIdentity
from meshwright.core.store import etcd_auth
from meshwright.platform.up import lock, servers, state, trust
from meshwright.platform.up.catalog import Catalog
from meshwright.platform.up.layout import Layout
from meshwright.platform.up.part import State
from meshwright.platform.up.ports import Port, Ports, require_free
from meshwright.platform.up.settings import UpSettings
from meshwright.platform.up.supervisor import Supervisor

_OPTIONAL_SECONDS = 5.0
_STATE_SECONDS = 0.2  # the state file is written at most this often


@dataclass(frozen=True, slots=True)
class Platform:
    """The running platform."""

    settings: UpSettings
    layout: Layout
    ports: Ports
    supervisor: Supervisor
    citadel: trust.Citadel
    admin: identity.IdentitySource  # the administrator's identity, as the command line has it


class Start:
    """The platform as a context, and how long its start took."""

    def __init__(self, settings: UpSettings, more_ports: Sequence[Port] = ()) -> None:
        self.settings = settings
        self.layout = Layout(settings.data.expanduser().absolute())
        self.ports = Ports.choose(settings.base_port, settings.mixers)
        self.supervisor = Supervisor(self.layout.logs, self.layout.data)
        self.healthy_after: float | None = None
        self._more_ports = list(more_ports)

    def summary(self) -> str:
        """Say how long the start took, and what isn't there."""
        statuses = self.supervisor.statuses()
        well = [status for status in statuses if status.state is State.HEALTHY]
        text = f"{len(well)} of {len(statuses)} parts healthy after {self.healthy_after or 0.0:.1f} s"
        for status in statuses:
            if status.state is not State.HEALTHY:
                text += f"\n{status.name} is {status.state}: {status.reason}"
        return text

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[Platform]:
        """Start everything, yield when all parts are healthy, stop everything."""
        began = time.monotonic()
        layout, supervisor = self.layout, self.supervisor
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(lock.hold(layout.data))
            require_free([*self.ports.all(), *self._more_ports])
            layout.make()
            bootstrap.run(bootstrap.Plan(layout.infra, layout.seal_key), datetime.now(UTC))
            await stack.enter_async_context(supervisor)
            await stack.enter_async_context(_state_file(layout, supervisor, self))
            citadel = trust.Citadel(layout.socket("citadel-admin"))
            stack.push_async_callback(citadel.close)
            supervisor.add(servers.etcd(layout, self.ports))
            supervisor.add(servers.nats(layout, self.ports))
            await supervisor.until_healthy(["etcd"], self.settings.start_seconds)
            await etcd_auth.enable([self.ports.etcd.address], layout.client("root"))
            for part in Catalog(self.settings, layout, self.ports, citadel).parts():
                supervisor.add(part)
            await supervisor.until_healthy(["citadel"], self.settings.start_seconds)
            admin = await stack.enter_async_context(_admin_identity(self.settings, layout))
            await supervisor.until_healthy(
                [status.name for status in supervisor.statuses() if not status.optional], self.settings.start_seconds
            )
            await _patience(supervisor)
            self.healthy_after = time.monotonic() - began
            yield Platform(self.settings, layout, self.ports, supervisor, citadel, admin)


async def _patience(supervisor: Supervisor) -> None:
    """Give optional parts a moment more; those that can't serve here say why in their status."""
    names = [status.name for status in supervisor.statuses() if status.optional]
    with contextlib.suppress(errors.DeadlineExceeded):
        await supervisor.until_healthy(names, _OPTIONAL_SECONDS)


@contextlib.asynccontextmanager
async def _admin_identity(settings: UpSettings, layout: Layout) -> AsyncIterator[identity.IdentitySource]:
    """Keep pki/admin filled with a certificate that is valid as long as `up` runs."""
    source = CitadelIdentity(
        identity.part_id(settings.trust_domain, "admin"), socket=f"unix:{layout.socket('citadel-admin')}"
    )
    async with source:
        trust.write_identity(layout.admin, source.current())
        source.subscribe(lambda fresh: trust.write_identity(layout.admin, fresh))
        yield source


@contextlib.asynccontextmanager
async def _state_file(layout: Layout, supervisor: Supervisor, start: Start) -> AsyncIterator[None]:
    async def keep() -> None:
        while True:
            state.write(layout.state, os.getpid(), start.healthy_after, supervisor.statuses())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5.0), supervisor.changed:
                    await supervisor.changed.wait()
            await asyncio.sleep(_STATE_SECONDS)

    task = asyncio.create_task(keep(), name="state file")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        layout.state.unlink(missing_ok=True)
