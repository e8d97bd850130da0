"""Objects as an API server sends them, for tests of what the manager makes of a cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def service(
    name: str,
    selector: Mapping[str, str] | None = None,
    ports: Sequence[Mapping[str, Any]] = ({"name": "http", "port": 80, "targetPort": "web"},),
    namespace: str = "shop",
    **spec: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "annotations": spec.pop("annotations", {})},
        "spec": {
            "clusterIP": "10.0.0.10",
            "clusterIPs": ["10.0.0.10"],
            "ipFamilies": ["IPv4"],
            "selector": dict(selector or {}),
            "ports": [dict(port) for port in ports],
            **spec,
        },
    }


def pod(
    name: str,
    address: str,
    labels: Mapping[str, str] | None = None,
    *,
    account: str = "catalog",
    injected: bool = True,
    namespace: str = "shop",
    **metadata: Any,
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "uid": f"uid-{name}",
            "labels": dict(labels or {}),
            "annotations": {"meshwright.io/injected": "redirect"} if injected else {},
            **metadata,
        },
        "spec": {
            "serviceAccountName": account,
            "containers": [{"name": "app", "image": "app", "ports": [{"name": "web", "containerPort": 8080}]}],
        },
        "status": {"podIP": address, "phase": "Running"},
    }


def slice_(
    name: str,
    service: str,
    endpoints: Sequence[Mapping[str, Any]],
    ports: Sequence[Mapping[str, Any]] = ({"name": "http", "port": 8080, "protocol": "TCP"},),
    namespace: str = "shop",
    family: str = "IPv4",
) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": service}},
        "addressType": family,
        "ports": [dict(port) for port in ports],
        "endpoints": [dict(endpoint) for endpoint in endpoints],
    }


def endpoint(address: str, pod: str = "", zone: str = "", **conditions: bool) -> dict[str, Any]:
    made: dict[str, Any] = {"addresses": [address], "conditions": conditions}
    if pod:
        made["targetRef"] = {"kind": "Pod", "name": pod}
    if zone:
        made["zone"] = zone
    return made
