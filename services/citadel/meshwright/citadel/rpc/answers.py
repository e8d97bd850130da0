"""The one place where citadel's errors become gRPC statuses."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from meshwright.core import errors
from meshwright.core.grpc import status

Unary = Callable[[Any, Any, Any], Awaitable[Any]]
Stream = Callable[[Any, Any, Any], AsyncIterator[Any]]


def unary(method: Unary) -> Unary:
    """Answer a unary call; an error of ours becomes its status, with its message."""

    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: Any) -> Any:
        try:
            return await method(self, request, context)
        except errors.MeshwrightError as error:
            await context.abort(status.code(error), str(error))

    return answer


def stream(method: Stream) -> Stream:
    """Answer a stream; an error of ours ends it with its status and message."""

    @functools.wraps(method)
    async def answer(self: Any, request: Any, context: Any) -> AsyncIterator[Any]:
        responses = method(self, request, context)
        try:
            async for response in responses:
                yield response
        except errors.MeshwrightError as error:
            await context.abort(status.code(error), str(error))
        finally:
            await responses.aclose()  # type: ignore[attr-defined]  # an async generator: frees what it holds now

    return answer
