"""One client's stream: reads its requests, and writes what is due whenever there is something new.

One decision to know: writing never waits where others would wait for it. What the network has no room for is written by
a task of the stream's own, and until that is through nothing more is made for this client.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc.aio
import structlog

from meshwright.manager import metrics
from meshwright.manager.xds import types
from meshwright.manager.xds.allowance import Allowance
from meshwright.manager.xds.requests import Requests
from meshwright.manager.xds.streams import Connection
from meshwright.manager.xds.subscription import DeltaRequest, Request

_log = structlog.get_logger(__name__)

_FIRST_REQUEST_SECONDS = 10.0
_TURN = 16  # requests that are taken at once; then others have their turn


class Stream:
    """The work of one stream."""

    def __init__(
        self, context: Any, connection: Connection[Any], requests: Requests, settled: Callable[[], None]
    ) -> None:
        self._context, self._connection, self._requests, self._settled = context, connection, requests, settled
        self._write_now: Callable[[bytes], bool] | None = getattr(context, "write_now", None)
        self._task: asyncio.Task[None] | None = None  # writes what there was no room for
        self._later: list[bytes] = []
        self._failure: Exception | None = None
        self._runner: asyncio.Task[Any] | None = None
        connection.push = self.push

    @staticmethod
    async def first(context: Any) -> bytes:
        """Return the first request; abort the call when none comes in time."""
        try:
            # Not `wait_for`, which in Python 3.11 can lose a cancellation that comes with the answer.
            async with asyncio.timeout(_FIRST_REQUEST_SECONDS):
                raw = await context.read()
        except TimeoutError:
            raw = grpc.aio.EOF
        if raw is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "no request came: name the node in the first one")
        assert isinstance(raw, bytes)
        return raw

    async def run(self, raw: Any, *, delta: bool, only: str) -> None:
        """Serve until the client has no more requests; `raw` is the first one. Raises what ends the stream."""
        self._runner = asyncio.current_task()
        clock = asyncio.get_running_loop().time
        allowance, taken = Allowance(clock()), 0
        try:
            while raw is not grpc.aio.EOF:
                if not self._take(self._requests.read(raw, delta=delta, only=only)):
                    wait = allowance.wait(len(raw), clock())
                    if wait:
                        await asyncio.sleep(wait)
                taken += 1
                if taken % _TURN == 0:
                    await asyncio.sleep(0)
                self.push()
                if self._failure:
                    raise self._failure
                raw = await self._context.read()
        except asyncio.CancelledError:
            if self._failure is None:
                raise
            if self._runner is not None:
                self._runner.uncancel()
            raise self._failure from None
        finally:
            self._runner = None
            if self._task is not None:
                self._task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._task

    def push(self) -> None:
        """Send what the client doesn't have yet. What is wrong with it ends the stream, and is raised by `run`."""
        if self._failure is not None or self._task is not None:
            return  # the task looks again when it is through
        connection = self._connection
        try:
            view = connection.client.view()
            if view is None:
                return
            connection.subscription.offer(view)
            responses = connection.subscription.pending()
            for response in responses:
                self._send(response)
            if responses:
                metrics.RESPONSES.inc(len(responses))
                metrics.RESPONSE_BYTES.inc(sum(map(len, responses)))
            self._settled()
        except Exception as error:
            self._fail(error)

    def _take(self, request: Request | DeltaRequest) -> bool:
        """Hand on a request; return whether it answers the response under way."""
        state = self._connection.subscription.types.get(request.type_url)
        answers = state is not None and bool(request.nonce) and request.nonce == state.nonce
        if request.error and answers:
            metrics.REFUSALS.labels(types.short(request.type_url)).inc()
            _log.warning("resource_refused", node=self._connection.node_id, type=request.type_url, reason=request.error)
        self._connection.subscription.request(request)
        return answers

    def _send(self, response: bytes) -> None:
        if not self._later and self._write_now is not None:
            try:
                if self._write_now(response):
                    return
            except ConnectionError:
                return  # the client has gone; the handler is cancelled soon
        self._later.append(response)
        if self._task is None:
            self._task = asyncio.create_task(self._write(), name=f"responses to {self._connection.node_id}")

    async def _write(self) -> None:
        try:
            while self._later:
                await self._context.write(self._later[0])
                del self._later[0]
        except Exception as error:
            self._later.clear()
            self._fail(error)
            return
        self._task = None
        self.push()

    def _fail(self, error: Exception) -> None:
        if self._failure is None:
            self._failure = error
            if self._runner is not None and self._runner is not asyncio.current_task():
                self._runner.cancel()
