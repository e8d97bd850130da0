"""What a handler is given beside its request: grpcio's servicer context, with the peer's descriptors on top."""

from __future__ import annotations

import asyncio
import functools
import os
import ssl
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import grpc
import grpc.aio

from meshwright.dataplane import _native
from meshwright.dataplane.grpc.compression import encoding_of
from meshwright.dataplane.grpc.descriptors import Descriptors

MetadataLike = Iterable[tuple[str, str | bytes]]

SAN = "x509_subject_alternative_name"


class Metadatum(NamedTuple):
    """One entry of metadata; keys that end in `-bin` carry bytes."""

    key: str
    value: str | bytes


@functools.lru_cache(maxsize=256)  # the certificates of the last connections: callers come again
def _pem(certificate: bytes) -> bytes:
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


class Common:
    """What contexts of async and of sync handlers share: all that needs no waiting."""

    def __init__(self, call: _native.ServerCall) -> None:
        self._call = call
        self._code: grpc.StatusCode | None = None
        self._details = ""
        self._trailing: Sequence[tuple[str, str | bytes]] = ()
        self._cancelled = False
        self._done = False
        self._callbacks: list[Callable[[Any], None]] = []
        self._pidfd: tuple[int, weakref.finalize[..., Any]] | None = None

    def peer(self) -> str:
        """Return the caller's address, e.g. "ipv4:127.0.0.1:40000" or "unix:"."""
        return self._call.address

    def peer_id(self) -> str | None:
        """Return the caller's SPIFFE ID; None without TLS."""
        return self._call.spiffe_id

    def peer_certificate(self) -> bytes | None:
        """Return the caller's leaf certificate (DER); None without TLS."""
        return self._call.certificate

    def connection(self) -> int:
        """Return the number of the caller's connection, unique in this process."""
        return self._call.connection

    def connection_age(self) -> float:
        """Return the seconds since the caller connected: a process that is younger can't have made the connection."""
        return self._call.connection_age()

    def peer_pidfd(self) -> int:
        """Return a descriptor that holds the process that connected; it is closed with this context.

        ProcessLookupError when that process had ended when its connection was accepted, ConnectionError over TCP.
        Before Linux 6.5 it is opened by number, so compare the process' start with `connection_age`.
        """
        if self._pidfd is None:
            descriptor = self._call.peer_pidfd()
            self._pidfd = descriptor, weakref.finalize(self, os.close, descriptor)
        return self._pidfd[0]

    def traceparent(self) -> str | None:
        """Return the place of this call's server span (W3C), the parent of what the handler records."""
        return self._call.traceparent

    def invocation_metadata(self) -> tuple[Metadatum, ...]:
        """Return the metadata that the caller sent."""
        return tuple(Metadatum(key, value) for key, value in self._call.metadata)

    def peer_identities(self) -> Iterable[bytes] | None:
        """Return the caller's identities: its SPIFFE ID and DNS names."""
        return self.auth_context().get(SAN)

    def peer_identity_key(self) -> str | None:
        """Return the key of `auth_context` that holds the identities."""
        return None if self._call.certificate is None else SAN

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        """Return what is known of the caller, under grpcio's keys; on Unix sockets unix_uid, unix_gid, unix_pid.

        Names are those that the authorities of the caller's trust domain may give, so DNS names of our own only.
        """
        call = self._call
        known: dict[str, Sequence[bytes]] = {}
        if call.certificate is not None:
            ids = [] if call.spiffe_id is None else [call.spiffe_id.encode()]
            hosts = [name.encode() for name in call.dns_names]
            known |= {
                "transport_security_type": [b"ssl"],
                SAN: [*ids, *hosts],
                "x509_pem_cert": [_pem(call.certificate)],
                "ssl_session_reused": [b"true" if call.session_resumed else b"false"],
            }
            known |= {key: names for key, names in (("peer_spiffe_id", ids), ("peer_dns", hosts)) if names}
        for key, number in (("unix_uid", call.uid), ("unix_gid", call.gid), ("unix_pid", call.pid)):
            if number is not None:
                known[key] = [str(number).encode()]
        return known

    def time_remaining(self) -> float | None:
        """Return the seconds until the deadline; None without one."""
        return self._call.time_remaining()

    def set_trailing_metadata(self, trailing_metadata: MetadataLike) -> None:
        """Set what is sent with the status."""
        self._trailing = tuple((key, value) for key, value in trailing_metadata)

    def trailing_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Return what was set."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode) -> None:
        """Set the status with which the call ends; other than OK, the response is discarded."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the status' text."""
        self._details = details

    def code(self) -> grpc.StatusCode | None:
        """Return the status that was set."""
        return self._code

    def details(self) -> str:
        """Return the text that was set."""
        return self._details

    def set_compression(self, compression: grpc.Compression) -> None:
        """Compress the response's messages, if the caller takes that; before the initial metadata only."""
        self._call.set_compression(encoding_of(compression))

    def disable_next_message_compression(self) -> None:
        """Send the next message as it is."""
        self._call.leave_next_plain()

    def cancelled(self) -> bool:
        """Return whether the caller went away or the deadline passed."""
        return self._cancelled

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._done or self._cancelled

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(context)` when the call has ended."""
        self._callbacks.append(callback)

    def send_descriptor(self, descriptor: int) -> None:
        """Send a duplicate of `descriptor` in front of the next bytes of the response (Unix sockets only)."""
        self._call.send_descriptor(descriptor)

    def _set_abort(self, code: grpc.StatusCode, details: str, trailing_metadata: MetadataLike) -> NoReturn:
        if code is grpc.StatusCode.OK:
            code, details = grpc.StatusCode.UNKNOWN, f"abort() was called with OK: {details}"
        self._code, self._details = code, details
        trailing = tuple((key, value) for key, value in trailing_metadata)
        if trailing:
            self._trailing = trailing
        raise grpc.aio.AbortError("Locally aborted.")

    def _finish(self, message: bytes | None, code: grpc.StatusCode, details: str) -> None:
        """End the call; the dispatcher's part."""
        self._code, self._details = code, details
        try:
            self._call.finish(message, code.value[0], details, self._trailing)
        except (TypeError, ValueError) as error:  # trailing metadata that can't be sent
            self._call.finish(None, grpc.StatusCode.INTERNAL.value[0], f"trailing {error}", ())
        self._end()

    def _end(self) -> None:
        self._done = True
        for callback in self._callbacks:
            callback(self)
        self._callbacks.clear()
        if self._pidfd is not None:
            self._pidfd[1]()


# grpcio's stubs say of some methods what its own contexts don't do (time_remaining() is None without a deadline).
class Context(Common, grpc.aio.ServicerContext[Any, Any]):  # type: ignore[misc]
    """The context of an async handler."""

    def __init__(self, call: _native.ServerCall, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        super().__init__(call)
        self._serialize = handler.response_serializer
        self._deserialize = handler.request_deserializer

    @property
    def descriptors(self) -> Descriptors:
        """The file descriptors that the caller's connection brought."""
        return Descriptors(self._call.take_descriptor)

    async def read(self) -> Any:
        """Return the next request, or `grpc.aio.EOF` after the last."""
        message = await self._receive()
        if message is None:
            return grpc.aio.EOF
        return self._deserialize(message) if self._deserialize else message

    async def write(self, message: Any) -> None:
        """Send a response; waits while the network is behind."""
        await self._send(self._serialize(message) if self._serialize else message)

    async def send_initial_metadata(self, initial_metadata: MetadataLike) -> None:
        """Send metadata ahead of the first response."""
        self._call.send_metadata(initial_metadata)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: MetadataLike = ()) -> NoReturn:
        """End the call with `code` by raising `grpc.aio.AbortError`."""
        self._set_abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status that may carry details (`grpc_status.rpc_status.to_status`)."""
        self._set_abort(status.code, status.details, status.trailing_metadata or ())

    async def _receive(self) -> bytes | None:
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._call.read(future)
        return await future

    async def _send(self, message: bytes) -> None:
        try:
            if not self._call.write(message):
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                self._call.write_later(message, future)
                await future
        except ConnectionError as error:  # the caller has gone: the task's own cancellation is on its way
            raise asyncio.CancelledError from error


class SyncContext(Common, grpc.ServicerContext):  # type: ignore[misc]
    """The context of a handler that runs in a thread; waiting blocks that thread only."""

    def __init__(self, call: _native.ServerCall, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(call)
        self._loop = loop

    def send_initial_metadata(self, initial_metadata: MetadataLike) -> None:
        """Send metadata ahead of the first response."""
        self._call.send_metadata(initial_metadata)

    def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: MetadataLike = ()) -> NoReturn:
        """End the call with `code` by raising an exception."""
        self._set_abort(code, details, trailing_metadata)

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status that may carry details (`grpc_status.rpc_status.to_status`)."""
        self._set_abort(status.code, status.details, status.trailing_metadata or ())

    def is_active(self) -> bool:
        """Return whether the caller still waits."""
        return not self.done()

    def cancel(self) -> bool:
        """End the call with CANCELLED; False when it has ended."""
        if self.done():
            return False
        self._cancelled = True
        self._call.finish(None, grpc.StatusCode.CANCELLED.value[0], "cancelled by the server", ())
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback()` when the call has ended; False when it has."""
        if self.done():
            return False
        self._callbacks.append(lambda _: callback())
        return True
