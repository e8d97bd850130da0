"""The gRPC channel: `grpc.aio.Channel`'s interface on the Rust transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from meshwright.dataplane import _native
from meshwright.dataplane.grpc import calls, mailbox
from meshwright.dataplane.grpc import identity as identities
from meshwright.dataplane.grpc.compression import Encoding, encoding_of
from meshwright.dataplane.grpc.descriptors import Descriptors
from meshwright.dataplane.grpc.limits import Limits

Metadata = Sequence[tuple[str, str | bytes]] | grpc.aio.Metadata | None


class NativeChannel(grpc.aio.Channel):
    """Calls one server, over TCP ("host:port") or a Unix socket ("unix:/path"), with generated stubs.

    `peer` names whom it takes for its server: a SPIFFE ID, with a trailing `*` the beginning of one
    ("spiffe://mesh.local/ns/shop/*"), or "" for any member of the own trust domain. Without `identity` it speaks plain
    text. One connection is made on demand, made again with a capped back-off when it breaks, and replaced without
    losing a call when the identity rotates. `compression` is what a call compresses its requests in unless it says
    otherwise. Used on one event loop.
    """

    def __init__(
        self,
        target: str,
        identity: identities.IdentitySource | None,
        *,
        peer: str = "",
        limits: Limits | None = None,
        compression: grpc.Compression | None = None,
    ) -> None:
        self._target = target
        self._compression = encoding_of(compression)
        self._unfollow: Callable[[], None] | None = None
        native = None
        if identity is not None:
            native, self._unfollow = identities.follow(identity)
        self._channel = _native.GrpcChannel(target, identity=native, peer=peer, limits=limits or Limits())

    async def __aenter__(self) -> Self:
        """Return the channel; connections are made on demand."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Refuse further calls; calls under way end with the connection."""
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        self._channel.close()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return where the channel stands; `try_to_connect` begins to connect."""
        if try_to_connect:
            self._channel.connect()
        return grpc.ChannelConnectivity[self._channel.state[0]]

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait until the state is another one."""
        await self._waited(lambda box, future: self._channel.wait_for_change(last_observed_state.name, box, future))

    async def channel_ready(self) -> None:
        """Wait for a connection, for as long as it takes."""
        await self._waited(self._channel.ready)

    async def ready(self, timeout: float = 30.0) -> None:
        """Wait up to `timeout` seconds for a connection; AioRpcError UNAVAILABLE with the reason when there is none."""
        try:
            async with asyncio.timeout(timeout):
                await self.channel_ready()
        except (TimeoutError, ConnectionError) as error:
            reason = self._channel.state[1] or str(error) or "still connecting"
            text = f"no connection to {self._target} within {timeout:g} s: {reason}"
            raise calls.failure(grpc.StatusCode.UNAVAILABLE, text) from error

    def peer_id(self) -> str | None:
        """Return the server's SPIFFE ID; None while there is no connection (see `ready`) or without TLS."""
        peer = self._channel.peer()
        return peer["spiffe_id"] if peer else None

    def peer_certificate(self) -> bytes | None:
        """Return the server's leaf certificate (DER), as `peer_id`."""
        peer = self._channel.peer()
        return peer["certificate"] if peer else None

    @property
    def descriptors(self) -> Descriptors:
        """The file descriptors that the server has sent (Unix sockets)."""
        box = mailbox.of_running_loop()
        return Descriptors(
            lambda device, inode, timeout, future: self._channel.take_descriptor(device, inode, timeout, box, future)
        )

    def send_descriptor(self, descriptor: int) -> None:
        """Send a duplicate of `descriptor` in front of the next call (Unix sockets)."""
        self._channel.send_descriptor(descriptor)

    def unary_unary(
        self,
        method: str,
        request_serializer: calls.Serializer = None,
        response_deserializer: calls.Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryUnary:
        """Return what makes calls of `method`; generated stubs call this."""
        return UnaryUnary(self._channel, method, request_serializer, response_deserializer, self._compression)

    def unary_stream(
        self,
        method: str,
        request_serializer: calls.Serializer = None,
        response_deserializer: calls.Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        """Return what makes calls of `method`; generated stubs call this."""
        return UnaryStream(self._channel, method, request_serializer, response_deserializer, self._compression)

    def stream_unary(
        self,
        method: str,
        request_serializer: calls.Serializer = None,
        response_deserializer: calls.Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        """Return what makes calls of `method`; generated stubs call this."""
        return StreamUnary(self._channel, method, request_serializer, response_deserializer, self._compression)

    def stream_stream(
        self,
        method: str,
        request_serializer: calls.Serializer = None,
        response_deserializer: calls.Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        """Return what makes calls of `method`; generated stubs call this."""
        return StreamStream(self._channel, method, request_serializer, response_deserializer, self._compression)

    async def _waited(self, begin: Callable[[_native.Mailbox, asyncio.Future[None]], _native.Running]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running = begin(mailbox.of_running_loop(), future)
        try:
            await future
        finally:
            running.cancel()


class _Method:
    """One method of a server."""

    def __init__(
        self,
        channel: _native.GrpcChannel,
        path: str,
        serialize: calls.Serializer,
        deserialize: calls.Deserializer,
        compression: Encoding | None,
    ) -> None:
        self._channel, self._path = channel, path
        self._serialize, self._deserialize = serialize, deserialize
        self._compression = compression

    def _encoding(self, compression: grpc.Compression | None) -> Encoding | None:
        return self._compression if compression is None else encoding_of(compression)

    def _begin_stream(
        self,
        timeout: float | None,
        metadata: Metadata,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> Callable[[asyncio.Future[Any], asyncio.Future[calls.End]], _native.ClientStream]:
        pairs, encoding, box = _pairs(metadata), self._encoding(compression), mailbox.of_running_loop()
        return lambda initial, end: self._channel.stream(
            self._path, pairs, timeout, bool(wait_for_ready), encoding, box, initial, end
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
    ) -> calls.UnaryUnaryCall:
        """Begin a call; `timeout` in seconds. Call credentials aren't taken: the identity is the channel's."""
        _refuse(credentials)
        message = self._serialize(request) if self._serialize else request
        encoding, box = self._encoding(compression), mailbox.of_running_loop()
        return calls.UnaryUnaryCall(
            lambda future: self._channel.unary(
                self._path, message, _pairs(metadata), timeout, bool(wait_for_ready), encoding, box, future
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
    ) -> calls.UnaryStreamCall:
        """Begin a call; `timeout` in seconds for all of it."""
        _refuse(credentials)
        begin = self._begin_stream(timeout, metadata, wait_for_ready, compression)
        message = self._serialize(request) if self._serialize else request

        def begin_with_request(initial: asyncio.Future[Any], end: asyncio.Future[calls.End]) -> _native.ClientStream:
            stream = begin(initial, end)
            stream.write(message)  # the first: there is room
            stream.done_writing()
            return stream

        return calls.UnaryStreamCall(begin_with_request, timeout, None, self._deserialize, None)


class StreamUnary(_Method, grpc.aio.StreamUnaryMultiCallable[Any, Any]):
    """Many requests, one response."""

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> calls.StreamUnaryCall:
        """Begin a call; without an iterator, `write` the requests and end them by `done_writing`."""
        _refuse(credentials)
        begin = self._begin_stream(timeout, metadata, wait_for_ready, compression)
        return calls.StreamUnaryCall(begin, timeout, self._serialize, self._deserialize, request_iterator)


class StreamStream(_Method, grpc.aio.StreamStreamMultiCallable[Any, Any]):
    """Many requests, many responses."""

    def __call__(
        self,
        request_iterator: AsyncIterable[Any] | Iterable[Any] | None = None,
        timeout: float | None = None,
        metadata: Metadata = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> calls.StreamStreamCall:
        """Begin a call; without an iterator, `write` the requests and end them by `done_writing`."""
        _refuse(credentials)
        begin = self._begin_stream(timeout, metadata, wait_for_ready, compression)
        return calls.StreamStreamCall(begin, timeout, self._serialize, self._deserialize, request_iterator)


def _pairs(metadata: Metadata) -> list[tuple[str, str | bytes]] | None:
    return None if metadata is None else [(key, value) for key, value in metadata]


def _refuse(credentials: grpc.CallCredentials | None) -> None:
    if credentials is not None:
        raise grpc.aio.UsageError("credentials: this channel's identity is its certificate; send tokens as metadata")
