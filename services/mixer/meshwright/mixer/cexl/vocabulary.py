"""The attributes that expressions may read, with their types: the standard Mixer vocabulary and Meshwright's own.

A name that isn't here is an error when configuration is compiled, never a surprise at request time.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from meshwright.mixer.cexl.types import ValueType

_PROXY: dict[ValueType, str] = {
    ValueType.STRING: """
        origin.uid origin.user request.id request.host request.method request.path request.url_path request.reason
        request.referer request.scheme request.useragent request.api_key request.auth.principal request.auth.audiences
        request.auth.presenter request.auth.raw_claims response.grpc_status response.grpc_message
        source.uid source.user source.principal destination.uid destination.user destination.principal
        connection.event connection.id connection.requested_server_name
        context.protocol context.proxy_error_code context.proxy_version context.reporter.kind context.reporter.uid
        context.reporter.type api.service api.version api.operation api.protocol check.error_message
        rbac.permissive.response_code rbac.permissive.effective_policy_id
    """,
    ValueType.INT64: """
        request.size request.total_size response.code response.size response.total_size source.port destination.port
        connection.received.bytes connection.received.bytes_total connection.sent.bytes connection.sent.bytes_total
        check.error_code
    """,
    ValueType.BOOL: "connection.mtls check.cache_hit quota.cache_hit context.reporter.local",
    ValueType.TIMESTAMP: "request.time response.time context.time context.timestamp",
    ValueType.DURATION: "response.duration connection.duration",
    ValueType.IP_ADDRESS: "origin.ip",
    ValueType.STRING_MAP: "request.headers request.query_params request.auth.claims response.headers",
}

_PLATFORM: dict[ValueType, str] = {
    ValueType.STRING: """
        source.name source.namespace source.owner source.service source.services source.serviceAccount
        source.workload.uid source.workload.name source.workload.namespace
        destination.name destination.namespace destination.owner destination.service destination.serviceAccount
        destination.service.uid destination.service.name destination.service.namespace destination.service.host
        destination.workload.uid destination.workload.name destination.workload.namespace
        destination.container.name destination.container.image
    """,
    ValueType.IP_ADDRESS: "source.ip destination.ip",
    ValueType.STRING_MAP: "source.labels source.metadata destination.labels destination.metadata",
}

# Where Mixer has no name for what Envoy tells: the names of Envoy's own attributes.
_ENVOY: dict[ValueType, str] = {
    ValueType.STRING: """
        request.query request.protocol request.body response.code_details connection.tls_version
        connection.termination_details connection.transport_failure_reason upstream.address
        upstream.transport_failure_reason xds.cluster_name xds.route_name
    """,
    ValueType.INT64: "upstream.request_attempt_count",
    ValueType.STRING_MAP: "response.trailers context.metadata xds.route_metadata",
}

# What Meshwright adds: the connection that nsmgr asks about, what the record pipeline knows of a record, and what rate
# limit requests, OpenTelemetry's messages and records of decided requests have besides.
_MESHWRIGHT: dict[ValueType, str] = {
    ValueType.STRING: """
        networkservice.name networkservice.endpoint networkservice.mechanism
        meshwright.record.id meshwright.trace.id meshwright.span.id
        check.decision_id check.rule ratelimit.domain
        otlp.signal otlp.item otlp.name otlp.severity otlp.body
    """,
    ValueType.INT64: "ratelimit.hits",
    ValueType.BOOL: "meshwright.redelivered",
    ValueType.STRING_MAP: "networkservice.labels ratelimit.descriptor otlp.attributes",
}

STANDARD: Mapping[str, ValueType] = MappingProxyType(
    {
        name: value_type
        for table in (_PROXY, _PLATFORM, _ENVOY, _MESHWRIGHT)
        for value_type, names in table.items()
        for name in names.split()
    }
)
"""Every attribute that rules and instances can use."""
