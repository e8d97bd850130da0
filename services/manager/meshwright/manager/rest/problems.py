"""Errors as ``application/problem+json`` (RFC 9457): what is wrong, in which field of which object, and the remedy."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import responses

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager.model.fault import Fault

MEDIA_TYPE = "application/problem+json"

_STATUS: dict[type[errors.MeshwrightError], HTTPStatus] = {
    errors.ConfigError: HTTPStatus.BAD_REQUEST,
    errors.NotFound: HTTPStatus.NOT_FOUND,
    errors.Compacted: HTTPStatus.GONE,
    errors.Conflict: HTTPStatus.CONFLICT,
    errors.Unauthorized: HTTPStatus.UNAUTHORIZED,
    errors.Forbidden: HTTPStatus.FORBIDDEN,
    errors.Exhausted: HTTPStatus.TOO_MANY_REQUESTS,
    errors.DeadlineExceeded: HTTPStatus.GATEWAY_TIMEOUT,
    errors.Unavailable: HTTPStatus.SERVICE_UNAVAILABLE,
}

_log = structlog.get_logger(__name__)


class TooLarge(errors.Exhausted):
    """A body is larger than is taken."""


class WrongType(errors.ConfigError):
    """A body is of a media type that isn't taken."""


class TooSlow(errors.DeadlineExceeded):
    """A body didn't come in time."""


_STATUS |= {
    TooLarge: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    WrongType: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    TooSlow: HTTPStatus.REQUEST_TIMEOUT,
}


def problem(error: Exception) -> responses.JSONResponse:
    """Return the answer for an error; what isn't ours goes to the log, because it may hold anything."""
    if not isinstance(error, errors.MeshwrightError):
        _log.error("handler_failed", exc_info=error)
        return _response(HTTPStatus.INTERNAL_SERVER_ERROR, "the manager failed: its log says how")
    status = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), HTTPStatus.BAD_REQUEST)
    # What is left of a body that isn't taken is not read: the connection ends.
    headers = {"connection": "close"} if isinstance(error, (TooLarge, TooSlow)) else None
    named = {"field": error.field, "remedy": error.remedy} if isinstance(error, errors.ConfigError) else {}
    more = {name: value for name, value in named.items() if value}
    return _response(status, str(error), headers, **more)


def refusal(faults: Iterable[Fault]) -> responses.JSONResponse:
    """Return the answer for objects that were judged and refused: every fault, and that nothing was applied."""
    violations = [fault(found) for found in faults]
    return _response(HTTPStatus.UNPROCESSABLE_ENTITY, "nothing was changed: see violations", violations=violations)


def fault(found: Fault) -> dict[str, Any]:
    """Return a fault or a warning."""
    return {"object": key(found.key), "field": found.field, "message": found.message, "index": found.index}


def key(found: Key) -> dict[str, str]:
    """Return what an object is found by."""
    return {
        "apiVersion": found.api_version,
        "kind": found.kind,
        "namespace": found.namespace,
        "name": found.name,
    }


def _response(
    status: HTTPStatus, detail: str, headers: dict[str, str] | None = None, /, **more: Any
) -> responses.JSONResponse:
    content = {"type": "about:blank", "title": status.phrase, "status": int(status), "detail": detail, **more}
    return responses.JSONResponse(content, status_code=int(status), headers=headers, media_type=MEDIA_TYPE)
