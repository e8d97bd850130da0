"""Where calls belong in a trace (W3C `traceparent`): what a handler's spans and a channel's calls hang on.

One decision to know: native server and channel record their own spans, in Rust; only grpc.aio's server needs an
interceptor for it, which makes a span for each unary call in a trace that somebody records. Names and attributes follow
OpenTelemetry's semantic conventions for RPC.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.trace import SpanKind, StatusCode

import grpc
from meshwright.core.conventions import SERVER_FAULTS

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_SILENT = ("/grpc.health.", "/opentelemetry.")  # telling of telling would never end


def _tracer() -> trace.Tracer:
    return trace.get_tracer("meshwright.core.grpc")


def _semantics(method: str) -> dict[str, str]:
    return {"rpc.system.name": "grpc", "rpc.method": method.strip("/")}


def _is_recorded(context: contexts.Context | None = None) -> bool:
    return trace.get_current_span(context).get_span_context().trace_flags.sampled


def place(context: Any) -> contexts.Context | None:
    """Return the parent of what a call's handler records: the native server's span, else the caller's; None without."""
    if hasattr(context, "traceparent"):
        parent = context.traceparent()
        return extract({"traceparent": parent}) if parent else None
    if trace.get_current_span().get_span_context().is_valid:
        return None  # the interceptor below has a span for this call
    carrier = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    return extract(carrier) if "traceparent" in carrier else None


def traceparent(path: str) -> str | None:
    """Return where in a trace calls belong that are made now: for native channels, which record their spans in Rust."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid or path.startswith(_SILENT):
        return None
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags & 1:02x}"


class _Server(grpc.aio.ServerInterceptor):
    async def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        handler = await continuation(details)
        if handler is None or handler.unary_unary is None or details.method.startswith(_SILENT):
            return handler
        carrier = {key: value for key, value in details.invocation_metadata if isinstance(value, str)}
        remote = extract(carrier)
        if not _is_recorded(remote):
            return handler
        behaviour = functools.partial(_traced, handler.unary_unary, details.method, remote)
        return handler._replace(unary_unary=behaviour)


async def _traced(behaviour: Any, method: str, remote: contexts.Context, request: Any, context: Any) -> Any:
    with _tracer().start_as_current_span(
        method.strip("/"), context=remote, kind=SpanKind.SERVER, attributes=_semantics(method)
    ) as span:
        try:
            return await behaviour(request, context)
        finally:
            code = _code_of(context)
            span.set_attribute("rpc.response.status_code", code)
            if code in SERVER_FAULTS:
                span.set_attribute("error.type", code)
                span.set_status(StatusCode.ERROR, context.details() or None)


def _code_of(context: Any) -> str:
    code = context.code() or grpc.StatusCode.OK  # grpcio says 0, a number, for OK
    return code.name if isinstance(code, grpc.StatusCode) else _CODES[code].name


def server_interceptors() -> list[Any]:
    """Return what grpc.aio's server needs to record its part of its callers' traces."""
    return [_Server()]
