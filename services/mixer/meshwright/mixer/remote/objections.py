"""What adapters in other processes say of handlers that are to come: they are asked before a change is committed.

One decision to know: an adapter that refuses a handler is believed, one that doesn't answer is told of: it may be down
for a moment, or be started after its configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from meshwright.core import clock as clocks
from meshwright.core.identity import IdentitySource
from meshwright.mixer.remote import tokens
from meshwright.mixer.remote.backend import Backend, BackendError, Metadata, RefusedError
from meshwright.mixer.remote.channels import NoIdentityError, open_channel
from meshwright.mixer.remote.handlers import RemoteHandler

ANSWER_SECONDS = 2.5
"""For all of a change's handlers; who asks waits for five, compiling included."""
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Objection:
    """`field` is the path in the handler's document; when it isn't `refused` its adapter couldn't be asked."""

    handler: str
    field: str
    message: str
    refused: bool


class Objections:
    """Asks with mixer's own identity where handlers want it."""

    def __init__(self, identity: IdentitySource | None, clock: clocks.Clock | None = None) -> None:
        self._identity, self._clock = identity, clock or clocks.SystemClock()

    async def ask(self, handlers: Sequence[RemoteHandler]) -> list[Objection]:
        """What adapters have against these handlers, within `ANSWER_SECONDS`."""
        places = asyncio.Semaphore(AT_ONCE)
        tasks = {
            handler.name: asyncio.create_task(self._ask(handler, places), name=f"validate {handler.name}")
            for handler in handlers
        }
        if not tasks:
            return []
        _, late = await asyncio.wait(tasks.values(), timeout=ANSWER_SECONDS)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        return [objection for name, task in tasks.items() for objection in _outcome(name, task)]

    async def _ask(self, handler: RemoteHandler, places: asyncio.Semaphore) -> list[Objection]:
        async with places:
            try:
                metadata = await self._metadata(handler)
                channel = open_channel(handler.remote, self._identity)
                try:
                    await Backend(channel).validate(handler.remote.adapter_config, handler.types, metadata)
                finally:
                    await channel.close()
            except RefusedError as error:
                faults: Mapping[str, str] = error.fields or {"": str(error)}
                return [
                    Objection(handler.name, f"spec.params{field and '.'}{field}", f"its adapter: {reason}", True)
                    for field, reason in faults.items()
                ]
            except (BackendError, NoIdentityError) as error:
                return [_unasked(handler.name, str(error))]
        return []

    async def _metadata(self, handler: RemoteHandler) -> Metadata:
        """The token that the handler's calls carry; BackendError when there is none."""
        if handler.token is None:
            return ()
        found: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()

        def told(value: str | None) -> None:
            if not found.done():
                found.set_result(value)

        def failed(reason: str | None) -> None:
            if reason is not None and not found.done():
                found.set_exception(BackendError(reason))

        keeper = tokens.Keeper(handler.name, handler.token, told, failed, self._clock)
        task = asyncio.create_task(keeper.run(), name=f"token of {handler.name} for validating")
        try:
            value = await found
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return () if value is None else ((handler.remote.authorization.header, value),)


def _outcome(name: str, task: asyncio.Task[list[Objection]]) -> list[Objection]:
    return [_unasked(name, f"no answer within {ANSWER_SECONDS:g} s")] if task.cancelled() else task.result()


def _unasked(handler: str, reason: str) -> Objection:
    message = f"its adapter couldn't be asked ({reason}): start it, or correct the connection"
    return Objection(handler, "spec.connection", message, False)
