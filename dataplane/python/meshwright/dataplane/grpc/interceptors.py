"""Interceptors of a channel: grpc.aio's four kinds around the Rust channel's calls.

One decision to know: an interceptor that implements several kinds is used for each of them; grpc.aio uses it for the
first only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Generator, Sequence
from typing import Any, Final

import grpc
import grpc.aio

from meshwright.dataplane.grpc import calls

Begin = Callable[[grpc.aio.ClientCallDetails, Any], Awaitable[Any]]
"""What makes a call of its details and its request or requests."""

_CANCELLED: Final = "Locally cancelled by application!"
_ENDED: Final = "the call has ended"


class Interceptors:
    """A channel's interceptors by the kind of call they are for, the first outermost."""

    def __init__(self, interceptors: Sequence[grpc.aio.ClientInterceptor] | None) -> None:
        self.unary_unary: list[Any] = []
        self.unary_stream: list[Any] = []
        self.stream_unary: list[Any] = []
        self.stream_stream: list[Any] = []
        kinds: list[tuple[type, list[Any], str]] = [
            (grpc.aio.UnaryUnaryClientInterceptor, self.unary_unary, "intercept_unary_unary"),
            (grpc.aio.UnaryStreamClientInterceptor, self.unary_stream, "intercept_unary_stream"),
            (grpc.aio.StreamUnaryClientInterceptor, self.stream_unary, "intercept_stream_unary"),
            (grpc.aio.StreamStreamClientInterceptor, self.stream_stream, "intercept_stream_stream"),
        ]
        for interceptor in interceptors or ():
            matching = [(found, name) for kind, found, name in kinds if isinstance(interceptor, kind)]
            if not matching:
                expected = ", ".join(kind.__name__ for kind, _, _ in kinds)
                raise ValueError(f"interceptors: {interceptor!r} must be one of grpc.aio's {expected}")
            for found, name in matching:
                found.append(getattr(interceptor, name))


def chained(
    interceptors: Sequence[Any], begin: Begin, wrap: Callable[[grpc.aio.Call | None, Any], grpc.aio.Call]
) -> Begin:
    """Return `begin` inside all interceptors; `wrap` makes a call of an answer that isn't one."""
    for intercept in reversed(interceptors):
        begin = _inside(intercept, begin, wrap)
    return begin


def _inside(intercept: Any, begin: Begin, wrap: Callable[[grpc.aio.Call | None, Any], grpc.aio.Call]) -> Begin:
    async def run(details: grpc.aio.ClientCallDetails, requests: Any) -> Any:
        last: grpc.aio.Call | None = None

        async def proceed(details: grpc.aio.ClientCallDetails, requests: Any) -> Any:
            nonlocal last
            last = await begin(details, requests)
            return last

        answer = await intercept(proceed, details, requests)
        return answer if isinstance(answer, grpc.aio.Call) else wrap(last, answer)

    return run


