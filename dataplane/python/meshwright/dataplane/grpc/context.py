"""What a handler is given beside its request: grpcio's servicer context, with the peer's descriptors on top."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import ssl
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

import grpc
import grpc.aio

from meshwright.dataplane import _native
from meshwright.dataplane.grpc.compression import encoding_of
from meshwright.dataplane.grpc.descriptors import Descriptors
from meshwright.dataplane.grpc.method import Method

MetadataLike = Iterable[tuple[str, str | bytes]]

_LOG = logging.getLogger("meshwright.dataplane.grpc")
_NUMBERS: Final[dict[Any, int]] = {code: code.value[0] for code in grpc.StatusCode} | {
    code.value[0]: code.value[0] for code in grpc.StatusCode
}
_OK, _CANCELLED, _UNKNOWN = 0, 1, 2
_FINISHED = "the call has ended already"

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

    # What most calls never change stands on the class: making a context is on the way of every call.
    _code: grpc.StatusCode | int | None = None
    _details: str = ""
    _trailing: Sequence[tuple[str, str | bytes]] = ()
    _cancelled = False
    _done = False
    _abortion: grpc.aio.AbortError | None = None
    _callbacks: list[Callable[[Any], None]] | None = None
    _pidfd: tuple[int, weakref.finalize[..., Any]] | None = None

    def __init__(self, call: _native.ServerCall, method: Method) -> None:
        self._call = call
        self._method = method

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
        self._trailing = _pairs(trailing_metadata)

    def trailing_metadata(self) -> Sequence[tuple[str, str | bytes]]:
        """Return what was set."""
        return self._trailing

    def set_code(self, code: grpc.StatusCode | int) -> None:
        """Set the status with which the call ends; other than OK, the response is discarded."""
        self._code = code

    def set_details(self, details: str) -> None:
        """Set the status' text."""
        if not isinstance(details, str):
            raise TypeError(f"details must be str, not {type(details).__name__}")
        self._details = details

    def code(self) -> grpc.StatusCode | int | None:
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
        """Return whether the caller went away, the deadline passed, or the status is CANCELLED."""
        return self._cancelled or _number(self._code) == _CANCELLED

    def done(self) -> bool:
        """Return whether the call has ended."""
        return self._done or self._cancelled

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call `callback(context)` when the handler has ended."""
        if self._callbacks is None:
            self._callbacks = []
        self._callbacks.append(callback)

    def send_descriptor(self, descriptor: int) -> None:
        """Send a duplicate of `descriptor` in front of the next bytes of the response (Unix sockets only)."""
        self._call.send_descriptor(descriptor)

    def _abort(self, code: grpc.StatusCode | int, details: str, trailing_metadata: MetadataLike | None) -> NoReturn:
        """Say the end at once, as grpcio does: a handler that swallows the exception can't take it back."""
        if self._abortion is not None:
            raise grpc.aio.UsageError("abort() was called before")
        if self._done:
            raise grpc.aio.UsageError(_FINISHED)
        trailing = _pairs(trailing_metadata or ())
        details = details or self._details
        if _number(code) == _OK:
            code, details = grpc.StatusCode.UNKNOWN, f"abort() was called with OK: {details}"
        self._abortion = grpc.aio.AbortError("Locally aborted.")
        self._end(None, code, details, trailing or self._trailing)
        raise self._abortion

    def _raise_if_ended(self) -> None:
        """Refuse what makes no sense after the end: an abort goes on, whatever the handler did with it."""
        if self._abortion is not None:
            raise self._abortion
        if self._done:
            raise grpc.aio.UsageError(_FINISHED)

    def _answer(self, message: bytes | None) -> None:
        """End a call whose handler has returned, with its only message or, after a stream, without one."""
        if self._abortion is not None:
            _LOG.error("handler went on after abort()", extra={"method": self._call.path})
        elif not self._done:
            code = grpc.StatusCode.OK if self._code is None else self._code
            is_well = _number(code) == _OK
            self._end(message if is_well else None, code, self._details, self._trailing)

    def _end(
        self,
        message: bytes | None,
        code: grpc.StatusCode | int,
        details: str,
        trailing: Sequence[tuple[str, str | bytes]],
    ) -> None:
        self._code, self._details, self._trailing, self._done = code, details, trailing, True
        try:
            self._call.finish(message, _number(code), details, trailing)
        except (TypeError, ValueError) as error:  # trailing metadata that can't be sent
            self._code, self._details, self._trailing = grpc.StatusCode.INTERNAL, f"trailing {error}", ()
            self._call.finish(None, _number(self._code), self._details, ())

    def _tell(self) -> None:
        """Call the callbacks; the dispatcher's part, after all else."""
        self._done = True
        callbacks, self._callbacks = self._callbacks or (), None
        for callback in callbacks:
            try:
                callback(self)
            except Exception:
                _LOG.exception("done callback failed", extra={"method": self._call.path})
        if self._pidfd is not None:
            self._pidfd[1]()

    def _send_metadata(self, initial_metadata: MetadataLike) -> None:
        self._raise_if_ended()
        if not self._call.send_metadata(initial_metadata):
            raise grpc.aio.UsageError("the initial metadata has been sent already: once, and before the first message")


