"""The methods of a server as a channel's callables, of all four kinds: what generated stubs call."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from typing import Any

import grpc
import grpc.aio

from meshwright.dataplane import _native
from meshwright.dataplane.grpc import calls, credentials, interceptors, mailbox
from meshwright.dataplane.grpc.compression import Encoding, encoding_of

Metadata = Sequence[tuple[str, str | bytes]] | grpc.aio.Metadata | None
Place = Callable[[str], str | None]
"""Says for a method where in a trace calls of it belong that are made now (W3C `traceparent`)."""
Requests = AsyncIterable[Any] | Iterable[Any] | None


def no_place(_path: str) -> str | None:
    """Calls belong to no trace."""
    return None


class _Method:
    """One method of a server."""

    def __init__(
        self,
        channel: _native.GrpcChannel,
        path: str,
        serialize: calls.Serializer,
        deserialize: calls.Deserializer,
        compression: Encoding | None,
        intercepts: Sequence[Any] = (),
        place: Place = no_place,
    ) -> None:
        self._channel, self._path = channel, path
        self._serialize, self._deserialize = serialize, deserialize
        self._compression = compression
        self._intercepts = intercepts
        self._place = place

    def _encoding(self, compression: grpc.Compression | None) -> Encoding | None:
        return self._compression if compression is None else encoding_of(compression)

    def _intercepted(
        self,
        begin: Callable[[str, Any, float | None, Metadata, bool | None, Encoding | None], Any],
        wrap: Callable[[grpc.aio.Call | None, Any], grpc.aio.Call],
        details: grpc.aio.ClientCallDetails,
        requests: Any,
        compression: grpc.Compression | None,
    ) -> Any:
        encoding = self._encoding(compression)

        async def begin_call(details: Any, requests: Any) -> Any:
            path = details.method.decode() if isinstance(details.method, bytes) else details.method
            timeout, metadata = details.timeout, details.metadata
            if details.credentials is not None:
                self._refuse_on_plain_text()
                timeout, made = await self._made(details.credentials, path, timeout)
                metadata = [*(_pairs(metadata) or ()), *made]
            return begin(path, requests, timeout, metadata, details.wait_for_ready, encoding)

        return interceptors.chained(self._intercepts, begin_call, wrap)(details, requests)

    def _refuse_on_plain_text(self) -> None:
        if not self._channel.is_secure:
            raise grpc.aio.UsageError("Call credentials are only valid on secure channels")  # grpcio's words

    async def _made(
        self, given: grpc.CallCredentials, path: str, timeout: float | None
    ) -> tuple[float | None, list[tuple[str, str | bytes]]]:
        """Return the metadata of call credentials, and what is left of the call's time."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        try:
            async with asyncio.timeout_at(deadline):
                made = await credentials.metadata(given, self._channel.authority, path)
        except TimeoutError as error:
            text = "the call's deadline has passed while its credentials were made"
            raise calls.failure(grpc.StatusCode.DEADLINE_EXCEEDED, text) from error
        return None if deadline is None else deadline - loop.time(), made

    def _details(
        self,
        timeout: float | None,
        metadata: Metadata,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
    ) -> grpc.aio.ClientCallDetails:
        if credentials is not None:
            self._refuse_on_plain_text()
        pairs = grpc.aio.Metadata(*(_pairs(metadata) or ()))
        # The stubs say str; grpc.aio's interceptors get bytes.
        method: Any = self._path.encode()
        return grpc.aio.ClientCallDetails(method, timeout, pairs, credentials, wait_for_ready)

    def _stream(
        self,
        path: str,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool | None,
        encoding: Encoding | None,
    ) -> Callable[[asyncio.Future[Any], asyncio.Future[calls.End]], _native.ClientStream]:
        pairs, place, box = _pairs(metadata), self._place(path), mailbox.of_running_loop()
        return lambda initial, end: self._channel.stream(
            path, pairs, place, timeout, wait_for_ready, encoding, box, initial, end
        )


