"""What every handler has around it, on both fronts: the trace of its caller, and a status for what it raises.

One decision to know: it is put around a handler once, when its service is added, and not by interceptors: those are
asked at every call, and a call outside of a trace shall cost next to nothing here.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, TypeAlias

from opentelemetry import context as contexts

import grpc
import grpc.aio
from meshwright.core.grpc import status
from meshwright.core.grpc.tracing import place

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Behavior = Callable[..., Any]


def table(service: str, methods: Mapping[str, Handler]) -> dict[str, Handler]:
    """Return the methods of a service by name, wrapped."""
    return {name: wrapped(f"/{service}/{name}", handler) for name, handler in methods.items()}


def wrapped(method: str, handler: Handler) -> Handler:
    """Return `handler` with its function wrapped."""
    sides = ("stream" if handler.request_streaming else "unary", "stream" if handler.response_streaming else "unary")
    kind = "_".join(sides)
    behavior: _Behavior = getattr(handler, kind)
    if inspect.isasyncgenfunction(behavior):
        wrap = _async_stream
    elif inspect.iscoroutinefunction(behavior):
        wrap = _async
    else:
        wrap = _sync_stream if handler.response_streaming else _sync
    changed: Handler = handler._replace(**{kind: wrap(method, behavior)})  # type: ignore[attr-defined]
    return changed


class Generic(grpc.GenericRpcHandler):
    """A handler of methods that aren't known by name, wrapped when it is asked."""

    def __init__(self, inner: grpc.GenericRpcHandler) -> None:
        self._inner = inner

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler | None:
        """Return the handler of a method; None when there is none."""
        found = self._inner.service(handler_call_details)
        return None if found is None else wrapped(handler_call_details.method, found)


def _async(method: str, behavior: _Behavior) -> _Behavior:
    @functools.wraps(behavior)
    async def answer(request: Any, context: Any) -> Any:
        try:
            parent = place(context)
            if parent is None:
                return await behavior(request, context)
            token = contexts.attach(parent)
            try:
                return await behavior(request, context)
            finally:
                contexts.detach(token)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await context.abort(*status.of(error, method))

    return answer


def _async_stream(method: str, behavior: _Behavior) -> _Behavior:
    @functools.wraps(behavior)
    async def answer(request: Any, context: Any) -> AsyncIterator[Any]:
        parent = place(context)
        if parent is not None:
            contexts.attach(parent)  # for good: a stream has a task, and with it a context, of its own
        responses = behavior(request, context)
        try:
            async for response in responses:
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            await context.abort(*status.of(error, method))
        finally:
            await responses.aclose()  # frees what the stream holds now, not when it is collected

    return answer


def _sync(method: str, behavior: _Behavior) -> _Behavior:
    @functools.wraps(behavior)
    def answer(request: Any, context: Any) -> Any:
        token = contexts.attach(place(context) or contexts.get_current())
        try:
            return behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            context.abort(*status.of(error, method))
        finally:
            contexts.detach(token)

    return answer


def _sync_stream(method: str, behavior: _Behavior) -> _Behavior:
    @functools.wraps(behavior)
    def answer(request: Any, context: Any) -> Iterator[Any]:
        try:
            yield from behavior(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            context.abort(*status.of(error, method))

    return answer
