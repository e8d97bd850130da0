"""Which proxy a stream belongs to, and whether its certificate says the same.

The node id is Istio's: ``sidecar~ADDRESS~WORKLOAD.NAMESPACE~NAMESPACE.svc.cluster.local``. Standalone proxies may call
themselves ``router``, ``ingress`` or ``egress``; what they get follows from the gateways that select their workload.
``grpc`` is an application's own xDS client.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from meshwright.core import errors
from meshwright.manager.model.domain import DOMAIN

_LABEL = r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?"
_NAME = r"[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?"  # a pod's: dots are allowed in it, but not in its namespace's
_NODE = re.compile(
    rf"(sidecar|router|ingress|egress|grpc)~[0-9a-fA-F.:]{{2,45}}~({_NAME})\.({_LABEL})~({_LABEL})\.{re.escape(DOMAIN)}"
)


class Node(NamedTuple):
    """A workload's proxy, or the gRPC library in the workload itself."""

    namespace: str
    workload: str
    proxyless: bool = False


def parse(text: str) -> Node:
    """Read a node id; raise ConfigError for any other shape."""
    match = _NODE.fullmatch(text)
    if match is None or match[3] != match[4]:
        raise errors.ConfigError(
            f"node id {text[:200]!r} isn't a sidecar's",
            field="node.id",
            remedy=f"use sidecar~ADDRESS~WORKLOAD.NAMESPACE~NAMESPACE.{DOMAIN}",
        )
    return Node(match[3], match[2], match[1] == "grpc")


def authorize(node: Node, caller: str | None, trust_domain: str, service_account: str | None) -> None:
    """Raise Forbidden unless `caller` may have the node's configuration.

    A workload that isn't registered yet (`service_account` None) may be waited for by its own namespace only.
    """
    if caller is None:
        return  # plain text is served on loopback or a Unix socket only, by an explicit setting
    prefix = f"spiffe://{trust_domain}/ns/{node.namespace}/sa/"
    if not caller.startswith(prefix) or (service_account is not None and caller != prefix + service_account):
        wanted = prefix + (service_account or "…")
        raise errors.Forbidden(
            f"{caller} isn't the identity of workload {node.workload} in namespace {node.namespace} ({wanted}): "
            "correct the proxy's node id, or the WorkloadEntry's serviceAccount"
        )
