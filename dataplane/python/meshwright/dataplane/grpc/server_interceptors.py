"""Interceptors of a server, run as grpc.aio runs them: each may look at a call, answer it, or replace its handler."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from meshwright.dataplane.grpc.method import Handler

Find = Callable[[grpc.HandlerCallDetails], "Handler | None"]
Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Any]]


class CallDetails(grpc.HandlerCallDetails):
    """What interceptors and generic handlers are asked with."""

    def __init__(self, method: str, invocation_metadata: Sequence[tuple[str, str | bytes]]) -> None:
        self.method = method
        self.invocation_metadata = tuple(invocation_metadata)


class Interceptors:
    """The interceptors of one server, first to last."""

    def __init__(self, interceptors: Sequence[grpc.aio.ServerInterceptor], find: Find) -> None:
        for interceptor in interceptors:
            if not isinstance(interceptor, grpc.aio.ServerInterceptor):
                text = f"interceptors: {interceptor!r} is no grpc.aio.ServerInterceptor; make it a subclass"
                raise ValueError(text)  # noqa: TRY004  # as grpc.aio
        self._find = find
        self._continuations = self._chain(interceptors)

    def _chain(self, interceptors: Sequence[grpc.aio.ServerInterceptor]) -> Continuation:
        """Return what asks the first, made once: it costs nothing per call to be asked by the one before."""

        async def ask_handlers(details: grpc.HandlerCallDetails) -> Any:
            return self._find(details)

        chain: Continuation = ask_handlers
        for interceptor in reversed(interceptors):
            chain = _asking(interceptor, chain)
        return chain

    async def handler(self, details: CallDetails) -> Handler | None:
        """Return the handler that the call gets; None when there is no such method."""
        handler: Handler | None = await self._continuations(details)
        return handler


def _asking(interceptor: grpc.aio.ServerInterceptor, following: Continuation) -> Continuation:
    async def ask(details: grpc.HandlerCallDetails) -> Any:
        return await interceptor.intercept_service(following, details)

    return ask
