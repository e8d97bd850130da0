"""Faults on purpose (HTTPFaultInjection, L4FaultInjection) of a RouteRule.

One decision to know: what the first manager only announced works where Envoy can do it: an abort by gRPC status, and an
exponential delay as its mean (with a notice, as Envoy's delays are fixed). What Envoy can't do at all is refused by
name: an HTTP/2 error code, and faults of plain connections.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from meshwright.manager.classic.message import Message
from meshwright.manager.model import grpc_status as grpc
from meshwright.manager.model.duration import Period
from meshwright.manager.model.headers import HeaderName

Percent = Annotated[float, Field(ge=0, le=100, strict=False)]
HttpStatus = Annotated[int, Field(ge=0, le=600)]


def proxy_status(status: int) -> int:
    """Accept a status that a proxy can answer with (RFC 9110 §15)."""
    if not 200 <= status <= 599:
        raise ValueError(f"is {status}: proxies answer with 200 to 599")
    return status


class Delay(Message):
    """Requests that wait. A request may ask for its own delay by `override_header_name`."""

    percent: Percent = 100.0
    fixed_delay: Period | None = None
    exponential_delay: Period | None = None
    override_header_name: HeaderName | None = None

    @model_validator(mode="after")
    def _one_length(self) -> Delay:
        if (self.fixed_delay is None) == (self.exponential_delay is None):
            raise ValueError("needs one length: write fixedDelay, or exponentialDelay with its mean")
        return self


class Abort(Message):
    """Requests that are answered with an error at once."""

    percent: Percent = 100.0
    http_status: Annotated[HttpStatus, AfterValidator(proxy_status)] | None = None
    grpc_status: Annotated[int, PlainValidator(grpc.code)] | None = None
    http2_error: Any = None
    override_header_name: HeaderName | None = None

    @model_validator(mode="after")
    def _one_error(self) -> Abort:
        if self.http2_error is not None:
            raise ValueError("has http2Error, which proxies can't send on purpose: write httpStatus or grpcStatus")
        if (self.http_status is None) == (self.grpc_status is None):
            raise ValueError("needs one error: write httpStatus or grpcStatus")
        return self


class HttpFault(Message):
    """A delay, an abort, or both: first the request waits."""

    delay: Delay | None = None
    abort: Abort | None = None

    @model_validator(mode="after")
    def _something(self) -> HttpFault:
        if self.delay is None and self.abort is None:
            raise ValueError("does nothing: write delay, abort or both")
        return self
