"""The gRPC server: `grpc.aio.Server`'s interface on the Rust transport."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
import grpc.aio

from meshwright.dataplane import _native
from meshwright.dataplane.grpc import identity as identities
from meshwright.dataplane.grpc import mailbox
from meshwright.dataplane.grpc.compression import encoding_of
from meshwright.dataplane.grpc.dispatch import RUNNERS, Dispatch
from meshwright.dataplane.grpc.limits import Limits
from meshwright.dataplane.grpc.method import Handler
from meshwright.dataplane.grpc.stall import StallWatch

_LOG = logging.getLogger("meshwright.dataplane.grpc")


class NativeServer(grpc.aio.Server):
    """Serves generated servicers (`add_XServicer_to_server(servicer, server)`), async and sync, and native services.

    `listen` is "host:port" or "unix:/path", or several of them. Without `identity` it speaks plain text, which is
    refused but for loopback addresses and Unix sockets.
    `authorize` lists (path prefix, caller patterns), e.g. ("/registry.NetworkServiceRegistry/", ["spiffe://a.b/*"]):
    the first that fits decides, a trailing `*` matches any ending, what no rule allows is PERMISSION_DENIED. A pattern
    "dns:host" fits a DNS name; only with such a rule clients without a SPIFFE ID are let in. Callers without TLS are
    named "unix:uid=1000" or "anonymous". Without `authorize` every authenticated caller may call all.
    `interceptors` are grpc.aio's, run in their order; one that makes a handler of one request into one of many gets a
    stream of that one request.
    `stall_seconds` is for how long a handler may block the event loop before the log warns of it; 0 for no such watch.
    `compression` is how responses are compressed where the caller takes it and the handler says nothing else.
    `tls_versions` may have "1.2" beside "1.3" for old clients, which then can't resume sessions.
    `sample_roots` is the share (0-1) of calls without a caller's trace that get a span.
    `metrics` counts calls and their durations by method and status, for `meshwright.dataplane.telemetry`.
    `access_log` says by the prefix of their path ("" for all others) which calls are recorded for `access_records`:
    "off", "failed" (refused, or failed on this side) or "all". Without it none are.
    """

    def __init__(
        self,
        listen: str | Sequence[str],
        identity: identities.IdentitySource | None,
        *,
        authorize: Sequence[tuple[str, Sequence[str]]] | None = None,
        native: Sequence[_native.NativeServices] = (),
        limits: Limits | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        compression: grpc.Compression | None = None,
        stall_seconds: float = 0.1,
        sample_roots: float = 0.0,
        metrics: bool = True,
        access_log: Mapping[str, str] | None = None,
        socket_mode: int = 0o600,
        tls_versions: Sequence[str] = identities.TLS_VERSIONS,
    ) -> None:
        self._listen = [listen] if isinstance(listen, str) else list(listen)
        if identity is None:
            for address in self._listen:
                _refuse_plain_text_beyond(address)
        self._identity = identity
        self._tls_versions = tls_versions
        self._authorize = None if authorize is None else _native.Rules(authorize)
        self._native = list(native)
        self._limits = limits or Limits()
        self._compression = encoding_of(compression)
        self._sample_roots, self._metrics = sample_roots, metrics
        self._access_log = list((access_log or {}).items())
        self._socket_mode = socket_mode
        self._dispatch = Dispatch(threads=self._limits.threads, interceptors=interceptors)
        self._stall_seconds = stall_seconds
        self._server: _native.GrpcServer | None = None
        self._unfollow: Callable[[], None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._stopped = asyncio.Event()

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        """Answer the methods of a service; generated code calls this."""
        self._refuse_when_started()
        for method, handler in method_handlers.items():
            self._dispatch.add(f"/{service_name}/{method}", handler)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ask these handlers for methods that aren't registered by name."""
        self._refuse_when_started()
        for handler in generic_rpc_handlers:
            # Generated code adds each service both ways. The known table of the first way saves a question a call.
            table: Mapping[str, Handler] | None = getattr(handler, "_method_handlers", None)
            if table is None:
                self._dispatch.add_generic(handler)
            else:
                for path, method in table.items():
                    self._dispatch.add(path, method)

    def add_insecure_port(self, address: str) -> NoReturn:
        """Not here: the constructor's `listen` names the addresses."""
        raise grpc.aio.UsageError("name addresses by NativeServer(listen=...)")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> NoReturn:
        """Not here: the constructor's `listen` and `identity` decide."""
        raise grpc.aio.UsageError("name addresses by NativeServer(listen=..., identity=...)")

    @property
    def addresses(self) -> list[str]:
        """The bound addresses, with the ports that the kernel chose; empty before the start."""
        return self._server.addresses if self._server else []

    def stats(self) -> dict[str, int]:
        """Return the counters by name: connections, handshakes and calls."""
        return self._server.stats() if self._server else {}

    def access_records(self, most: int) -> list[_native.AccessRecord]:
        """Take records of calls that ended, at most `most`; when nobody does, new ones are dropped and counted."""
        return self._server.access_records(most) if self._server else []

    async def start(self) -> str:  # type: ignore[override]  # grpcio's returns nothing; the bound address is worth it
        """Bind and serve on the running loop; return the first bound address. OSError when it can't be bound."""
        self._refuse_when_started()
        native, self._unfollow = (
            identities.follow(self._identity, self._tls_versions) if self._identity else (None, None)
        )
        methods, begin_other = self._dispatch.start()
        self._server = _native.GrpcServer(
            listen=self._listen,
            socket_mode=self._socket_mode,
            identity=native,
            authorize=self._authorize,
            limits=self._limits,
            compression=self._compression,
            root_share=self._sample_roots,
            metrics=self._metrics,
            access_log=self._access_log,
            native=self._native,
            methods=methods,
            begin_other=begin_other,
            mailbox=mailbox.of_running_loop(),
            on_cancel=self._dispatch.on_cancel,
            on_notice=_log_notice,
            stall=self._stall_seconds,
            on_stall=StallWatch(self._stall_seconds, RUNNERS).look,
        )
        return self._server.addresses[0]

    async def stop(self, grace: float | None) -> None:
        """Accept no more, let calls finish for `grace` seconds, then end the rest. Another stop can hasten it."""
        if self._server is None:
            return
        if self._ending is None:
            loop = asyncio.get_running_loop()
            closed: asyncio.Future[None] = loop.create_future()
            self._server.drain(closed)
            self._ending = loop.create_task(self._end(closed), name="grpc server ends")
        if grace:
            await asyncio.wait({self._ending}, timeout=grace)
        self._server.end()
        await asyncio.shield(self._ending)

    async def _end(self, closed: asyncio.Future[None]) -> None:
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        await closed
        await self._dispatch.stop()
        self._stopped.set()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped; return whether it still runs after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._stopped.wait()
        except TimeoutError:
            return True
        return False

    def _refuse_when_started(self) -> None:
        if self._server is not None:
            raise grpc.aio.UsageError("the server has started already; add handlers before start()")


def _refuse_plain_text_beyond(address: str) -> None:
    if address.startswith("unix:"):
        return
    host = address.rpartition(":")[0].strip("[]")
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise ValueError(
            f"listen: {address!r} without an identity would speak plain text beyond this host; "
            "give an identity, or listen on 127.0.0.1, [::1] or a Unix socket"
        )


def _log_notice(event: str, peer: str, reason: str) -> None:
    extra: dict[str, Any] = {"peer": peer, "reason": reason}
    _LOG.warning(event, extra=extra)
