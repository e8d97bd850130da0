"""A grpc.aio server with mutual TLS that follows the rotation of its identity.

Services add generated servicers to it (`add_XServicer_to_server(servicer, server)`) as to grpc.aio's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc
from meshwright.core import errors, settings
from meshwright.core.grpc import limits
from meshwright.core.grpc.authorization import Authorization, AuthorizationInterceptor
from meshwright.core.grpc.tracing import server_interceptors
from meshwright.core.identity import IdentitySource, X509Identity


class Server:
    """One listener. `identity=None` serves plain text, on loopback or a Unix socket only.

    `interceptors` None continues the callers' traces.
    """

    def __init__(
        self,
        listen: str,
        identity: IdentitySource | None,
        *,
        authorize: Authorization | None = None,
        interceptors: Sequence[Any] | None = None,
    ) -> None:
        if identity is None and not settings.is_local(listen):
            raise errors.ConfigError(
                f"{listen} can be reached from other machines",
                field="listen",
                remedy="plain text is only served on loopback or a Unix socket: give an identity",
            )
        tracing = server_interceptors() if interceptors is None else interceptors
        guards = [AuthorizationInterceptor(authorize)] if authorize and identity else []
        self._listen, self._identity = listen, identity
        self._server: Any = grpc.aio.server(interceptors=[*tracing, *guards], options=limits.SERVER_OPTIONS)
        self._served: X509Identity | None = None

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Take handlers as grpc.aio.Server does; generated code calls this."""
        self._server.add_generic_rpc_handlers(tuple(handlers))

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        """Take handlers as grpc.aio.Server does; generated code calls this."""
        self._server.add_registered_method_handlers(service, handlers)

    async def start(self) -> str:
        """Bind and serve; return the bound address, with the port that was taken for port 0."""
        try:
            if self._identity is None:
                port = self._server.add_insecure_port(self._listen)
            else:
                port = self._server.add_secure_port(self._listen, self._credentials())
        except RuntimeError as error:
            raise errors.Unavailable(f"can't listen on {self._listen}: {error}") from error
        await self._server.start()
        if self._listen.startswith("unix:"):
            return self._listen
        return f"{self._listen.rpartition(':')[0]}:{port}"

    async def stop(self, grace: float | None = 2.0) -> None:
        """Stop accepting; let calls end for `grace` seconds, then cancel them."""
        await self._server.stop(grace)

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
