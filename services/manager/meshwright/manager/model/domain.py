"""The domain under which clusters name their services."""

from __future__ import annotations

DOMAIN = "svc.cluster.local"


def host_of(name: str, namespace: str) -> str:
    """Return the whole DNS name of a service."""
    return f"{name}.{namespace}.{DOMAIN}"


def service_of(host: str) -> tuple[str, str] | None:
    """Return namespace and name of the service that a whole DNS name means; None: it isn't a service's name."""
    name, dot, rest = host.partition(".")
    namespace = rest.removesuffix(f".{DOMAIN}")
    return (namespace, name) if dot and namespace != rest and "." not in namespace and "*" not in name else None
