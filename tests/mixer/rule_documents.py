"""Documents of config.istio.io/v1alpha2 for tests."""

from __future__ import annotations

from typing import Any

from meshwright.core.config import objects

MALLORY = "spiffe://mesh.local/ns/default/sa/mallory"


def document(kind: str, name: str, spec: dict[str, Any], namespace: str = "meshwright-system") -> objects.Object:
    """One object, as if it were read from `name.yaml`."""
    raw = {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
    return objects.from_document(raw, f"{name}.yaml#1")


def action(handler: str, *instances: str) -> dict[str, Any]:
    return {"handler": handler, "instances": [*instances]}


def denial(namespace: str = "meshwright-system") -> list[objects.Object]:
    """The standard example: mallory may not call /admin."""
    match = f'request.url_path.startsWith("/admin") && source.principal == "{MALLORY}"'
    status = {"status": {"code": 7, "message": "no admin for you"}, "validDuration": "0s", "validUseCount": 0}
    return [
        document("handler", "forbid", {"compiledAdapter": "denier", "params": status}, namespace),
        document("instance", "nothing", {"compiledTemplate": "checknothing"}, namespace),
        document("rule", "deny-admin", {"match": match, "actions": [action("forbid", "nothing")]}, namespace),
    ]


def quota(
    limit: int, window: str = "1s", namespace: str = "meshwright-system", **parameters: Any
) -> list[objects.Object]:
    """The standard example: `limit` requests in each window and service."""
    quotas = [{"name": "requestcount", "maxAmount": limit, "validDuration": window}]
    dimensions = {"destination": 'destination.service.name | "unknown"'}
    return [
        document(
            "handler", "limits", {"compiledAdapter": "memquota", "params": {"quotas": quotas, **parameters}}, namespace
        ),
        document(
            "instance",
            "requestcount",
            {"compiledTemplate": "quota", "params": {"dimensions": dimensions}},
            namespace,
        ),
        document("rule", "limit", {"actions": [action("limits", "requestcount")]}, namespace),
    ]
