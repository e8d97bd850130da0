"""A method as the server runs it: what its handler is, found out once when it is added and not at every call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "__meshwright_nonblocking__"


def nonblocking(handler: Function) -> Function:
    """Mark a sync handler that never waits: it runs on the event loop itself, which costs a third of a thread's turn.

    For handlers of one request and one response that only compute, and briefly: no files, no locks, no other services.
    Whatever it takes, every other call of the process waits for it. grpc.aio's server takes no notice of the mark.
    """
    setattr(handler, _MARK, True)
    return handler


class Method:
    """One method: its path, its handler and the handler's nature."""

    __slots__ = (
        "behavior",
        "deserialize",
        "handler",
        "is_async",
        "is_generator",
        "is_nonblocking",
        "path",
        "request_streaming",
        "response_streaming",
        "serialize",
    )

    def __init__(self, path: str, handler: Handler) -> None:
        self.path = path
        self.handler = handler
        self.request_streaming: bool = handler.request_streaming
        self.response_streaming: bool = handler.response_streaming
        self.deserialize: Callable[[bytes], Any] = handler.request_deserializer or _same
        self.serialize: Callable[[Any], bytes] = handler.response_serializer or _same
        behavior = _behavior(handler)
        if behavior is None:
            raise TypeError(f"{path}: the handler has no function for its kind of call")
        self.behavior: Callable[..., Any] = behavior
        self.is_generator = inspect.isasyncgenfunction(behavior)
        self.is_async = self.is_generator or inspect.iscoroutinefunction(behavior)
        self.is_nonblocking = bool(getattr(behavior, _MARK, False))
        if self.is_nonblocking and (self.is_async or self.request_streaming or self.response_streaming):
            raise TypeError(f"{path}: nonblocking is for sync handlers of one request and one response")


def _behavior(handler: Handler) -> Callable[..., Any] | None:
    behavior: Callable[..., Any] | None
    if handler.request_streaming:
        behavior = handler.stream_stream if handler.response_streaming else handler.stream_unary
    else:
        behavior = handler.unary_stream if handler.response_streaming else handler.unary_unary
    return behavior


def _same(message: Any) -> Any:
    return message
