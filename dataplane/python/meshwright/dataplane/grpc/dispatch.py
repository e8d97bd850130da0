"""Runs the handlers of one server: begins each call by what its method is, and ends it with the handler's outcome.

One decision to know: async handlers run on the server's own loop, each as a task. Sync ones run in a bounded set of
threads, because a handler that blocks the loop would stop every other call; those marked `nonblocking` on the loop.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, Protocol

import grpc
import grpc.aio

from meshwright.dataplane import _native
from meshwright.dataplane.grpc.context import CallOverError, Common, Context, SyncContext
from meshwright.dataplane.grpc.method import Handler, Method
from meshwright.dataplane.grpc.server_interceptors import CallDetails, Interceptors
from meshwright.dataplane.grpc.workers import Workers

Begin = Callable[[_native.ServerCall, int], None]

_LOG = logging.getLogger("meshwright.dataplane.grpc")
ENDING_SECONDS = 10.0
"""How long the end of a server waits for handlers that it has cancelled."""


class UnreadableError(Exception):
    """The caller sent bytes that aren't the method's request."""


class _Cancellable(Protocol):
    """A task or a sync handler's context."""

    def cancel(self) -> bool:
        """Stop the work on the call."""


class Dispatch:
    """The table of methods, and the calls under way."""

    def __init__(self, *, threads: int, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> None:
        self._methods: dict[str, Method] = {}
        self._generic: list[grpc.GenericRpcHandler] = []
        self._interceptors = Interceptors(interceptors, self._find) if interceptors else None
        self._workers = Workers(threads)
        self._running: dict[int, _Cancellable] = {}
        self._cancelled: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, path: str, handler: Handler) -> None:
        """Answer `path` by `handler`."""
        self._methods[path] = Method(path, handler)

    def add_generic(self, handler: grpc.GenericRpcHandler) -> None:
        """Ask `handler` for methods that nobody registered."""
        self._generic.append(handler)

    def start(self) -> tuple[dict[str, tuple[bool, Begin]], Begin | None]:
        """Return for each path whether its request is a stream and what begins a call, and what begins all others."""
        self._loop = asyncio.get_running_loop()
        blocking = [path for path, method in self._methods.items() if not (method.is_async or method.is_nonblocking)]
        if blocking:
            extra = {"methods": sorted(blocking)}
            _LOG.info("sync handlers run in threads; mark those that never wait as nonblocking", extra=extra)
        known = {path: (method.request_streaming, self._begin(method)) for path, method in self._methods.items()}
        asks = bool(self._generic) or self._interceptors is not None
        return known, self._begin_unknown if asks else None

    def on_cancel(self, number: int) -> None:
        """Stop working on a call whose caller has gone."""
        running = self._running.pop(number, None)
        if running is None:
            return
        if isinstance(running, asyncio.Task):
            self._cancelled.add(running)
            running.add_done_callback(self._cancelled.discard)
        else:
            self._workers.forget(number)  # a caller that begins calls and resets them must not fill the queue
        running.cancel()

    async def stop(self) -> None:
        """Cancel what is left and wait until it has ended."""
        for number in list(self._running):
            self.on_cancel(number)
        if self._cancelled:
            _, stubborn = await asyncio.wait(self._cancelled, timeout=ENDING_SECONDS)
            for task in stubborn:
                _LOG.error("handler goes on although its server has ended", extra={"method": task.get_name()})
        self._workers.stop()

    def _begin(self, method: Method) -> Begin:
        if self._interceptors is not None:
            return functools.partial(self._begin_task, self._intercepted, method.path)
        if method.is_async:
            run = self._stream if method.response_streaming else self._unary
            return functools.partial(self._begin_task, functools.partial(run, method), method.path)
        if method.is_nonblocking:
            return functools.partial(self._now, method)
        return functools.partial(self._begin_in_thread, method)

    def _begin_task(
        self,
        run: Callable[[_native.ServerCall, int], Coroutine[Any, Any, None]],
        name: str,
        call: _native.ServerCall,
        number: int,
    ) -> None:
        assert self._loop is not None  # set by start(), before there are calls
        self._running[number] = self._loop.create_task(run(call, number), name=name)

    def _begin_in_thread(self, method: Method, call: _native.ServerCall, number: int) -> None:
        context = SyncContext(call, method)
        self._running[number] = context
        self._workers.submit(number, functools.partial(self._threaded, method, context, call, number))

    def _begin_unknown(self, call: _native.ServerCall, number: int) -> None:
        if self._interceptors is not None:
            self._begin_task(self._intercepted, call.path, call, number)
        else:
            self._begin_found(self._find(CallDetails(call.path, call.metadata)), call, number)

    def _begin_found(self, handler: Handler | None, call: _native.ServerCall, number: int) -> None:
        method = self._method(handler, call)
        if method is None:
            return
        if method.is_async:
            run = self._stream if method.response_streaming else self._unary
            self._begin_task(functools.partial(run, method), method.path, call, number)
        elif method.is_nonblocking:
            self._now(method, call, number)
        else:
            self._begin_in_thread(method, call, number)

    def _method(self, handler: Handler | None, call: _native.ServerCall) -> Method | None:
        """Return the method of a handler that was found for this call; without one, end the call."""
        path = call.path
        if handler is None:
            text = f"this server has no method {path}"
            call.finish(None, grpc.StatusCode.UNIMPLEMENTED.value[0], text, ())
            return None
        known = self._methods.get(path)
        return known if known is not None and known.handler is handler else Method(path, handler)

    def _find(self, details: grpc.HandlerCallDetails) -> Handler | None:
        method = self._methods.get(details.method)
        if method is not None:
            return method.handler
        for generic in self._generic:
            handler = generic.service(details)
            if handler is not None:
                return handler
        return None

    async def _intercepted(self, call: _native.ServerCall, number: int) -> None:
        """Ask the interceptors for the handler; an async one runs in the same task, and sees what they set in it."""
        assert self._interceptors is not None
        method = None
        try:
            method = self._method(await self._interceptors.handler(CallDetails(call.path, call.metadata)), call)
        except Exception as error:
            code, details = self._explain(error, None, call.path)
            call.finish(None, code.value[0], details, ())
        finally:
            if method is None or not method.is_async:
                self._running.pop(number, None)
        if method is None:
            return
        if method.is_async:
            await (self._stream if method.response_streaming else self._unary)(method, call, number)
        elif method.is_nonblocking:
            self._now(method, call, number)
        else:
            self._begin_in_thread(method, call, number)

    async def _unary(self, method: Method, call: _native.ServerCall, number: int) -> None:
        """Run an async handler of one response."""
        context = Context(call, method)
        try:
            if method.request_streaming:
                response = await method.behavior(_requests(context), context)
            else:
                message = call.message
                if message is None:
                    message = await _only_message(context)
                response = await method.behavior(_read(method, message), context)
            if context._done or context._code is not None or context._details or context._trailing:
                context._answer(_serialize_if_well(context, response))
            else:
                call.answer(method.serialize(response))
        except BaseException as error:
            self._failed(context, error)
        finally:
            self._running.pop(number, None)
            context._tell()

    async def _stream(self, method: Method, call: _native.ServerCall, number: int) -> None:
        """Run an async handler of many responses: a generator, or one that writes by itself."""
        context = Context(call, method)
        try:
            request: Any
            if method.request_streaming:
                request = _requests(context)
            else:
                message = call.message
                if message is None:
                    message = await _only_message(context)
                request = _read(method, message)
            if method.is_generator:
                await _write_all(context, method.behavior(request, context))
            else:
                await method.behavior(request, context)
            context._answer(None)
        except BaseException as error:
            self._failed(context, error)
        finally:
            self._running.pop(number, None)
            context._tell()

    def _now(self, method: Method, call: _native.ServerCall, number: int) -> None:
        """Run a sync handler of one request and one response that never waits, on the loop."""
        message = call.message
        if message is None:  # the request of an unknown method is read as a stream: it may not have come yet
            self._begin_in_thread(method, call, number)
            return
        context = SyncContext(call, method)
        try:
            response = method.behavior(_read(method, message), context)
            if context._done or context._code is not None or context._details or context._trailing:
                context._answer(_serialize_if_well(context, response))
            else:
                call.answer(method.serialize(response))
        except Exception as error:
            self._failed(context, error)
        context._tell()

    def _threaded(self, method: Method, context: SyncContext, call: _native.ServerCall, number: int) -> None:
        """Run a sync handler in a thread, with all its waiting."""
        if context._done:
            return  # the caller has gone while the call waited for a thread
        try:
            request: Any
            if method.request_streaming:
                request = context._requests()
            else:
                message = call.message
                if message is None:
                    message = context._read()
                request = _read(method, message)
            response = method.behavior(request, context)
            if inspect.isawaitable(response) or hasattr(response, "__aiter__"):
                # An async handler behind a plain function, e.g. a decorator.
                assert self._loop is not None
                self._loop.call_soon_threadsafe(self._begin_rest, method, context, response, call, number)
                return
            if method.response_streaming:
                _write_all_blocking(context, response)
                context._answer(None)
            else:
                context._answer(_serialize_if_well(context, response))
        except BaseException as error:
            self._failed(context, error)
        self._running.pop(number, None)
        context._tell()

    def _begin_rest(
        self, method: Method, context: SyncContext, response: Any, call: _native.ServerCall, number: int
    ) -> None:
        if self._running.pop(number, None) is not None:
            run = functools.partial(self._rest, method, context, response)
            self._begin_task(run, method.path, call, number)

    async def _rest(
        self, method: Method, context: SyncContext, response: Any, call: _native.ServerCall, number: int
    ) -> None:
        """Finish on the loop what a plain function has begun."""
        try:
            if inspect.isawaitable(response):
                response = await response
            if method.response_streaming:
                if response is not None:
                    await _write_all(Context(call, method), response)
                context._answer(None)
            else:
                context._answer(_serialize_if_well(context, response))
        except BaseException as error:
            self._failed(context, error)
        finally:
            self._running.pop(number, None)
            context._tell()

    def _failed(self, context: Common, error: BaseException) -> None:
        """End a call whose handler has raised."""
        if isinstance(error, grpc.aio.AbortError) and error is context._abortion:
            return
        if isinstance(error, asyncio.CancelledError):
            context._cancelled = True
            if not context._done:
                context._end(None, grpc.StatusCode.CANCELLED, "the call was cancelled", context._trailing)
            raise error
        if isinstance(error, CallOverError) or not isinstance(error, Exception):
            if not context._done:
                context._end(None, grpc.StatusCode.CANCELLED, "the call was cancelled", context._trailing)
            if not isinstance(error, Exception):
                raise error
            return
        code, details = self._explain(error, context, context._call.path)
        if not context._done:
            context._end(None, code, details, context._trailing)

    def _explain(self, error: Exception, context: Common | None, path: str) -> tuple[grpc.StatusCode, str]:
        """Return the status for an exception of a handler, and log it unless it was expected."""
        if isinstance(error, UnreadableError):
            return grpc.StatusCode.INTERNAL, str(error)
        _LOG.error("handler failed", extra={"method": path}, exc_info=error)
        code = context.code() if context is not None else None
        if isinstance(code, grpc.StatusCode) and code is not grpc.StatusCode.OK:
            return code, f"Unexpected {type(error)}: {error}"
        return grpc.StatusCode.UNKNOWN, f"Unexpected {type(error)}: {error}"  # grpcio's words


