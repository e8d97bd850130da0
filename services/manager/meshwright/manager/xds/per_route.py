"""What routes tell the filters of callers' proxies: faults, other origins (CORS), and headers of other names.

The filters are in every chain (`filters.routed`) and do nothing for routes that tell them nothing, so that listeners
stay as they are when routes change.
"""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import BoolValue

from meshwright.api.envoy.config.common.mutation_rules.v3.mutation_rules_pb2 import HeaderMutation
from meshwright.api.envoy.config.core.v3.base_pb2 import RuntimeFractionalPercent
from meshwright.api.envoy.extensions.filters.common.fault.v3.fault_pb2 import FaultDelay
from meshwright.api.envoy.extensions.filters.http.cors.v3.cors_pb2 import CorsPolicy
from meshwright.api.envoy.extensions.filters.http.fault.v3.fault_pb2 import FaultAbort, HTTPFault
from meshwright.api.envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import (
    HeaderMutationPerRoute,
    Mutations,
)
from meshwright.manager.model.routing import Cors, Fault, HttpRoute, Text, TextMatch
from meshwright.manager.xds import headers, match, wire
from meshwright.manager.xds.quantity import duration, fraction

HEADERS, CORS, FAULT = "envoy.filters.http.header_mutation", "envoy.filters.http.cors", "envoy.filters.http.fault"

# The names by which Envoy's filters know what a request may set itself.
_TIMEOUT, _RETRIES = "x-envoy-upstream-rq-timeout-ms", "x-envoy-max-retries"
_DELAY, _ABORT = "x-envoy-fault-delay-request", "x-envoy-fault-abort-request"


def configurations(route: HttpRoute) -> Iterator[tuple[str, Any]]:
    """Yield what a route tells each filter, by the filter's name."""
    if renamed := list(_renamed(route)):
        yield HEADERS, wire.pack(HeaderMutationPerRoute(mutations=Mutations(request_mutations=renamed)))
    if route.cors is not None:
        yield CORS, wire.pack(_cors(route.cors))
    if route.fault is not None and (fault := _fault(route.fault)) is not None:
        yield FAULT, wire.pack(fault)


def _renamed(route: HttpRoute) -> Iterator[HeaderMutation]:
    fault = route.fault or Fault()
    pairs = (
        (_TIMEOUT, route.timeout_header),
        (_RETRIES, route.retries_header),
        (_DELAY, fault.delay_header),
        (_ABORT, fault.abort_header),
    )
    for known, given in pairs:
        if given and given.lower() != known:
            yield HeaderMutation(append=headers.option(known, f"%REQ({given})%", keep=False))


def _cors(cors: Cors) -> CorsPolicy:
    policy = CorsPolicy(
        allow_origin_string_match=[match.string(_bounded(origin)) for origin in cors.origins],
        allow_methods=",".join(cors.methods),
        allow_headers=",".join(cors.headers),
        expose_headers=",".join(cors.exposed),
        max_age="" if cors.max_age_seconds is None else str(cors.max_age_seconds),
        filter_enabled=RuntimeFractionalPercent(default_value=fraction(100)),
        forward_not_matching_preflights=BoolValue(value=cors.unmatched_preflights),
    )
    if cors.credentials:
        policy.allow_credentials.value = True
    return policy


def _bounded(origin: TextMatch) -> TextMatch:
    return TextMatch(Text.REGEX, ".*") if origin == TextMatch(Text.EXACT, "*") else origin


def _fault(fault: Fault) -> HTTPFault | None:
    made = HTTPFault()
    if fault.delay_header:
        made.delay.header_delay.SetInParent()
        made.delay.percentage.CopyFrom(fraction(fault.delay_percent or 100))
    elif fault.delay_percent and fault.delay_seconds:
        made.delay.CopyFrom(
            FaultDelay(fixed_delay=duration(fault.delay_seconds), percentage=fraction(fault.delay_percent))
        )
    if fault.abort_header:
        made.abort.header_abort.SetInParent()
        made.abort.percentage.CopyFrom(fraction(fault.abort_percent or 100))
    elif fault.abort_percent and (fault.http_status or fault.grpc_status is not None):
        made.abort.CopyFrom(FaultAbort(percentage=fraction(fault.abort_percent)))
        if fault.http_status:
            made.abort.http_status = fault.http_status
        else:
            made.abort.grpc_status = fault.grpc_status or 0
    return made if made.HasField("delay") or made.HasField("abort") else None