class UnaryUnary(_Method, grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    """One request, one response."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        """Begin a call; `timeout` in seconds, those included that its credentials take."""
        if credentials is None and not self._intercepts:
            encoding = self._encoding(compression)
            return self._begin(self._path, request, timeout, metadata, wait_for_ready, encoding)
        details = self._details(timeout, metadata, credentials, wait_for_ready)
        making = self._intercepted(self._begin, interceptors.Answered, details, request, compression)
        return interceptors.InterceptedUnaryUnary(making, timeout)

    def _begin(
        self,
        path: str,
        request: Any,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool | None,
        encoding: Encoding | None,
    ) -> calls.UnaryUnaryCall:
        message = self._serialize(request) if self._serialize else request
        place, box = self._place(path), mailbox.of_running_loop()
        return calls.UnaryUnaryCall(
            lambda future: self._channel.unary(
                path, message, _pairs(metadata), place, timeout, wait_for_ready, encoding, box, future
            ),
            timeout,
            self._deserialize,
        )


class UnaryStream(_Method, grpc.aio.UnaryStreamMultiCallable[Any, Any]):
    """One request, many responses."""

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.UnaryStreamCall[Any, Any]:
        """Begin a call; `timeout` in seconds for all of it."""
        if credentials is None and not self._intercepts:
            encoding = self._encoding(compression)
            return self._begin(self._path, request, timeout, metadata, wait_for_ready, encoding)
        details = self._details(timeout, metadata, credentials, wait_for_ready)
        making = self._intercepted(self._begin, interceptors.Iterated, details, request, compression)
        return interceptors.InterceptedUnaryStream(making, timeout)

    def _begin(
        self,
        path: str,
        request: Any,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool | None,
        encoding: Encoding | None,
    ) -> calls.UnaryStreamCall:
        begin = self._stream(path, timeout, metadata, wait_for_ready, encoding)
        message = self._serialize(request) if self._serialize else request

        def begin_with_request(initial: asyncio.Future[Any], end: asyncio.Future[calls.End]) -> _native.ClientStream:
            stream = begin(initial, end)
            with contextlib.suppress(ConnectionError):  # it has failed already: its status says why
                stream.write(message)  # the first: there is room
                stream.done_writing()
            return stream

        return calls.UnaryStreamCall(begin_with_request, timeout, None, self._deserialize, None)


class StreamUnary(_Method, grpc.aio.StreamUnaryMultiCallable[Any, Any]):
    """Many requests, one response."""

    def __call__(
        self,
        request_iterator: Requests = None,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.StreamUnaryCall[Any, Any]:
        """Begin a call; without an iterator, `write` the requests and end them by `done_writing`."""
        if credentials is None and not self._intercepts:
            encoding = self._encoding(compression)
            return self._begin(self._path, request_iterator, timeout, metadata, wait_for_ready, encoding)
        details = self._details(timeout, metadata, credentials, wait_for_ready)
        written = interceptors.Written() if request_iterator is None else None
        requests = request_iterator if written is None else written
        making = self._intercepted(self._begin, interceptors.Answered, details, requests, compression)
        return interceptors.InterceptedStreamUnary(making, timeout, written)

    def _begin(
        self,
        path: str,
        requests: Requests,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool | None,
        encoding: Encoding | None,
    ) -> calls.StreamUnaryCall:
        begin = self._stream(path, timeout, metadata, wait_for_ready, encoding)
        return calls.StreamUnaryCall(begin, timeout, self._serialize, self._deserialize, requests)


class StreamStream(_Method, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """Many requests, many responses."""

    def __call__(
        self,
        request_iterator: Requests = None,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> grpc.aio.StreamStreamCall[Any, Any]:
        """Begin a call; without an iterator, `write` the requests and end them by `done_writing`."""
        if credentials is None and not self._intercepts:
            encoding = self._encoding(compression)
            return self._begin(self._path, request_iterator, timeout, metadata, wait_for_ready, encoding)
        details = self._details(timeout, metadata, credentials, wait_for_ready)
        written = interceptors.Written() if request_iterator is None else None
        requests = request_iterator if written is None else written
        making = self._intercepted(self._begin, interceptors.Iterated, details, requests, compression)
        return interceptors.InterceptedStreamStream(making, timeout, written)

    def _begin(
        self,
        path: str,
        requests: Requests,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool | None,
        encoding: Encoding | None,
    ) -> calls.StreamStreamCall:
        begin = self._stream(path, timeout, metadata, wait_for_ready, encoding)
        return calls.StreamStreamCall(begin, timeout, self._serialize, self._deserialize, requests)


def _pairs(metadata: Metadata) -> list[tuple[str, str | bytes]] | None:
    return None if metadata is None else [(key, value) for key, value in metadata]
