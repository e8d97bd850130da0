"""The configuration that exists when `--otlp` is given: every reported record becomes OpenTelemetry logs and metrics.

They are ordinary documents of the namespace whose rules apply everywhere; one that the user applies under the same name
replaces ours.
Metrics and labels are named as Istio's standard metrics, log attributes as in OpenTelemetry's semantic conventions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from meshwright.core.config import objects
from meshwright.mixer.cexl import ValueType, compile_expression
from meshwright.mixer.config.documents import identity_of
from meshwright.mixer.config.violation import API_VERSION

SOURCE = "built in"


_INBOUND = '(context.reporter.kind | "inbound") == "inbound"'
_DIMENSIONS = {
    "reporter": f'conditional({_INBOUND}, "destination", "source")',
    "source_workload": 'source.workload.name | "unknown"',
    "source_workload_namespace": 'source.workload.namespace | "unknown"',
    "source_principal": 'source.principal | "unknown"',
    "destination_workload": 'destination.workload.name | "unknown"',
    "destination_workload_namespace": 'destination.workload.namespace | "unknown"',
    "destination_principal": 'destination.principal | "unknown"',
    "destination_service": 'destination.service.host | "unknown"',
    "destination_service_name": 'destination.service.name | "unknown"',
    "destination_service_namespace": 'destination.service.namespace | "unknown"',
    "connection_security_policy": (
        f'conditional({_INBOUND}, conditional(connection.mtls | false, "mutual_tls", "none"), "unknown")'
    ),
    "response_flags": 'context.proxy_error_code | "-"',
}
_REQUEST = {
    **_DIMENSIONS,
    "request_protocol": 'api.protocol | context.protocol | "unknown"',
    "response_code": "response.code | 0",
}
_LOG = {
    "http.request.method": "request.method",
    "url.path": "request.url_path | request.path",
    "url.scheme": "request.scheme",
    "server.address": "request.host",
    "server.port": "destination.port",
    "user_agent.original": "request.useragent",
    "http.response.status_code": "response.code",
    "http.request.body.size": "request.size",
    "http.response.body.size": "response.size",
    "rpc.grpc.status_code": "response.grpc_status",
    "request.id": "request.id",
    "network.protocol.name": "context.protocol",
    "network.peer.address": "source.ip",
    "duration": "response.duration | connection.duration",
    "reporter.kind": "context.reporter.kind",
    "response.flags": "context.proxy_error_code",
    "tls.mutual": "connection.mtls",
    "tls.server_name": "connection.requested_server_name",
    "source.principal": "source.principal",
    "source.workload.name": "source.workload.name",
    "source.workload.namespace": "source.workload.namespace",
    "destination.principal": "destination.principal",
    "destination.workload.name": "destination.workload.name",
    "destination.workload.namespace": "destination.workload.namespace",
    "destination.service.host": "destination.service.host",
    "destination.service.name": "destination.service.name",
    "destination.service.namespace": "destination.service.namespace",
}
_METRICS = [
    {
        "instance": "requestcount",
        "name": "istio_requests_total",
        "kind": "COUNTER",
        "unit": "1",
        "description": "Requests that a proxy has seen the end of.",
    },
    {
        "instance": "requestduration",
        "name": "istio_request_duration_milliseconds",
        "kind": "DISTRIBUTION",
        "unit": "ms",
        "description": "Time from a request's first byte to its response's last.",
    },
    {
        "instance": "connectioncount",
        "name": "istio_tcp_connections_closed_total",
        "kind": "COUNTER",
        "unit": "1",
        "description": "TCP connections that a proxy has seen the end of.",
    },
]


_ABSENT = {
    ValueType.STRING: '""',
    ValueType.INT64: "0",
    ValueType.BOOL: "false",
    ValueType.DURATION: '"0s"',
    ValueType.IP_ADDRESS: 'ip("0.0.0.0")',
}


def _always(source: str) -> str:
    """The expression with a default: the engine leaves an instance out when one of its fields finds nothing."""
    return f"{source} | {_ABSENT[compile_expression(source).type]}"


def _metric(value: str, dimensions: Mapping[str, str]) -> dict[str, Any]:
    return {"compiledTemplate": "metric", "params": {"value": value, "dimensions": dimensions}}


def _built_in(namespace: str, kind: str, name: str, spec: Mapping[str, Any]) -> objects.Object:
    metadata = {"namespace": namespace, "name": name}
    document = {"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec}
    return objects.from_document(document, SOURCE)


def _rule(match: str, *instances: str) -> dict[str, Any]:
    return {"match": match, "actions": [{"handler": "opentelemetry", "instances": [*instances]}]}


_HAS_ENDED = '(connection.event | "close") == "close"'
_IS_REPORTED = '(otlp.signal | "") == ""'
_IS_REQUEST = f'(context.protocol | "http") != "tcp" && {_IS_REPORTED}'
_LOG_ENTRY = {
    "variables": {name: _always(source) for name, source in _LOG.items()},
    "timestamp": 'request.time | context.time | context.timestamp | timestamp("1970-01-01T00:00:00Z")',
    "severity": 'conditional((response.code | 0) >= 500, "error", "info")',
}
_DOCUMENTS: tuple[tuple[str, str, Mapping[str, Any]], ...] = (
    ("handler", "opentelemetry", {"compiledAdapter": "opentelemetry", "params": {"metrics": _METRICS}}),
    ("instance", "accesslog", {"compiledTemplate": "logentry", "params": _LOG_ENTRY}),
    ("instance", "requestcount", _metric("1", _REQUEST)),
    ("instance", "requestduration", _metric('response.duration | "0s"', _REQUEST)),
    ("instance", "connectioncount", _metric("1", _DIMENSIONS)),
    ("instance", "telemetry", {"compiledTemplate": "otlp"}),
    # What is logged of a stream or connection while it lasts is a line of the log; it counts when it has ended.
    (
        "rule",
        "telemetry-http",
        _rule(f"{_IS_REQUEST} && {_HAS_ENDED}", "accesslog", "requestcount", "requestduration"),
    ),
    ("rule", "telemetry-tcp", _rule(f'context.protocol == "tcp" && {_HAS_ENDED}', "accesslog", "connectioncount")),
    ("rule", "telemetry-open", _rule(f'{_IS_REPORTED} && (connection.event | "close") != "close"', "accesslog")),
    ("rule", "telemetry-otlp", _rule('context.protocol == "otlp"', "telemetry")),
)


@cache
def _all(namespace: str) -> tuple[objects.Object, ...]:
    return tuple(_built_in(namespace, *each) for each in _DOCUMENTS)


def documents(given: Iterable[objects.Object], namespace: str) -> list[objects.Object]:
    """The built-in documents, in the namespace whose rules apply everywhere, that none of `given` replaces."""
    taken = {identity_of(each) for each in given if each.api_version == API_VERSION}
    return [each for each in _all(namespace) if identity_of(each) not in taken]