RUNNERS = frozenset(
    function.__code__ for function in (Dispatch._unary, Dispatch._stream, Dispatch._now, Dispatch._rest)
)
"""The functions within which handlers run on the loop."""


def _read(method: Method, message: bytes | None) -> Any:
    if message is None:
        raise UnreadableError("the request has no message")
    try:
        return method.deserialize(message)
    except Exception as error:
        raise UnreadableError(f"the request can't be read as {method.path} expects: {error}") from error


async def _only_message(context: Context) -> bytes | None:
    """Return the request of a method whose kind wasn't known when the call came."""
    message = context._call.take()
    return await context._arrival() if message is False else message


async def _requests(context: Context) -> AsyncIterator[Any]:
    while (request := await context.read()) is not grpc.aio.EOF:
        yield request


async def _write_all(context: Context, responses: Any) -> None:
    serialize, write = context._method.serialize, context._call.write
    try:
        async for response in responses:
            context._raise_if_ended()
            message = serialize(response)
            try:
                written = write(message)
            except ConnectionError as error:  # the caller has gone: the task's own cancellation is on its way
                raise asyncio.CancelledError from error
            if not written:
                await context._send(message)
    finally:
        close = getattr(responses, "aclose", None)
        if close is not None:
            await close()


def _write_all_blocking(context: SyncContext, responses: Any) -> None:
    try:
        for response in responses:
            context._write(response)
    finally:
        close = getattr(responses, "close", None)
        if close is not None:
            close()


def _serialize_if_well(context: Common, response: Any) -> bytes | None:
    """Return the response's bytes, unless the call ends otherwise and it is discarded."""
    is_well = context._code is None or context._code is grpc.StatusCode.OK or context._code == 0
    return context._method.serialize(response) if is_well and not context._done else None
