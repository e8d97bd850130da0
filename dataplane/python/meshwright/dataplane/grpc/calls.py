"""Calls under way at the client: grpc.aio's call objects on the Rust channel."""

from __future__ import annotations

import asyncio
import time
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable, Sequence
from typing import Any, TypeVar

import grpc
import grpc.aio

from meshwright.dataplane import _native

MetadataList = list[tuple[str, str | bytes]]
Unary = tuple[MetadataList, bytes | None, int, str, MetadataList]
End = tuple[int, str, MetadataList]
Serializer = Callable[[Any], bytes] | None
Deserializer = Callable[[bytes], Any] | None

_C = TypeVar("_C")
_T = TypeVar("_T")
_CODES = {code.value[0]: code for code in grpc.StatusCode}
_CANCELLED: End = (grpc.StatusCode.CANCELLED.value[0], "Locally cancelled by application!", [])


def _metadata(pairs: Sequence[tuple[str, str | bytes]]) -> grpc.aio.Metadata:
    return grpc.aio.Metadata(*pairs)


def failure(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    """Return the error of a call that failed on this side."""
    return grpc.aio.AioRpcError(code, _metadata(()), _metadata(()), details, details)


def _weakly(call: _C, method: Callable[[_C, asyncio.Future[_T]], None]) -> Callable[[asyncio.Future[_T]], None]:
    this = weakref.ref(call)

    def notify(future: asyncio.Future[_T]) -> None:
        if (alive := this()) is not None:
            method(alive, future)

    return notify


class _Call:
    """What all calls share: how they ended, and how to end them."""

    def __init__(self, timeout: float | None) -> None:
        loop = asyncio.get_running_loop()
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._initial: asyncio.Future[Sequence[tuple[str, str | bytes]]] = loop.create_future()
        self._end: asyncio.Future[End] = loop.create_future()
        self._callbacks: list[Callable[[Any], None]] = []
        # Weakly: Rust holds the futures, and an abandoned call must still be noticed (`__del__`).
        self._end.add_done_callback(_weakly(self, _Call._ended))
        self._running: _native.Running | _native.ClientStream | None = None

    def __del__(self) -> None:
        # A call that nobody holds any more can't be read: let the server know.
        if self._running is not None and not self._end.done():
            self._running.cancel()
        # Who asked for its end is told now: the future won't find this call any more.
        self._ended(self._end)

    def _ended(self, _: asyncio.Future[End]) -> None:
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._end.done()

    def cancelled(self) -> bool:
        """Return whether the call was cancelled."""
        return self._end.done() and self._end.result()[0] == grpc.StatusCode.CANCELLED.value[0]

    def cancel(self) -> bool:
        """End the call; False when it has ended."""
        if self._end.done():
            return False
        if self._running is not None:
            self._running.cancel()
        if not self._initial.done():
            self._initial.set_result(())
        self._end.set_result(_CANCELLED)
        return True

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(call)` when the call has ended."""
        if self._end.done():
            callback(self)
        else:
            self._callbacks.append(callback)

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Wait for the server's initial metadata."""
        return _metadata(await asyncio.shield(self._initial))

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Wait for the end and return its metadata."""
        return _metadata((await asyncio.shield(self._end))[2])

    async def code(self) -> grpc.StatusCode:
        """Wait for the end and return its code."""
        return _CODES[(await asyncio.shield(self._end))[0]]

    async def details(self) -> str:
        """Wait for the end and return its text."""
        return (await asyncio.shield(self._end))[1]

    async def debug_error_string(self) -> str:
        """Wait for the end and return its text."""
        return await self.details()

    async def wait_for_connection(self) -> None:
        """Wait until the server has begun to answer; raise if the call failed before."""
        await asyncio.shield(self._initial)
        if self._end.done():
            self._raise_if_failed()

    def _raise_if_failed(self) -> None:
        number, details, trailing = self._end.result()
        if self.cancelled() and details == _CANCELLED[1]:
            raise asyncio.CancelledError
        if number != 0:
            initial = _metadata(self._initial.result() if self._initial.done() else ())
            raise grpc.aio.AioRpcError(_CODES[number], initial, _metadata(trailing), details, details)


class UnaryUnaryCall(_Call, grpc.aio.UnaryUnaryCall[Any, Any]):
    """One request, one response."""

    def __init__(
        self,
        begin: Callable[[asyncio.Future[Unary]], _native.Running],
        timeout: float | None,
        deserialize: Deserializer,
    ) -> None:
        super().__init__(timeout)
        self._deserialize = deserialize
        self._message: bytes | None = None
        self._answer: asyncio.Future[Unary] = asyncio.get_running_loop().create_future()
        self._answer.add_done_callback(_weakly(self, UnaryUnaryCall._answered))
        self._running = begin(self._answer)

    def _answered(self, answer: asyncio.Future[Unary]) -> None:
        if answer.cancelled():
            self.cancel()
        elif not self._end.done():
            initial, self._message, code, details, trailing = answer.result()
            self._initial.set_result(initial)
            self._end.set_result((code, details, trailing))

    def cancel(self) -> bool:
        """End the call; whoever awaits it gets CancelledError."""
        cancelled = super().cancel()
        self._answer.cancel()
        return cancelled

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the response; AioRpcError when the call fails."""
        yield from self._answer  # cancelled with whoever awaits it, and with it the call
        if not self._end.done():
            yield from self._end
        self._raise_if_failed()
        if self._message is None:
            raise failure(grpc.StatusCode.INTERNAL, "the server answered OK without a response")
        return self._deserialize(self._message) if self._deserialize else self._message


class _Stream(_Call):
    """What calls with a stream in either direction share."""

    def __init__(
        self,
        begin: Callable[[asyncio.Future[Any], asyncio.Future[End]], _native.ClientStream],
        timeout: float | None,
        serialize: Serializer,
        deserialize: Deserializer,
        requests: AsyncIterable[Any] | Iterable[Any] | None,
    ) -> None:
        super().__init__(timeout)
        self._serialize, self._deserialize = serialize, deserialize
        self._stream = self._running = begin(self._initial, self._end)
        self._reading: asyncio.Future[bytes | None] | None = None
        self._feeding: asyncio.Task[None] | None = None
        if requests is not None:
            feeding = asyncio.get_running_loop().create_task(self._feed(requests), name="grpc requests")
            self._end.add_done_callback(lambda _: feeding.cancel())
            self._feeding = feeding

    def cancel(self) -> bool:
        """End the call; whoever reads it gets CancelledError."""
        cancelled = super().cancel()
        if self._reading is not None:
            self._reading.cancel()
        return cancelled

    async def _feed(self, requests: AsyncIterable[Any] | Iterable[Any]) -> None:
        try:
            if isinstance(requests, AsyncIterable):
                async for request in requests:
                    await self._send(request)
            else:
                for request in requests:
                    await self._send(request)
        except asyncio.CancelledError:
            raise
        except ConnectionError:
            return  # the call has ended: its status says why
        except Exception:
            # As in grpcio: requests that can't be made end the call; the reason is the caller's own iterator's.
            self.cancel()
            raise
        self._stream.done_writing()

    async def _send(self, request: Any) -> None:
        message = self._serialize(request) if self._serialize else request
        if not self._stream.write(message):
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._stream.write_later(message, future)
            await future

    async def _write(self, request: Any) -> None:
        if self._feeding is not None:
            raise grpc.aio.UsageError("the requests come from the iterator that was given")
        if self._end.done():
            raise asyncio.InvalidStateError("the call has ended")
        try:
            await self._send(request)
        except ConnectionError as error:
            await asyncio.shield(self._end)
            self._raise_if_failed()
            raise asyncio.InvalidStateError("the call has ended") from error

    async def _done_writing(self) -> None:
        if self._feeding is not None:
            raise grpc.aio.UsageError("the requests come from the iterator that was given")
        self._stream.done_writing()

    async def _receive(self) -> bytes | None:
        """Return the next message, None at the end of a call that went well."""
        if self.cancelled():
            self._raise_if_failed()
        self._reading = asyncio.get_running_loop().create_future()
        self._stream.read(self._reading)
        try:
            message = await self._reading
        except asyncio.CancelledError:
            self.cancel()
            raise
        if message is None:
            await asyncio.shield(self._end)
            self._raise_if_failed()
        return message

    async def _read(self) -> Any:
        message = await self._receive()
        if message is None:
            return grpc.aio.EOF
        return self._deserialize(message) if self._deserialize else message

    async def _responses(self) -> AsyncIterator[Any]:
        while (response := await self._read()) is not grpc.aio.EOF:
            yield response


class UnaryStreamCall(_Stream, grpc.aio.UnaryStreamCall[Any, Any]):
    """One request, many responses."""

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the responses; AioRpcError when the call fails."""
        return self._responses()

    async def read(self) -> Any:
        """Return the next response, or `grpc.aio.EOF`."""
        return await self._read()


class StreamStreamCall(_Stream, grpc.aio.StreamStreamCall[Any, Any]):
    """Many requests, many responses."""

    def __aiter__(self) -> AsyncIterator[Any]:
        """Iterate over the responses; AioRpcError when the call fails."""
        return self._responses()

    async def read(self) -> Any:
        """Return the next response, or `grpc.aio.EOF`."""
        return await self._read()

    async def write(self, request: Any) -> None:
        """Send a request; waits while the network is behind."""
        await self._write(request)

    async def done_writing(self) -> None:
        """End the requests."""
        await self._done_writing()


class StreamUnaryCall(_Stream, grpc.aio.StreamUnaryCall[Any, Any]):
    """Many requests, one response."""

    async def write(self, request: Any) -> None:
        """Send a request; waits while the network is behind."""
        await self._write(request)

    async def done_writing(self) -> None:
        """End the requests."""
        await self._done_writing()

    def __await__(self) -> Generator[Any, None, Any]:
        """Wait for the response; AioRpcError when the call fails."""
        return self._response().__await__()

    async def _response(self) -> Any:
        response = await self._read()
        if response is grpc.aio.EOF:
            raise failure(grpc.StatusCode.INTERNAL, "the server answered OK without a response")
        if await self._receive() is not None:
            self.cancel()
            raise failure(grpc.StatusCode.INTERNAL, "the response has more than one message")
        return response
