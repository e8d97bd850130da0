"""The host of all adapters, seen from mixer's main loop: policies come and go, batches are reported, and the engine's
questions are answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

import structlog

from meshwright.core import clock as clocks
from meshwright.core.health import Health
from meshwright.mixer.adapter.v1 import Adapter, Entry
from meshwright.mixer.asking.adapter_metrics import AdapterMetrics
from meshwright.mixer.asking.environment import Environment
from meshwright.mixer.asking.handlers import Handlers
from meshwright.mixer.asking.loop import AdapterLoop
from meshwright.mixer.asking.opened import OpenHandler
from meshwright.mixer.asking.questions import Box, Questions
from meshwright.mixer.config.compiled import Sink
from meshwright.mixer.host import MixerHost

LOOK_SECONDS = 0.1
"""How often to look whether requests still use a policy that was replaced."""

_log = structlog.get_logger(__name__)


class QuestionBox(Box, Protocol):
    """The native end, as the host sets it up."""

    def configure(self, handlers: Sequence[tuple[str, int]]) -> None:
        """The handlers that may be asked, and how many questions each may have in flight."""
        ...

    def trip(self, handler: str) -> None:
        """Open the handler's breaker."""
        ...


class AdapterHost:
    """`async with AdapterHost(…)`; `prepare` a policy's handlers, load it, and `commit`.

    `outdated` says how many replaced policies requests still use.
    """

    def __init__(
        self,
        adapters: Mapping[str, Adapter],
        lent: MixerHost,
        health: Health,
        box: QuestionBox | None = None,
        outdated: Callable[[], int] = lambda: 0,
        *,
        metrics: AdapterMetrics | None = None,
        clock: clocks.Clock | None = None,
    ) -> None:
        self._adapters, self._lent, self._health, self._box = adapters, lent, health, box
        self._outdated = outdated
        self._metrics, self._clock = metrics or AdapterMetrics(), clock or clocks.SystemClock()
        self._loop = AdapterLoop(self._blocked, self._clock)
        self._handlers = Handlers(self._make, self._forget)
        self._questions = Questions(box, self._handlers) if box is not None else None
        self._wanted: Mapping[str, Sink] = {}
        self._retiring: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start without handlers."""
        self._main = asyncio.get_running_loop()
        await self._loop.__aenter__()
        if self._questions is not None:
            self._loop.call(self._questions.begin)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every handler."""
        if self._retiring is not None:
            self._retiring.cancel()
            await asyncio.wait({self._retiring})
        if self._questions is not None:
            self._loop.call(self._questions.end)
        try:
            async with asyncio.timeout(15):
                await self._loop.run(self._handlers.close())
        except TimeoutError:
            _log.warning("handlers_not_closed", reason="an adapter blocks its loop")
        await self._loop.__aexit__(None, None, None)

    async def prepare(self, wanted: Mapping[str, Sink]) -> None:
        """Open the handlers of a policy that is about to be loaded; what can't be opened is told in health."""
        if self._box is not None:
            both = {**self._wanted, **wanted}
            self._box.configure([(name, sink.max_in_flight) for name, sink in both.items()])
        await self._loop.run(self._handlers.prepare(wanted))

    def commit(self, wanted: Mapping[str, Sink]) -> None:
        """The policy was loaded: questions go to its handlers, and the others close when nobody asks them any more."""
        self._wanted = wanted
        self._loop.call(self._handlers.commit)
        if self._retiring is not None:
            self._retiring.cancel()
        self._retiring = asyncio.create_task(self._retire(), name="close replaced handlers")

    async def report(self, handler: str, batch: Sequence[Entry]) -> None:
        """Have a handler take a batch; raises what it raises. The caller sets the deadline."""
        await self._loop.run(self._report(handler, batch))

    async def _report(self, name: str, batch: Sequence[Entry]) -> None:
        opened = self._handlers.get(name)
        if opened is None:
            raise LookupError(f"handler {name} isn't open")
        try:
            result = opened.call("report", batch)
            if isinstance(result, asyncio.Future):
                await result
        except (SystemExit, KeyboardInterrupt) as error:
            raise RuntimeError(f"{type(error).__name__}: {error}") from error  # or it would end mixer

    async def _retire(self) -> None:
        while self._outdated():
            await self._clock.sleep(LOOK_SECONDS)
        self._loop.call(self._handlers.retire)
        if self._box is not None:
            self._box.configure([(name, sink.max_in_flight) for name, sink in self._wanted.items()])

    def _make(self, name: str, sink: Sink) -> OpenHandler:
        adapter = self._adapters[sink.adapter]

        def environment() -> Environment:
            return Environment(name, sink.adapter, self._lent, self._metrics.of(sink.adapter, name), self._clock)

        def tell(reason: str | None) -> None:
            self._main.call_soon_threadsafe(self._told, name, sink.adapter, reason)

        return OpenHandler(name, adapter, sink.parameters, environment, self._loop, tell, self._clock)

    def _told(self, name: str, adapter: str, reason: str | None) -> None:
        if reason is None:
            self._health.set(f"adapter {name}", True)
            _log.info("handler_opened", handler=name, adapter=adapter)
        else:
            self._health.degrade(f"adapter {name}", reason[:300])

    def _forget(self, name: str) -> None:
        self._main.call_soon_threadsafe(self._health.forget, f"adapter {name}")

    def _blocked(self, handler: str | None, line: str) -> None:
        if not line:
            self._health.set("adapters", True)
            return
        who = f"handler {handler}" if handler else "an adapter"
        self._health.degrade("adapters", f"{who} blocks the loop of all adapters at {line}: await, or use @blocking")
        if handler is not None and self._box is not None:
            self._box.trip(handler)
