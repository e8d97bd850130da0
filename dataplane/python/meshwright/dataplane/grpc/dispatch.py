"""Runs the handlers of one server: finds the one for a call, runs it as a task, and ends the call with its outcome.

One decision to know: async handlers run on the server's own loop; sync ones in a bounded pool of threads, because a
handler that blocks the loop would stop every other call.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from typing import Any, TypeAlias

import grpc
import grpc.aio

from meshwright.dataplane import _native
from meshwright.dataplane.grpc.context import Common, Context, SyncContext

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
StatusOf = Callable[[Exception], tuple[grpc.StatusCode, str] | None]

_LOG = logging.getLogger("meshwright.dataplane.grpc")
_END = object()


class UnreadableError(Exception):
    """The caller sent bytes that aren't the method's request."""


class CallDetails(grpc.HandlerCallDetails):
    """What a generic handler is asked with."""

    def __init__(self, method: str, invocation_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        self.method = method
        self.invocation_metadata = tuple(invocation_metadata)


class Dispatch:
    """The table of handlers, and the calls under way."""

    def __init__(self, *, threads: int, status_of: StatusOf | None) -> None:
        self._handlers: dict[str, Handler] = {}
        self._generic: list[grpc.GenericRpcHandler] = []
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._threads = threads
        self._pool: concurrent.futures.ThreadPoolExecutor | None = None
        self._status_of = status_of

    def add(self, path: str, handler: Handler) -> None:
        """Answer `path` by `handler`."""
        self._handlers[path] = handler

    def add_generic(self, handler: grpc.GenericRpcHandler) -> None:
        """Ask `handler` for methods that nobody registered."""
        self._generic.append(handler)

    @property
    def methods(self) -> dict[str, bool]:
        """The registered paths; True: the request is a stream."""
        return {path: handler.request_streaming for path, handler in self._handlers.items()}

    @property
    def has_generic(self) -> bool:
        """Whether there may be methods that aren't registered."""
        return bool(self._generic)

    def on_call(self, call: _native.ServerCall) -> None:
        """Begin to work on a call."""
        handler = self._find(call)
        if handler is None:
            text = f"this server has no method {call.path}"
            call.finish(None, grpc.StatusCode.UNIMPLEMENTED.value[0], text, ())
            return
        task = asyncio.get_running_loop().create_task(self._run(call, handler), name=call.path)
        number = call.number
        self._tasks[number] = task
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    def on_cancel(self, number: int) -> None:
        """Stop working on a call whose caller has gone."""
        task = self._tasks.get(number)
        if task is not None:
            task.cancel()

    async def stop(self) -> None:
        """Cancel what is left and wait until it has ended."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _find(self, call: _native.ServerCall) -> Handler | None:
        handler = self._handlers.get(call.path)
        if handler is None:
            for generic in self._generic:
                handler = generic.service(CallDetails(call.path, call.metadata))
                if handler is not None:
                    break
        return handler

    async def _run(self, call: _native.ServerCall, handler: Handler) -> None:
        behavior = _behavior(handler)
        is_async = inspect.iscoroutinefunction(behavior) or inspect.isasyncgenfunction(behavior)
        loop = asyncio.get_running_loop()
        context: Context | SyncContext = Context(call, handler) if is_async else SyncContext(call, loop)
        try:
            if isinstance(context, Context):
                message = await _run_async(handler, behavior, call, context)
            else:
                message = await self._run_sync(handler, behavior, call, context)
        except asyncio.CancelledError:
            context._cancelled = True
            context._finish(None, grpc.StatusCode.CANCELLED, "the call was cancelled")
            raise
        except grpc.aio.AbortError:
            context._finish(None, context.code() or grpc.StatusCode.UNKNOWN, context.details())
        except Exception as error:
            context._finish(None, *self._explain(error, context))
        else:
            code = context.code() or grpc.StatusCode.OK
            context._finish(message if code is grpc.StatusCode.OK else None, code, context.details())

    def _explain(self, error: Exception, context: Common) -> tuple[grpc.StatusCode, str]:
        """Return the status for an exception of a handler, and log it unless it was expected."""
        if isinstance(error, UnreadableError):
            return grpc.StatusCode.INTERNAL, str(error)
        known = self._status_of(error) if self._status_of else None
        if known is not None:
            return known
        _LOG.error("handler failed", extra={"method": context._call.path}, exc_info=error)
        code = context.code()
        if code is not None and code is not grpc.StatusCode.OK:
            return code, context.details()
        return grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}"  # grpcio's words

    async def _run_sync(
        self, handler: Handler, behavior: Callable[..., Any], call: _native.ServerCall, context: SyncContext
    ) -> bytes | None:
        loop = asyncio.get_running_loop()
        inner = Context(call, handler)  # reads and writes on the loop
        streaming = handler.request_streaming
        request = _requests_in_thread(inner, loop) if streaming else await _only_request(handler, call, inner)
        response = await self._in_thread(behavior, request, context)
        if inspect.isawaitable(response):  # an async handler behind a plain function, e.g. a decorator
            response = await response
        if not handler.response_streaming:
            return _serialize(handler, response)
        if hasattr(response, "__aiter__"):
            async for message in response:
                await inner.write(message)
            return None
        responses = iter(response)
        while (message := await self._in_thread(next, responses, _END)) is not _END:
            await inner.write(message)
        return None

    def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Awaitable[Any]:
        if self._pool is None:
            self._pool = concurrent.futures.ThreadPoolExecutor(self._threads, thread_name_prefix="grpc-handler")
        return asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)


def _behavior(handler: Handler) -> Callable[..., Any]:
    behavior: Callable[..., Any] | None
    if handler.request_streaming:
        behavior = handler.stream_stream if handler.response_streaming else handler.stream_unary
    else:
        behavior = handler.unary_stream if handler.response_streaming else handler.unary_unary
    if behavior is None:
        raise TypeError("the method's handler has no function for its kind of call")
    return behavior


async def _run_async(
    handler: Handler, behavior: Callable[..., Any], call: _native.ServerCall, context: Context
) -> bytes | None:
    request = _requests(context) if handler.request_streaming else await _only_request(handler, call, context)
    if not handler.response_streaming:
        return _serialize(handler, await behavior(request, context))
    responses = behavior(request, context)
    if inspect.isasyncgen(responses):
        try:
            async for message in responses:
                await context.write(message)
        finally:
            await responses.aclose()
    else:
        await responses  # it writes by itself
    return None


async def _requests(context: Context) -> AsyncIterator[Any]:
    while (request := await context.read()) is not grpc.aio.EOF:
        yield request


def _requests_in_thread(context: Context, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    while True:
        request = asyncio.run_coroutine_threadsafe(context.read(), loop).result()
        if request is grpc.aio.EOF:
            return
        yield request


async def _only_request(handler: Handler, call: _native.ServerCall, context: Context) -> Any:
    message = call.message
    if message is None:  # a generic handler's method: its kind wasn't known when the call came
        message = await context._receive()
    if message is None:
        raise UnreadableError("the request has no message")
    try:
        return handler.request_deserializer(message) if handler.request_deserializer else message
    except Exception as error:
        raise UnreadableError(f"the request can't be read as {call.path} expects: {error}") from error


def _serialize(handler: Handler, response: Any) -> bytes:
    serialized: bytes = handler.response_serializer(response) if handler.response_serializer else response
    return serialized
