"""The channel to a part of the platform: the native one, with a deadline for every unary call and the trace passed on.

One decision to know: peers are named by SPIFFE ID alone. The deadline isn't an interceptor: those make a task of each
call, and a call shall cost no more here than on the bare channel.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc
import grpc.aio
from meshwright.core import errors, settings
from meshwright.core.grpc import limits as default_limits
from meshwright.core.grpc import metrics, tracing
from meshwright.core.identity import IdentitySource
from meshwright.dataplane.grpc import ChannelOptions, Limits, NativeChannel
from meshwright.dataplane.grpc.methods import no_place

_OPTIONS = ChannelOptions(
    keep_alive_seconds=30.0,  # the platform's servers take it: a peer that vanished is missed within a minute
    keep_alive_timeout_seconds=10.0,
    longest_back_off_seconds=2.0,  # parts of one mesh restart within seconds
)


class Channel(NativeChannel):
    """Usable with generated stubs. `peer` is the SPIFFE ID that the server must have, see `NativeChannel`.

    `traced=False` is for telemetry itself, which must not tell of its telling.
    """

    def __init__(
        self,
        target: str,
        identity: IdentitySource | None,
        *,
        peer: str | None = None,
        traced: bool = True,
        limits: Limits | None = None,
        interceptors: Sequence[grpc.aio.ClientInterceptor] | None = None,
        service_config: Mapping[str, Any] | None = None,
    ) -> None:
        if identity is None and not settings.is_local(target):
            raise errors.ConfigError(f"{target} isn't local", field="target", remedy="give an identity")
        if identity is not None and peer is None:
            raise errors.ConfigError("who must answer isn't said", field="peer", remedy="give the server's SPIFFE ID")
        super().__init__(
            target,
            identity,
            peer=peer or "",
            limits=limits or default_limits.DEFAULT,
            interceptors=interceptors,
            service_config=service_config,
            options=_OPTIONS,
            traceparent=tracing.traceparent if traced else no_place,
        )
        metrics.install()

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        """Return what makes calls of `method`; a deadline is set when the caller gives none."""
        return functools.partial(_unary, super().unary_unary(method, *arguments, **options))


def _unary(begin: Callable[..., Any], request: Any, *, timeout: float | None = None, **options: Any) -> Any:
    timeout = default_limits.DEFAULT_DEADLINE_SECONDS if timeout is None else timeout
    return begin(request, timeout=timeout, **options)
