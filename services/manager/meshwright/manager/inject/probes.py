"""Points a pod's probes at its sidecar, which puts them to the application from inside.

One decision to know: rewritten, not excluded. The kubelet asks from an address that can't be told from others, and a
port left open for it would be open for everybody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

HEALTH_PORT = 15020
HOST = "x-meshwright-probe-host"  # carries a Host header past the kubelet, which sends its own

_KINDS = {"livenessProbe": "livez", "readinessProbe": "readyz", "startupProbe": "startupz"}
_HOOKS = {"postStart": "poststart", "preStop": "prestop"}


def rewrite(container: dict[str, Any], excluded: tuple[int, ...]) -> Iterator[str]:
    """Change the probes of one container in place; yield NAME=URL of each for the sidecar."""
    handlers = [(name, container.get(field)) for field, name in _KINDS.items()]
    handlers += [(name, (container.get("lifecycle") or {}).get(field)) for field, name in _HOOKS.items()]
    for name, handler in handlers:
        if not isinstance(handler, dict):
            continue
        asked = _url(handler, container)
        if asked is None:
            continue
        url, port = asked
        if port not in (*excluded, HEALTH_PORT):
            path = f"{container['name']}/{name}"
            _point(handler, f"/probe/{path}")
            yield f"{path}={url}"


def _url(handler: Mapping[str, Any], container: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return what a handler asks of the pod, and its port; None: it asks no port of the pod."""
    if (http := handler.get("httpGet")) and not http.get("host"):
        port, path = _port(http.get("port"), container), str(http.get("path") or "/")
        scheme = str(http.get("scheme") or "HTTP").lower()
        return (f"{scheme}://:{port}{'' if path.startswith('/') else '/'}{path}", port) if port else None
    if (tcp := handler.get("tcpSocket")) and not tcp.get("host"):
        port = _port(tcp.get("port"), container)
        return (f"tcp://:{port}", port) if port else None
    if grpc := handler.get("grpc"):
        port = _port(grpc.get("port"), container)
        return (f"grpc://:{port}/{grpc.get('service') or ''}", port) if port else None
    return None


def _port(value: Any, container: Mapping[str, Any]) -> int | None:
    if isinstance(value, int):
        return value
    for port in container.get("ports") or ():
        if port.get("name") == value:
            return int(port["containerPort"])
    return None  # the kubelet will say so


def _point(handler: dict[str, Any], path: str) -> None:
    before = handler.get("httpGet") or {}
    headers = [
        {**header, "name": HOST} if str(header.get("name")).lower() == "host" else header
        for header in before.get("httpHeaders") or ()
    ]
    for kind in ("tcpSocket", "grpc"):
        handler.pop(kind, None)
    handler["httpGet"] = {"path": path, "port": HEALTH_PORT, "scheme": "HTTP"} | (
        {"httpHeaders": headers} if headers else {}
    )