class _Intercepted:
    """A call that its interceptors are still making, or have made."""

    def __init__(self, making: Awaitable[Any], timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = None if timeout is None else loop.time() + timeout
        self._task: asyncio.Task[Any] = loop.create_task(_awaited(making), name="grpc interceptors")

    def __del__(self) -> None:
        # A call that nobody holds any more can't be read: the interceptors work for nothing.
        if not self._task.done() and not self._task.get_loop().is_closed():
            self._task.cancel()

    def _made(self) -> Any:
        """Return the call; None while there is none, and when the interceptors have failed."""
        task = self._task
        return task.result() if task.done() and not task.cancelled() and task.exception() is None else None

    def done(self) -> bool:
        """Return whether the call has ended."""
        call = self._made()
        return bool(call.done()) if call is not None else self._task.done()

    def cancelled(self) -> bool:
        """Return whether the call was cancelled."""
        if (call := self._made()) is not None:
            return bool(call.cancelled())
        if self._task.cancelled():
            return True
        error = self._task.exception() if self._task.done() else None
        return isinstance(error, grpc.aio.AioRpcError) and error.code() is grpc.StatusCode.CANCELLED

    def cancel(self) -> bool:
        """End the call; False when it has ended."""
        call = self._made()
        return bool(call.cancel()) if call is not None else self._task.cancel()

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None without one."""
        if (call := self._made()) is not None:
            remaining: float | None = call.time_remaining()
            return remaining
        return None if self._deadline is None else max(0.0, self._deadline - asyncio.get_running_loop().time())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(call)` when the call has ended."""
        if not self._task.done():
            self._task.add_done_callback(lambda _: self.add_done_callback(callback))
        elif (call := self._made()) is None or call.done():
            callback(self)
        else:
            call.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Wait for the server's initial metadata."""
        call, error = await self._outcome()
        if error is not None:
            return error.initial_metadata()
        metadata: grpc.aio.Metadata = await call.initial_metadata()
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Wait for the end and return its metadata."""
        call, error = await self._outcome()
        if error is not None:
            return error.trailing_metadata()
        metadata: grpc.aio.Metadata = await call.trailing_metadata()
        return metadata

    async def code(self) -> grpc.StatusCode:
        """Wait for the end and return its code."""
        call, error = await self._outcome()
        if error is not None:
            return error.code()
        code: grpc.StatusCode = await call.code()
        return code

    async def details(self) -> str:
        """Wait for the end and return its text."""
        call, error = await self._outcome()
        return (error.details() or "") if error is not None else str(await call.details() or "")

    async def debug_error_string(self) -> str:
        """Wait for the end and return its text."""
        return await self.details()

    async def wait_for_connection(self) -> None:
        """Wait until the server has begun to answer; raise if the call failed before."""
        call = await asyncio.shield(self._task)
        await call.wait_for_connection()

    async def _outcome(self) -> tuple[Any, grpc.aio.AioRpcError | None]:
        """Wait for the interceptors: their call, or how they ended without one."""
        await asyncio.wait([self._task])
        if self._task.cancelled():
            return None, calls.failure(grpc.StatusCode.CANCELLED, _CANCELLED)
        try:
            return self._task.result(), None
        except grpc.aio.AioRpcError as error:
            return None, error


class _UnaryResponse(_Intercepted):
    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the response; what the interceptors or the call raise otherwise."""
        call = yield from self._task  # cancelled with whoever awaits it
        return (yield from call.__await__())


class _StreamResponse(_Intercepted):
    _responses: AsyncIterator[Any] | None = None

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the responses; what the interceptors or the call raise otherwise."""
        if self._responses is None:
            self._responses = self._read_all()
        return self._responses

    async def _read_all(self) -> AsyncIterator[Any]:
        call = await self._task
        async for response in call:
            yield response

    async def read(self) -> Any:
        """Return the next response, or `grpc.aio.EOF`."""
        return await anext(aiter(self), grpc.aio.EOF)


class Written:
    """Requests that the caller writes one by one, as the iterator that interceptors see."""

    _END: Final = object()

    def __init__(self) -> None:
        self._requests: asyncio.Queue[Any] = asyncio.Queue(maxsize=1)
        self._ended = asyncio.Event()
        self._is_done = False

    def end(self, _: Any = None) -> None:
        """Let writers know that the call has ended."""
        self._ended.set()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over what is written, to the end of the requests."""
        while (request := await self._requests.get()) is not self._END:
            yield request

    async def write(self, request: Any) -> None:
        """Hand on a request; waits while the one before it is still here."""
        if self._is_done:
            raise asyncio.InvalidStateError("the requests have been ended already")
        await self._put(request)

    async def done_writing(self) -> None:
        """End the requests; more than once does no harm."""
        if not self._is_done:
            self._is_done = True
            await self._put(self._END)

    async def _put(self, request: Any) -> None:
        if self._ended.is_set():
            raise asyncio.InvalidStateError(_ENDED)
        putting = asyncio.ensure_future(self._requests.put(request))
        ending = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.wait((putting, ending), return_when=asyncio.FIRST_COMPLETED)
            if not putting.done():
                raise asyncio.InvalidStateError(_ENDED)
        finally:
            putting.cancel()
            ending.cancel()


class _StreamRequest(_Intercepted):
    _written: Written | None = None

    def _feed(self, written: Written | None) -> None:
        self._written = written
        if written is not None:
            self.add_done_callback(written.end)

    async def write(self, request: Any) -> None:
        """Send a request; waits while the interceptors or the network are behind."""
        await self._requests().write(request)

    async def done_writing(self) -> None:
        """End the requests."""
        await self._requests().done_writing()

    def _requests(self) -> Written:
        if self._written is None:
            raise grpc.aio.UsageError("the requests come from the iterator that was given")
        return self._written


class InterceptedUnaryUnary(_UnaryResponse, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One request, one response, through interceptors."""


class InterceptedUnaryStream(_StreamResponse, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, many responses, through interceptors."""


class InterceptedStreamUnary(_UnaryResponse, _StreamRequest, grpc.aio.StreamUnaryCall[Any, Any]):
    """Many requests, one response, through interceptors."""

    def __init__(self, making: Awaitable[Any], timeout: float | None, written: Written | None) -> None:
        super().__init__(making, timeout)
        self._feed(written)


class InterceptedStreamStream(_StreamResponse, _StreamRequest, grpc.aio.StreamStreamCall[Any, Any]):
    """Many requests, many responses, through interceptors."""

    def __init__(self, making: Awaitable[Any], timeout: float | None, written: Written | None) -> None:
        super().__init__(making, timeout)
        self._feed(written)


class Answered(grpc.aio.UnaryUnaryCall[Any, Any], grpc.aio.StreamUnaryCall[Any, Any]):
    """A call whose response an interceptor made by itself."""

    def __init__(self, _: grpc.aio.Call | None, response: Any) -> None:
        self._response = response

    def __await__(self) -> Generator[Any, None, Any]:
        """Return the response."""
        yield from ()
        return self._response

    def done(self) -> bool:
        """Return True: it is there."""
        return True

    def cancelled(self) -> bool:
        """Return False: it is there."""
        return False

    def cancel(self) -> bool:
        """Return False: it has ended."""
        return False

    def time_remaining(self) -> float | None:
        """Return None: nothing is awaited."""
        return None

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(call)` at once."""
        callback(self)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Return no metadata: there was no server."""
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Return no metadata: there was no server."""
        return grpc.aio.Metadata()

    async def code(self) -> grpc.StatusCode:
        """Return OK."""
        return grpc.StatusCode.OK

    async def details(self) -> str:
        """Return the empty text."""
        return ""

    async def debug_error_string(self) -> str:
        """Return the empty text."""
        return ""

    async def wait_for_connection(self) -> None:
        """Return at once."""

    async def write(self, request: Any) -> None:
        """Refuse: the call has ended."""
        raise asyncio.InvalidStateError(_ENDED)

    async def done_writing(self) -> None:
        """Return at once: nobody reads requests any more."""


class Iterated(grpc.aio.UnaryStreamCall[Any, Any], grpc.aio.StreamStreamCall[Any, Any]):
    """A call whose responses come from an interceptor's own iterator; the rest is the call's that it was made from."""

    def __init__(self, call: grpc.aio.Call | None, responses: AsyncIterable[Any]) -> None:
        if not isinstance(responses, AsyncIterable):
            raise TypeError(f"an interceptor must return a call or an asynchronous iterator, not {responses!r}")
        self._call: Any = call if call is not None else Answered(None, None)
        self._responses = aiter(responses)

    def __aiter__(self) -> AsyncIterator[Any]:
        """Return the interceptor's iterator."""
        return self._responses

    async def read(self) -> Any:
        """Return the next response, or `grpc.aio.EOF`."""
        return await anext(self._responses, grpc.aio.EOF)

    def done(self) -> bool:
        """Return whether the call has ended."""
        return bool(self._call.done())

    def cancelled(self) -> bool:
        """Return whether the call was cancelled."""
        return bool(self._call.cancelled())

    def cancel(self) -> bool:
        """End the call; False when it has ended."""
        return bool(self._call.cancel())

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None without one."""
        remaining: float | None = self._call.time_remaining()
        return remaining

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(call)` when the call has ended."""
        self._call.add_done_callback(lambda _: callback(self))

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Wait for the server's initial metadata."""
        metadata: grpc.aio.Metadata = await self._call.initial_metadata()
        return metadata

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Wait for the end and return its metadata."""
        metadata: grpc.aio.Metadata = await self._call.trailing_metadata()
        return metadata

    async def code(self) -> grpc.StatusCode:
        """Wait for the end and return its code."""
        code: grpc.StatusCode = await self._call.code()
        return code

    async def details(self) -> str:
        """Wait for the end and return its text."""
        return str(await self._call.details() or "")

    async def debug_error_string(self) -> str:
        """Wait for the end and return its text."""
        return await self.details()

    async def wait_for_connection(self) -> None:
        """Wait until the server has begun to answer; raise if the call failed before."""
        await self._call.wait_for_connection()

    async def write(self, request: Any) -> None:
        """Send a request."""
        await self._call.write(request)

    async def done_writing(self) -> None:
        """End the requests."""
        await self._call.done_writing()


async def _awaited(making: Awaitable[Any]) -> Any:
    return await making
