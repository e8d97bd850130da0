"""The gRPC channel: `grpc.aio.Channel`'s interface on the Rust transport."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import grpc
import grpc.aio

from meshwright.dataplane import _native
from meshwright.dataplane.grpc import calls, mailbox
from meshwright.dataplane.grpc import identity as identities
from meshwright.dataplane.grpc.compression import encoding_of
from meshwright.dataplane.grpc.descriptors import Descriptors
from meshwright.dataplane.grpc.interceptors import Interceptors
from meshwright.dataplane.grpc.limits import Limits
from meshwright.dataplane.grpc.methods import Place, StreamStream, StreamUnary, UnaryStream, UnaryUnary, no_place
from meshwright.dataplane.grpc.options import ChannelOptions
from meshwright.dataplane.grpc.outside import OutsideTls

_M = TypeVar("_M", UnaryUnary, UnaryStream, StreamUnary, StreamStream)


class NativeChannel(grpc.aio.Channel):
    """Calls a target with generated stubs.

    The target is as gRPC names it: "host:port" or "dns:///host:port", "ipv4:address:port,…", "ipv6:[address]:port,…",
    "unix:/path" or "unix-abstract:name". `service_config` (a dict or its JSON) says how calls are spread over several
    addresses, when a failed call is tried again, and what holds for single methods; gRPC defines its fields.

    `peer` names whom it takes for its server: a SPIFFE ID, with a trailing `*` the beginning of one
    ("spiffe://mesh.local/ns/shop/*"), "dns:host" for a server of which only a DNS name is known, or "" for any member
    of the own trust domain. `tls_versions` may have "1.2" beside "1.3" for old servers. `outside` in place of an
    identity is for servers that don't belong to the mesh. Without either it speaks plain text. Connections are made on
    demand, made again with a capped back-off when they break, and replaced without losing a call when the identity
    rotates. `compression` is what a call compresses its requests in unless it says otherwise; `interceptors` are
    grpc.aio's, the first outermost. `traceparent(path)` is asked at each call for the place in a trace that it belongs
    to: the call passes it on, and in a recorded trace gets a span. Used on one event
    loop.
    """

    def __init__(
        self,
        target: str,
        identity: identities.IdentitySource | None,
        *,
        peer: str = "",
        outside: OutsideTls | None = None,
        limits: Limits | None = None,
        compression: grpc.Compression | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
        service_config: Mapping[str, Any] | str | None = None,
        options: ChannelOptions | None = None,
        tls_versions: Sequence[str] = identities.TLS_VERSIONS,
        traceparent: Place = no_place,
    ) -> None:
        self._target, self._place = target, traceparent
        self._interceptors = Interceptors(interceptors)
        self._compression = encoding_of(compression)
        self._unfollow: Callable[[], None] | None = None
        config = json.dumps(service_config) if isinstance(service_config, Mapping) else service_config
        native = None
        if identity is not None and outside is not None:
            raise ValueError("identity and outside: a server belongs to the mesh or doesn't; give one of them")
        if identity is not None:
            native, self._unfollow = identities.follow(identity, tls_versions)
        try:
            self._channel = _native.GrpcChannel(
                target,
                identity=native,
                peer=peer,
                outside=outside,
                limits=limits or Limits(),
                options=options or ChannelOptions(),
                service_config=config,
            )
        except BaseException:
            self._stop_following()
            raise

    def _stop_following(self) -> None:
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None

    async def __aenter__(self) -> Self:
        """Return the channel; connections are made on demand."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the channel."""
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Refuse further calls, give those under way `grace` seconds, and cancel the rest."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channel.close(grace or 0.0, mailbox.of_running_loop(), future)
        await future
        self._stop_following()

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Return where the channel stands; `try_to_connect` then begins to connect."""
        state = self._channel.state[0]
        if try_to_connect:
            self._channel.connect()
        return grpc.ChannelConnectivity[state]

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
        intercepts = self._interceptors.unary_unary
        return self._method(UnaryUnary, intercepts, method, request_serializer, response_deserializer)

    def unary_stream(
        self,
        method: str,
        request_serializer: calls.Serializer = None,
        response_deserializer: calls.Deserializer = None,
        _registered_method: bool | None = False,
    ) -> UnaryStream:
        """Return what makes calls of `method`; generated stubs call this."""
        intercepts = self._interceptors.unary_stream
        return self._method(UnaryStream, intercepts, method, request_serializer, response_deserializer)

    def stream_unary(
        self,
        method: str,
        request_serializer: calls.Serializer = None,
        response_deserializer: calls.Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamUnary:
        """Return what makes calls of `method`; generated stubs call this."""
        intercepts = self._interceptors.stream_unary
        return self._method(StreamUnary, intercepts, method, request_serializer, response_deserializer)

    def stream_stream(
        self,
        method: str,
        request_serializer: calls.Serializer = None,
        response_deserializer: calls.Deserializer = None,
        _registered_method: bool | None = False,
    ) -> StreamStream:
        """Return what makes calls of `method`; generated stubs call this."""
        intercepts = self._interceptors.stream_stream
        return self._method(StreamStream, intercepts, method, request_serializer, response_deserializer)

    def _method(
        self,
        kind: type[_M],
        intercepts: Sequence[Any],
        path: str,
        serialize: calls.Serializer,
        deserialize: calls.Deserializer,
    ) -> _M:
        return kind(self._channel, path, serialize, deserialize, self._compression, intercepts, self._place)

    async def _waited(self, begin: Callable[[_native.Mailbox, asyncio.Future[None]], _native.Running]) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        running = begin(mailbox.of_running_loop(), future)
        try:
            await future
        finally:
            running.cancel()
