"""What a proxy does with every HTTP request: asks mixer (ext_authz), reports to it (access log), traces it.

One decision to know: the policy question is asked by the called side only, as in Istio classic, because that side is
the one that mustn't be got around. So is the report, so that each request is reported once.
"""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import UInt32Value

from meshwright.api.envoy.config.accesslog.v3.accesslog_pb2 import AccessLog
from meshwright.api.envoy.config.core.v3.base_pb2 import RetryPolicy
from meshwright.api.envoy.config.core.v3.config_source_pb2 import ApiVersion
from meshwright.api.envoy.config.core.v3.grpc_service_pb2 import GrpcService
from meshwright.api.envoy.config.core.v3.protocol_pb2 import Http2ProtocolOptions, HttpProtocolOptions
from meshwright.api.envoy.config.trace.v3.http_tracer_pb2 import Tracing
from meshwright.api.envoy.config.trace.v3.opentelemetry_pb2 import OpenTelemetryConfig
from meshwright.api.envoy.extensions.access_loggers.grpc.v3.als_pb2 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
)
from meshwright.api.envoy.extensions.filters.http.cors.v3.cors_pb2 import Cors
from meshwright.api.envoy.extensions.filters.http.ext_authz.v3.ext_authz_pb2 import ExtAuthz
from meshwright.api.envoy.extensions.filters.http.fault.v3.fault_pb2 import HTTPFault
from meshwright.api.envoy.extensions.filters.http.header_mutation.v3.header_mutation_pb2 import HeaderMutation
from meshwright.api.envoy.extensions.filters.http.router.v3.router_pb2 import Router
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
    HttpFilter,
    Rds,
)
from meshwright.api.envoy.extensions.retry.host.previous_hosts.v3.previous_hosts_pb2 import PreviousHostsPredicate
from meshwright.api.envoy.type.metadata.v3.metadata_pb2 import MetadataKey, MetadataKind
from meshwright.api.envoy.type.tracing.v3.custom_tag_pb2 import CustomTag
from meshwright.api.envoy.type.v3.http_status_pb2 import HttpStatus, StatusCode
from meshwright.api.envoy.type.v3.percent_pb2 import Percent
from meshwright.manager.xds import per_route, platform, route, wire

REPORTED = (
    "context.reporter.kind",
    "destination.service.host",
    "destination.service.name",
    "destination.service.namespace",
    "destination.workload.name",
    "destination.workload.namespace",
)
"""Attributes that an access log entry carries as custom tags, taken from the matched route."""


def connection_manager(
    stat_prefix: str, routes: str, workload: str | None, sampling_percent: float
) -> HttpConnectionManager:
    """Return what both directions share: codec, limits, routes by ADS, tracing. Filters are added by the caller.

    Spans are `workload`'s; None: of the service that the proxy's environment names (OTEL_RESOURCE_ATTRIBUTES).
    """
    manager = HttpConnectionManager(
        stat_prefix=stat_prefix,
        codec_type=HttpConnectionManager.AUTO,
        rds=Rds(route_config_name=routes),
        common_http_protocol_options=HttpProtocolOptions(
            idle_timeout=Duration(seconds=3600), max_headers_count=UInt32Value(value=100)
        ),
        http2_protocol_options=Http2ProtocolOptions(
            max_concurrent_streams=UInt32Value(value=1024),
            initial_stream_window_size=UInt32Value(value=1 << 20),
            initial_connection_window_size=UInt32Value(value=1 << 24),
            allow_connect=True,  # how an upgrade travels on HTTP/2 (RFC 8441)
        ),
        upgrade_configs=[HttpConnectionManager.UpgradeConfig(upgrade_type="websocket")],
        max_request_headers_kb=UInt32Value(value=32),
        stream_idle_timeout=Duration(seconds=300),
        request_headers_timeout=Duration(seconds=10),
        drain_timeout=Duration(seconds=5),
        server_header_transformation=HttpConnectionManager.PASS_THROUGH,
        tracing=_tracing(workload, sampling_percent),
    )
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = ApiVersion.V3
    manager.generate_request_id.value = True
    # Policies compare paths: the path that is judged must be the one that the application will see.
    manager.normalize_path.value = True
    manager.merge_slashes = True
    manager.path_with_escaped_slashes_action = HttpConnectionManager.REJECT_REQUEST
    return manager


