"""Services that Rust answers list their methods: telemetry names no others."""

from __future__ import annotations

from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from meshwright.api.envoy.service.accesslog.v3 import als_pb2
from meshwright.api.envoy.service.auth.v3 import external_auth_pb2
from meshwright.api.envoy.service.ratelimit.v3 import rls_pb2
from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.api.mixer.v1 import quota_pb2
from meshwright.dataplane.policy import Engine

OTLP = (trace_service_pb2, metrics_service_pb2, logs_service_pb2)


def test_the_listed_methods_are_those_of_the_services() -> None:
    """Generated Rust keeps them to itself, so that they are listed by hand."""
    files = (mixer_pb2, external_auth_pb2, rls_pb2, als_pb2, *OTLP, quota_pb2)
    services = {service.full_name: service for file in files for service in file.DESCRIPTOR.services_by_name.values()}
    native = Engine().services
    defined = {f"/{name}/{method.name}" for name in native.names for method in services[name].methods}
    assert sorted(native.methods) == sorted(defined)
