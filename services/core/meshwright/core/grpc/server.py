"""The server of every service, on one of two fronts: the Rust one, or grpc.aio's for who wants to compare.

One decision to know: services add generated servicers to it (`add_XServicer_to_server(servicer, server)`) as to
grpc.aio's own server and know of no front; a need that only the native front can meet is said by `requires`, and is an
error at the start on the other, not a surprise at a call.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn

import grpc
import grpc.aio
from meshwright.core import access_rules, errors, settings, sockets
from meshwright.core.grpc import handlers, metrics
from meshwright.core.grpc import limits as default_limits
from meshwright.core.grpc.access_log import Writer
from meshwright.core.grpc.aio import AioServer
from meshwright.core.grpc.authorization import Authorization
from meshwright.core.identity import IdentitySource
from meshwright.dataplane.grpc import Limits, NativeServer
from meshwright.dataplane.grpc.identity import TLS_VERSIONS

Front = Literal["native", "aio"]


class Server(grpc.aio.Server):
    """`listen` is "host:port" or "unix:/path", or several of them.

    `identity=None` is plain text, which only loopback addresses and Unix sockets serve.
    `authorize` says who may call what; in plain text it is asked only if it names Unix users ("unix:uid=1000").
    `native` are services that Rust answers. `requires` names what the servicers need of the native front, in words for
    an error message. `part` is who serves, for the same. `interceptors` and `compression` are grpc.aio's.
    `tls_versions` may have "1.2" beside "1.3" for old clients; grpc.aio's front takes both in any case. `access_log`
    says which calls get a line in the log (see `access_rules`); grpc.aio's front writes none.
    """

    def __init__(
        self,
        listen: str | Sequence[str],
        identity: IdentitySource | None,
        *,
        front: Front = "native",
        part: str = "",
        authorize: Authorization | None = None,
        native: Sequence[Any] = (),
        requires: Sequence[str] = (),
        limits: Limits | None = None,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        compression: grpc.Compression | None = None,
        tls_versions: Sequence[str] = TLS_VERSIONS,
        access_log: str = access_rules.DEFAULT,
        socket_mode: int = 0o600,
    ) -> None:
        self._listen = [listen] if isinstance(listen, str) else list(listen)
        self._part = part or "this process"
        self._by_name: set[str] = set()
        self._generic: list[grpc.GenericRpcHandler] = []
        if identity is None:
            for address in self._listen:
                _refuse_plain_text_beyond(address)
            if authorize is not None and not authorize.names_unix_users:
                authorize = None
        limits = limits or default_limits.DEFAULT
        self._front: NativeServer | AioServer
        self._writer: Writer | None = None
        if front == "native":
            self._front = NativeServer(
                self._listen,
                identity,
                authorize=authorize.rules if authorize else None,
                native=native,
                limits=limits,
                interceptors=interceptors,
                compression=compression,
                tls_versions=tls_versions,
                access_log=access_rules.parse(access_log),
                socket_mode=socket_mode,
            )
        else:
            _refuse_native_needs(native, requires, identity, authorize)
            self._front = AioServer(
                self._listen,
                identity,
                authorize=authorize,
                limits=limits,
                interceptors=interceptors,
                compression=compression,
                socket_mode=socket_mode,
            )

    @property
    def addresses(self) -> list[str]:
        """The bound addresses, with the ports that were taken for port 0; empty before the start."""
        return self._front.addresses

    @property
    def services(self) -> tuple[str, ...]:
        """The full names of the services that were added, in order."""
        tables = (one.service_name() for one in self._generic if isinstance(one, grpc.ServiceRpcHandler))
        return tuple(sorted({*self._by_name, *(name for name in tables if name)}))

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Answer the methods of a service; generated code calls this."""
        self._by_name.add(service_name)
        self._front.add_registered_method_handlers(service_name, handlers.table(service_name, method_handlers))

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ask these handlers for methods that aren't registered by name."""
        self._generic += generic_rpc_handlers

    def add_insecure_port(self, address: str) -> NoReturn:
        """Not here: the constructor's `listen` names the addresses."""
        raise grpc.aio.UsageError("name addresses by Server(listen=...)")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> NoReturn:
        """Not here: the constructor's `listen` and `identity` decide."""
        raise grpc.aio.UsageError("name addresses by Server(listen=..., identity=...)")

    async def start(self) -> str:  # type: ignore[override]  # grpcio's returns nothing; the bound address is worth it
        """Bind and serve; return the first bound address. Unavailable names an address that can't be had, and why."""
        # Generated code adds each service both ways; asking what is known by name would cost every call.
        unknown = [one for one in self._generic if not self._is_known(one)]
        if unknown:
            self._front.add_generic_rpc_handlers([handlers.Generic(one) for one in unknown])
        try:
            address = await self._front.start()
        except OSError as error:
            raise errors.Unavailable(self._refusal(error)) from error
        if isinstance(self._front, NativeServer):
            metrics.register(self._front)
            self._writer = Writer(self._front)
            self._writer.start()
        return address

    async def stop(self, grace: float | None = 2.0) -> None:
        """Stop accepting; let calls end for `grace` seconds, then cancel them."""
        await self._front.stop(grace)
        if self._writer is not None:
            await self._writer.stop()

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped; return whether it still runs after `timeout` seconds."""
        return await self._front.wait_for_termination(timeout)

    def _is_known(self, handler: grpc.GenericRpcHandler) -> bool:
        return isinstance(handler, grpc.ServiceRpcHandler) and handler.service_name() in self._by_name

    def _refusal(self, error: OSError) -> str:
        held = {address: holder for address in self._listen if (holder := sockets.holder_of(address)) is not None}
        reasons = [f"{address} is held by {holder}" for address, holder in held.items()]
        where = ", ".join(held or self._listen)
        reason = "; ".join(reasons) or error.strerror or str(error)
        return f"{self._part} can't listen on {where}: {reason} (end that process, or choose another address: --listen)"


def _refuse_plain_text_beyond(address: str) -> None:
    if not settings.is_local(address):
        raise errors.ConfigError(
            f"{address} can be reached from other machines",
            field="listen",
            remedy="plain text is only served on loopback or a Unix socket: give an identity",
        )


def _refuse_native_needs(
    native: Sequence[Any],
    requires: Sequence[str],
    identity: IdentitySource | None,
    authorize: Authorization | None,
) -> None:
    needs = list(requires)
    if native:
        needs.append("services that Rust answers")
    if authorize is not None and authorize.names_unix_users:
        needs.append("authorization of Unix users")
    if needs:
        raise errors.ConfigError(
            f"grpc.aio's server has no {', no '.join(needs)}",
            field="grpc_front",
            remedy="use the native front: --grpc-front native",
        )