def _pairs(metadata: MetadataLike) -> tuple[tuple[str, str | bytes], ...]:
    """Return the metadata as it is sent, or refuse it where it is given."""
    if isinstance(metadata, dict) or not isinstance(metadata, Iterable):
        raise TypeError(f"metadata must be a sequence of (key, value), not {type(metadata).__name__}")
    pairs = tuple(metadata)
    for pair in pairs:
        if not isinstance(pair, tuple) or len(pair) != 2:
            raise TypeError(f"metadata must be a sequence of (key, value), and {pair!r} is none")
    return pairs


def _number(code: grpc.StatusCode | int | None) -> int:
    """Return gRPC's number; of what is none, UNKNOWN's."""
    known = _NUMBERS.get(code)
    return _UNKNOWN if known is None else known


# grpcio's stubs say of some methods what its own contexts don't do (time_remaining() is None without a deadline).
class Context(Common, grpc.aio.ServicerContext[Any, Any]):  # type: ignore[misc]
    """The context of an async handler."""

    @property
    def descriptors(self) -> Descriptors:
        """The file descriptors that the caller's connection brought."""
        return Descriptors(self._call.take_descriptor)

    async def read(self) -> Any:
        """Return the next request, or `grpc.aio.EOF` after the last."""
        self._raise_if_ended()
        message = self._call.take()
        if message is False:
            message = await self._arrival()
            self._raise_if_ended()
        return grpc.aio.EOF if message is None else self._method.deserialize(message)

    async def write(self, message: Any) -> None:
        """Send a response; waits while the network is behind."""
        self._raise_if_ended()
        await self._send(self._method.serialize(message))

    def write_now(self, message: bytes) -> bool:
        """Send a response that is bytes already, if the network has room; False: nothing was sent, and `write` waits.

        For who writes to many calls in one turn. ConnectionError when the caller has gone.
        """
        self._raise_if_ended()
        return self._call.write(message)

    async def send_initial_metadata(self, initial_metadata: MetadataLike) -> None:
        """Send metadata ahead of the first response."""
        self._send_metadata(initial_metadata)

    async def abort(
        self, code: grpc.StatusCode | int, details: str = "", trailing_metadata: MetadataLike = ()
    ) -> NoReturn:
        """End the call with `code`, at once, and raise `grpc.aio.AbortError`."""
        self._abort(code, details, trailing_metadata)

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status that may carry details (`grpc_status.rpc_status.to_status`)."""
        self._abort(status.code, status.details, status.trailing_metadata)

    async def _arrival(self) -> bytes | None:
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


class CallOverError(grpc.RpcError):
    """A sync handler waits for requests, or sends responses, of a call whose caller has gone."""


class SyncContext(Common, grpc.ServicerContext):  # type: ignore[misc]
    """The context of a handler that runs in a thread; waiting blocks that thread only."""

    def send_initial_metadata(self, initial_metadata: MetadataLike) -> None:
        """Send metadata ahead of the first response."""
        self._send_metadata(initial_metadata)

    def abort(self, code: grpc.StatusCode | int, details: str = "", trailing_metadata: MetadataLike = ()) -> NoReturn:
        """End the call with `code`, at once, and raise `grpc.aio.AbortError`."""
        self._abort(code, details, trailing_metadata)

    def abort_with_status(self, status: grpc.Status) -> NoReturn:
        """End the call with a status that may carry details (`grpc_status.rpc_status.to_status`)."""
        self._abort(status.code, status.details, status.trailing_metadata)

    def is_active(self) -> bool:
        """Return whether the caller still waits."""
        return not self.done()

    def cancel(self) -> bool:
        """End the call with CANCELLED; False when it has ended."""
        if self._done:
            return False
        self._cancelled = True
        self._end(None, grpc.StatusCode.CANCELLED, "cancelled by the server", ())
        self._tell()
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call `callback()` when the call has ended; False when it has."""
        if self.done():
            return False
        self.add_done_callback(lambda _: callback())
        return True

    def _requests(self) -> Iterator[Any]:
        while (message := self._read()) is not None:
            yield self._method.deserialize(message)

    def _read(self) -> bytes | None:
        self._raise_if_over()
        try:
            return self._call.read_blocking()
        except ConnectionError as error:
            raise self._over() from error

    def _write(self, message: Any) -> None:
        self._raise_if_over()
        try:
            self._call.write_blocking(self._method.serialize(message))
        except ConnectionError as error:
            raise self._over() from error

    def _raise_if_over(self) -> None:
        if self._cancelled:
            raise self._over()
        self._raise_if_ended()

    def _over(self) -> CallOverError:
        self._cancelled = True  # the loop hears of it by itself, perhaps later
        return CallOverError("the caller has gone, or the deadline has passed")
