"""When a request is tried again, so that an endpoint's restart fails nobody and nothing is done twice.

A request that never reached an application may be repeated whatever its method; one that may have reached it only when
its method is idempotent (RFC 9110 §9.2.2). The server's proxy says which it was in a header of its own, because it is
the one that knows whether the application's socket took the request.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from meshwright.api.envoy.config.accesslog.v3.accesslog_pb2 import AccessLogFilter, ResponseFlagFilter
from meshwright.api.envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from meshwright.api.envoy.config.route.v3.route_components_pb2 import HeaderMatcher, RetryPolicy
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    LocalReplyConfig,
    ResponseMapper,
)
from meshwright.api.envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from meshwright.api.envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config_pb2 import (
    PreviousPrioritiesConfig,
)
from meshwright.api.envoy.type.matcher.v3.regex_pb2 import RegexMatcher
from meshwright.api.envoy.type.matcher.v3.string_pb2 import StringMatcher
from meshwright.manager.model.routing import Retries
from meshwright.manager.xds import wire
from meshwright.manager.xds.quantity import duration

HEADER = "x-meshwright-upstream"
_UNREACHED, _RESET = "unreached", "reset"


def idempotent_methods() -> HeaderMatcher:
    """Match requests that may safely be done twice."""
    regex = RegexMatcher(regex="GET|HEAD|OPTIONS|PUT|DELETE")
    return HeaderMatcher(name=":method", string_match=StringMatcher(safe_regex=regex))


def unreached(retries: Retries | None = None, attempt_seconds: float | None = None) -> RetryPolicy:
    """Repeat what reached no application; `retries` may say how often, `attempt_seconds` how long one may take."""
    made = _policy("connect-failure,refused-stream,reset-before-request,retriable-headers", _UNREACHED)
    return _adjusted(made, retries, attempt_seconds)


def idempotent(retries: Retries | None = None, attempt_seconds: float | None = None) -> RetryPolicy:
    """Repeat also what may have reached one."""
    made = _policy("connect-failure,refused-stream,reset,retriable-headers", _UNREACHED, _RESET)
    return _adjusted(made, retries, attempt_seconds)


def stated(retries: Retries, attempt_seconds: float | None) -> RetryPolicy:
    """Repeat on what a route names, whatever the method, and what reached no application."""
    statuses = sorted({int(word) for word in retries.on if word.isdecimal()})
    words = dict.fromkeys(word for word in retries.on if not word.isdecimal())
    more = (["retriable-status-codes"] if statuses else []) + ["retriable-headers"]
    made = _policy(",".join(dict.fromkeys([*words, *more])), _UNREACHED)
    made.retriable_status_codes.extend(statuses)
    return _adjusted(made, retries, attempt_seconds)


def _adjusted(made: RetryPolicy, retries: Retries | None, attempt_seconds: float | None) -> RetryPolicy:
    if attempt_seconds:
        made.per_try_timeout.CopyFrom(duration(attempt_seconds))
    if retries is None:
        return made
    made.num_retries.value = retries.attempts
    if retries.backoff_seconds:
        base = max(retries.backoff_seconds, 0.001)
        made.retry_back_off.base_interval.CopyFrom(duration(base))
        made.retry_back_off.max_interval.CopyFrom(duration(10 * base))
    if not retries.another_host:
        made.ClearField("retry_host_predicate")
        made.ClearField("host_selection_retry_max_attempts")
    if retries.remote_localities:
        made.retry_priority.name = "envoy.retry_priorities.previous_priorities"
        made.retry_priority.typed_config.CopyFrom(wire.pack(PreviousPrioritiesConfig(update_frequency=2)))
    return made


def mark_failures() -> LocalReplyConfig:
    """Let the server's proxy say why it answered in the application's place."""
    return LocalReplyConfig(mappers=[_mapper(_UNREACHED, "UF", "UO", "UH"), _mapper(_RESET, "UC", "UR")])


def _mapper(value: str, *flags: str) -> ResponseMapper:
    return ResponseMapper(
        filter=AccessLogFilter(response_flag_filter=ResponseFlagFilter(flags=flags)),
        headers_to_add=[
            HeaderValueOption(
                header=HeaderValue(key=HEADER, value=value),
                append_action=HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
            )
        ],
    )


def _policy(retry_on: str, *marks: str) -> RetryPolicy:
    return RetryPolicy(
        retry_on=retry_on,
        num_retries=UInt32Value(value=6),
        retriable_headers=[HeaderMatcher(name=HEADER, string_match=StringMatcher(exact=mark)) for mark in marks],
        retry_host_predicate=[
            RetryPolicy.RetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts", typed_config=wire.pack(PreviousHostsPredicate())
            )
        ],
        host_selection_retry_max_attempts=5,
        # Six tries in about two seconds: the time in which a supervisor has restarted a process.
        retry_back_off=RetryPolicy.RetryBackOff(
            base_interval=Duration(nanos=25_000_000), max_interval=Duration(seconds=1)
        ),
    )