def policy(*, allow_on_outage: bool) -> HttpFilter:
    """Ask mixer before the application sees a request; without an answer in two seconds `allow_on_outage` decides."""
    authorization = ExtAuthz(
        transport_api_version=ApiVersion.V3,
        grpc_service=GrpcService(
            envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=platform.MIXER),
            # For all attempts: a second replica must have its time when the first one died late.
            timeout=Duration(seconds=2),
            # A question that a dying replica didn't answer is put to another one.
            retry_policy=RetryPolicy(
                retry_on="connect-failure,refused-stream,reset,unavailable",
                num_retries=UInt32Value(value=2),
                retry_host_predicate=[
                    RetryPolicy.RetryHostPredicate(
                        name="envoy.retry_host_predicates.previous_hosts",
                        typed_config=wire.pack(PreviousHostsPredicate()),
                    )
                ],
                host_selection_retry_max_attempts=3,
            ),
        ),
        failure_mode_allow=allow_on_outage,
        # A refusal for want of an answer is told apart from a refusal by a rule (403).
        status_on_error=HttpStatus(code=StatusCode.ServiceUnavailable),
        validate_mutations=True,
    )
    return HttpFilter(name="envoy.filters.http.ext_authz", typed_config=wire.pack(authorization))


def routed() -> list[HttpFilter]:
    """Do what routes say beside where requests go, and send them there; the last filters of a caller's proxy."""
    return [
        HttpFilter(name=per_route.HEADERS, typed_config=wire.pack(HeaderMutation())),
        HttpFilter(name=per_route.CORS, typed_config=wire.pack(Cors())),
        HttpFilter(name=per_route.FAULT, typed_config=wire.pack(HTTPFault())),
        router(),
    ]


def router() -> HttpFilter:
    """Send the request on; the last filter of every chain."""
    return HttpFilter(name="envoy.filters.http.router", typed_config=wire.pack(Router()))


def report(log_name: str) -> AccessLog:
    """Report each finished request to mixer, with what it was for."""
    configuration = HttpGrpcAccessLogConfig(
        common_config=CommonGrpcAccessLogConfig(
            log_name=log_name,
            transport_api_version=ApiVersion.V3,
            grpc_service=GrpcService(envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=platform.MIXER)),
            buffer_flush_interval=Duration(seconds=1),
            buffer_size_bytes=UInt32Value(value=16 * 1024),
            custom_tags=_tags(REPORTED),
        ),
        additional_request_headers_to_log=["traceparent"],
    )
    return AccessLog(name="envoy.access_loggers.http_grpc", typed_config=wire.pack(configuration))


def _tags(attributes: Iterable[str]) -> list[CustomTag]:
    return [
        CustomTag(
            tag=attribute,
            metadata=CustomTag.Metadata(
                kind=MetadataKind(route=MetadataKind.Route()),
                metadata_key=MetadataKey(key=route.METADATA, path=[MetadataKey.PathSegment(key=attribute)]),
            ),
        )
        for attribute in attributes
    ]


def _tracing(workload: str | None, sampling_percent: float) -> HttpConnectionManager.Tracing:
    exporter = OpenTelemetryConfig(
        service_name=workload or "",
        grpc_service=GrpcService(
            envoy_grpc=GrpcService.EnvoyGrpc(cluster_name=platform.COLLECTOR), timeout=Duration(seconds=1)
        ),
    )
    if workload is None:
        exporter.resource_detectors.add(
            name="envoy.tracers.opentelemetry.resource_detectors.environment",
            typed_config=wire.empty(
                "envoy.extensions.tracers.opentelemetry.resource_detectors.v3.EnvironmentResourceDetectorConfig"
            ),
        )
    return HttpConnectionManager.Tracing(
        client_sampling=Percent(value=100),
        random_sampling=Percent(value=sampling_percent),
        overall_sampling=Percent(value=100),
        provider=Tracing.Http(name="envoy.tracers.opentelemetry", typed_config=wire.pack(exporter)),
    )
