"""The one place that turns an exception of a handler into a gRPC status, on both fronts.

One decision to know: callers read our own errors word for word, because they name field and remedy; what isn't ours may
hold anything, so it goes to the log and the caller learns only where to look.
"""

from __future__ import annotations

import structlog

import grpc
from meshwright.core import errors

_CODES: dict[type[errors.MeshwrightError], grpc.StatusCode] = {
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.Compacted: grpc.StatusCode.OUT_OF_RANGE,
    errors.Conflict: grpc.StatusCode.ABORTED,
    errors.Unauthorized: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.Exhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}

_log = structlog.get_logger(__name__)


def code(error: BaseException) -> grpc.StatusCode:
    """Return the status code of an error: UNKNOWN for one of ours that has none, INTERNAL for what isn't ours."""
    for kind in type(error).__mro__:
        if kind in _CODES:
            return _CODES[kind]
    return grpc.StatusCode.UNKNOWN if isinstance(error, errors.MeshwrightError) else grpc.StatusCode.INTERNAL


def of(error: BaseException, method: str) -> tuple[grpc.StatusCode, str]:
    """Return code and text for an exception of `method`'s handler; log it when it isn't ours."""
    if isinstance(error, errors.MeshwrightError):
        return code(error), str(error)
    _log.error("handler_failed", method=method, exc_info=error)
    return code(error), f"{method} failed here; the log of this part has the reason"
