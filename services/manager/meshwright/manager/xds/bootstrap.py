"""What a proxy is started with: its name, how to reach the platform's parts, and nothing of the mesh itself.

One decision to know: Envoy gets all else by ADS, and its certificates by SDS from the node's agent over a Unix socket.
It accepts a part of the platform only by the part's SPIFFE ID.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any

from meshwright.core.spiffe import part_id
from meshwright.manager.xds import platform
from meshwright.manager.xds.platform import node_id

_TYPES = "type.googleapis.com/envoy"
_DRAIN_HINT = 2  # seconds of silence after which a connection to a part is probed


ARGUMENTS = ("--disable-hot-restart", "--drain-time-s", "5", "--drain-strategy", "immediate")
"""Envoy's arguments beside ``-c FILE``: a changed listener's old connections, and with them its old policy, end within
seconds instead of Envoy's ten minutes; and proxies of one machine share no memory."""


def bootstrap(
    *,
    namespace: str,
    workload: str,
    managers: Sequence[str],
    mixers: Sequence[str],
    collector: str,
    agent_socket: str,
    admin_socket: str,
    trust_domain: str = "mesh.local",
    address: str = "127.0.0.1",
    max_connections: int = 20_000,
    metadata: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    wait_for_configuration: bool = False,
    increments: bool = True,
) -> dict[str, Any]:
    """Return Envoy's bootstrap (config.bootstrap.v3.Bootstrap), to be written as YAML or JSON.

    `managers`, `mixers` and `collector` are addresses HOST:PORT, by IP address or DNS name; `agent_socket` and
    `admin_socket` paths of Unix sockets; `max_connections` bounds what clients may open to the proxy; `metadata` and
    `labels` are shown with the node. `wait_for_configuration` keeps the proxy from being ready without any, which it
    otherwise is after 15 seconds. With `increments` a proxy that loses its manager tells the next what it has, and gets
    the difference; without, everything.
    """
    waiting = {"initial_fetch_timeout": "0s"} if wait_for_configuration else {}

    def part(name: str, cluster: str, addresses: Sequence[str], **more: Any) -> dict[str, Any]:
        return _platform(cluster, addresses, part_id(trust_domain, name)) | more

    return {
        "node": {
            "id": node_id(namespace, workload, address),
            "cluster": f"{workload}.{namespace}",
            "metadata": {"NAMESPACE": namespace, "WORKLOAD": workload, **(metadata or {})}
            | ({"LABELS": dict(labels)} if labels else {}),
        },
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "static_resources": {
            "clusters": [
                part("manager", platform.MANAGER, managers),
                part(
                    "mixer",
                    platform.MIXER,
                    mixers,
                    health_checks=[_grpc_health()],
                    outlier_detection=_leave_at_once(),
                    # With one of two replicas gone the other takes all; with none left trying beats refusing.
                    common_lb_config={"healthy_panic_threshold": {"value": 1}},
                    circuit_breakers=_retry_everything(),
                ),
                _agent(agent_socket),
                part("collector", platform.COLLECTOR, [collector]),
            ]
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC" if increments else "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [
                    {
                        "envoy_grpc": {
                            "cluster_name": platform.MANAGER,
                            "retry_policy": {"retry_back_off": {"base_interval": "0.25s", "max_interval": "5s"}},
                        }
                    }
                ],
            },
            "cds_config": {"ads": {}, "resource_api_version": "V3", **waiting},
            "lds_config": {"ads": {}, "resource_api_version": "V3", **waiting},
        },
        "layered_runtime": {
            "layers": [{"name": "static", "static_layer": {"re2": {"max_program_size": {"error_level": 1000}}}}]
        },
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPES}.extensions.resource_monitors.downstream_connections.v3."
                        "DownstreamConnectionsConfig",
                        "max_active_downstream_connections": max_connections,
                    },
                }
            ]
        },
        "stats_config": {"use_all_default_tags": True},
    }


def _platform(cluster: str, addresses: Sequence[str], spiffe_id: str) -> dict[str, Any]:
    return {
        "name": cluster,
        **_found(addresses),
        "connect_timeout": "1s",
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": cluster,
            "endpoints": [{"lb_endpoints": [_endpoint(address) for address in addresses]}],
        },
        "typed_extension_protocol_options": _http2(),
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPES}.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "common_tls_context": {
                    # Envoy dials TLS 1.2 at most unless told otherwise.
                    "tls_params": {
                        "tls_minimum_protocol_version": "TLSv1_3",
                        "tls_maximum_protocol_version": "TLSv1_3",
                    },
                    "alpn_protocols": ["h2"],
                    "tls_certificate_sds_secret_configs": [_secret(platform.CERTIFICATE_SECRET)],
                    "combined_validation_context": {
                        "default_validation_context": {
                            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": spiffe_id}}]
                        },
                        "validation_context_sds_secret_config": _secret(platform.ROOTS_SECRET),
                    },
                },
            },
        },
    }


def _found(addresses: Sequence[str]) -> dict[str, Any]:
    """IP addresses are known; of names all addresses are used, and asked for again when they may have changed."""
    if all(_is_ip(address) for address in addresses):
        return {"type": "STATIC"}
    return {
        "type": "STRICT_DNS",
        "dns_lookup_family": "ALL",
        "ignore_health_on_host_removal": True,
    }


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    return True


def _agent(socket: str) -> dict[str, Any]:
    return {
        "name": platform.AGENT,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": platform.AGENT,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"pipe": {"path": socket}}}}]}],
        },
        "typed_extension_protocol_options": _http2(),
    }


def _endpoint(address: str) -> dict[str, Any]:
    host, _, port = address.rpartition(":")
    return {"endpoint": {"address": {"socket_address": {"address": host.strip("[]"), "port_value": int(port)}}}}


def _http2() -> dict[str, Any]:
    keepalive = {"interval": "10s", "timeout": "2s", "connection_idle_interval": f"{_DRAIN_HINT}s"}
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
            "@type": f"{_TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": keepalive}},
        }
    }


def _secret(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "api_config_source": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": {"cluster_name": platform.AGENT}}],
            },
        },
    }


def _grpc_health() -> dict[str, Any]:
    return {
        "timeout": "1s",
        "interval": "1s",
        "no_traffic_interval": "1s",
        "no_traffic_healthy_interval": "5s",
        "unhealthy_threshold": 2,
        "healthy_threshold": 1,
        "grpc_health_check": {},
    }


def _retry_everything() -> dict[str, Any]:
    """Let every question that a dying replica didn't answer be put to another one; Envoy allows three at once."""
    budget = {"budget_percent": {"value": 100}, "min_retry_concurrency": 64}
    return {
        "thresholds": [
            {"max_connections": 1024, "max_pending_requests": 4096, "max_requests": 4096, "retry_budget": budget}
        ]
    }


def _leave_at_once() -> dict[str, Any]:
    return {
        "interval": "0.5s",
        "base_ejection_time": "1s",
        "max_ejection_time": "5s",
        "max_ejection_percent": 100,
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 1,
        "consecutive_gateway_failure": 2,
        "enforcing_consecutive_gateway_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
    }
