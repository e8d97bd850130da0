"""grpc.aio's server as the other front: mutual TLS that follows the rotation of its identity, and authorization.

One decision to know: it takes what `NativeServer` takes, as far as grpcio can, so that one setting moves a service
between the two, and the services' tests can tell whether a fault is the transport's or the service's.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio
from meshwright.core import listener
from meshwright.core.grpc.authorization import Authorization, AuthorizationInterceptor
from meshwright.core.grpc.tracing import server_interceptors
from meshwright.core.identity import IdentitySource, X509Identity
from meshwright.dataplane.grpc import Limits


class AioServer(grpc.aio.Server):
    """See `meshwright.core.grpc.Server`, which makes it."""

    def __init__(
        self,
        listen: Sequence[str],
        identity: IdentitySource | None,
        *,
        authorize: Authorization | None,
        limits: Limits,
        interceptors: Sequence[grpc.aio.ServerInterceptor],
        compression: grpc.Compression | None,
        socket_mode: int,
    ) -> None:
        guards = [] if authorize is None else [AuthorizationInterceptor(authorize)]
        self._listen, self._identity, self._socket_mode = listen, identity, socket_mode
        self._server: Any = grpc.aio.server(
            interceptors=[*server_interceptors(), *guards, *interceptors],
            options=_options(limits),
            compression=compression,
        )
        self._served: X509Identity | None = None
        self.addresses: list[str] = []

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Any]) -> None:
        """Answer the methods of a service."""
        self._server.add_registered_method_handlers(service_name, dict(method_handlers))
        self._server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service_name, dict(method_handlers)),)
        )

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """Ask these handlers for methods that aren't registered by name."""
        self._server.add_generic_rpc_handlers(tuple(generic_rpc_handlers))

    def add_insecure_port(self, address: str) -> NoReturn:
        """Not here: the constructor's `listen` names the addresses."""
        raise grpc.aio.UsageError("name addresses by Server(listen=...)")

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> NoReturn:
        """Not here: the constructor's `listen` and `identity` decide."""
        raise grpc.aio.UsageError("name addresses by Server(listen=..., identity=...)")

    async def start(self) -> str:  # type: ignore[override]  # as NativeServer's
        """Bind and serve; return the first bound address. OSError when it can't be bound."""
        self.addresses = [self._bind(address) for address in self._listen]
        await self._server.start()
        return self.addresses[0]

    async def stop(self, grace: float | None) -> None:
        """Stop accepting; let calls end for `grace` seconds, then cancel them."""
        await self._server.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:
        """Wait until the server has stopped; return whether it still runs after `timeout` seconds."""
        runs: bool = await self._server.wait_for_termination(timeout)
        return runs

    def _bind(self, address: str) -> str:
        path = address.removeprefix("unix:") if address.startswith("unix:") else None
        if path is not None:
            listener.remove_stale(Path(path))  # grpcio would take a served socket's place without a word
        try:
            with _file_mode(self._socket_mode):
                if self._identity is None:
                    port = self._server.add_insecure_port(address)
                else:
                    port = self._server.add_secure_port(address, self._credentials())
        except RuntimeError as error:
            raise OSError(errno.EADDRINUSE, f"{error}") from error
        return address if path is not None else f"{address.rpartition(':')[0]}:{port}"

    def _credentials(self) -> Any:
        return grpc.dynamic_ssl_server_credentials(
            self._configuration(), self._configuration_if_changed, require_client_authentication=True
        )

    def _configuration(self) -> Any:
        assert self._identity is not None
        identity = self._served = self._identity.current()
        return grpc.ssl_server_certificate_configuration(
            [(identity.key_pem, identity.cert_chain_pem)], root_certificates=identity.bundle_pem
        )

    def _configuration_if_changed(self) -> Any:
        """Asked by grpcio at every handshake, on a thread of its own; None keeps the last answer."""
        assert self._identity is not None
        return None if self._identity.current() is self._served else self._configuration()


def _options(limits: Limits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.message_size),
        ("grpc.max_send_message_length", limits.message_size),
        ("grpc.max_metadata_size", limits.metadata_size),
        ("grpc.max_concurrent_streams", limits.concurrent_streams),
        ("grpc.server_handshake_timeout_ms", int(limits.handshake_seconds * 1000)),
        ("grpc.so_reuseport", 0),  # a taken port must be an error, not a silent second server
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.max_ping_strikes", 5),
    ]


@contextlib.contextmanager
def _file_mode(mode: int) -> Iterator[None]:
    """Make sockets with these rights from the start; it is the process's, and so held for the binding only."""
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)
