"""What every service of ours begins with, in this order: log, identity, telemetry, admin; and the gRPC server it makes.

One decision to know: a service gets its own things (identity, a stack for what must be closed, tasks that end with it)
as one object, and its server with everything that servers of the platform have in common.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any

from google.protobuf.descriptor import ServiceDescriptor

from meshwright.core import citadel_identity, logs, telemetry
from meshwright.core.admin import Admin, Exposition
from meshwright.core.grpc import Authorization, Server, introspection, limits
from meshwright.core.health import Health
from meshwright.core.identity import IdentitySource
from meshwright.core.settings import ServiceSettings


class Service:
    """A service under way."""

    def __init__(
        self,
        settings: ServiceSettings,
        health: Health,
        identity: IdentitySource | None,
        stack: contextlib.AsyncExitStack,
        tasks: asyncio.TaskGroup,
        admin: Admin | None = None,
    ) -> None:
        self.identity, self.stack = identity, stack
        self._admin = admin
        self._settings, self._health, self._tasks = settings, health, tasks
        self._background: list[asyncio.Task[Any]] = []

    def spawn(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` until the service ends; the service ends with its failure."""
        task = self._tasks.create_task(work, name=name)
        self._background.append(task)
        return task

    def show(self, metrics: Exposition) -> None:
        """Show more metrics at the admin listener."""
        if self._admin is not None:
            self._admin.show(metrics)

    def server(
        self,
        rules: Sequence[tuple[str, Sequence[str]]],
        *,
        listen: str | Sequence[str] | None = None,
        native: Sequence[Any] = (),
        requires: Sequence[str] = (),
        socket_mode: int = 0o600,
    ) -> Server:
        """Return the service's gRPC server; `rules` say who may call what (path prefix, SPIFFE ID patterns).

        Those of health and reflection come first, so that a rule for "/" leaves them as they are. `socket_mode` are the
        rights of Unix sockets that it makes.
        """
        return Server(
            self._settings.listen if listen is None else listen,
            self.identity,
            front=self._settings.grpc_front,
            part=self._settings.part,
            authorize=Authorization((*introspection.rules(self._settings.trust_domain), *rules)),
            native=native,
            requires=requires,
            tls_versions=("1.2", "1.3") if self._settings.tls_1_2 else ("1.3",),
            access_log=self._settings.access_log,
            limits=limits.polling(self._settings.busy_poll),
            socket_mode=socket_mode,
        )

    async def serve(self, server: Server, *, native: Sequence[ServiceDescriptor] = (), grace: float = 2.0) -> str:
        """Start a server that stops with the service, with health and reflection; return its first address.

        `native` are the services that Rust answers.
        """
        introspection.add_to_server(server, self._health, *native)
        address = await server.start()
        self.stack.push_async_callback(server.stop, grace)
        return address

    def end(self) -> None:
        """Cancel what was spawned."""
        for task in self._background:
            task.cancel()


@contextlib.asynccontextmanager
async def begun(settings: ServiceSettings, health: Health, *, part: str | None = None) -> AsyncIterator[Service]:
    """Begin a service; leaving the context ends its tasks, then closes what its stack has.

    `part` names the identity when it isn't the settings' part alone.
    """
    logs.setup(settings.part, settings.log_level)
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        identity = citadel_identity.source(settings, part=part)
        if identity is not None:
            await stack.enter_async_context(identity)
        await stack.enter_async_context(telemetry.setup(settings.part, settings, identity))
        admin = await stack.enter_async_context(Admin(settings.admin, health, identity))
        service = Service(settings, health, identity, stack, tasks, admin)
        yield service
        service.end()
