"""The table of kinds: which there are, where they live, and who owns (validates) them.

Kinds without a schema here belong to another service, which the manager asks before it commits anything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from meshwright.manager.classic.destination_policy import DestinationPolicy
from meshwright.manager.classic.egress_rule import EgressRule
from meshwright.manager.classic.ingress_rule import IngressRule
from meshwright.manager.classic.route_rule import RouteRule
from meshwright.manager.istio.sidecar import Sidecar
from meshwright.manager.istio.workload_entry import WorkloadEntry
from meshwright.manager.model.document import Document
from meshwright.manager.model.kubernetes import Namespace, Service
from meshwright.manager.smi.traffic_split import TrafficSplit


class Foreign(Document):
    """An object that another service understands: only its name and place are judged here."""

    spec: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `owner` names the service whose Validation API judges it; empty: the manager itself."""

    api_version: str
    name: str
    schema: type[Document]
    namespaced: bool = True
    owner: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.api_version})"

    @property
    def plural(self) -> str:
        """The name of this kind in the paths of a Kubernetes API server."""
        name = self.name.lower()
        if name.endswith("y") and name[-2] not in "aeiou":
            return f"{name.removesuffix('y')}ies"
        return f"{name}es" if name.endswith(("s", "ch")) else f"{name}s"


NAMESPACE = Kind("v1", "Namespace", Namespace, namespaced=False)
SERVICE = Kind("v1", "Service", Service)
WORKLOAD_ENTRY = Kind("networking.istio.io/v1beta1", "WorkloadEntry", WorkloadEntry)
SIDECAR = Kind("networking.istio.io/v1beta1", "Sidecar", Sidecar)
TRAFFIC_SPLIT = Kind("split.smi-spec.io/v1alpha4", "TrafficSplit", TrafficSplit)
CLASSIC = (
    Kind("config.istio.io/v1alpha2", "RouteRule", RouteRule),
    Kind("config.istio.io/v1alpha2", "DestinationPolicy", DestinationPolicy),
    Kind("config.istio.io/v1alpha2", "IngressRule", IngressRule),
    Kind("config.istio.io/v1alpha2", "EgressRule", EgressRule),
)
"""The kinds of Istio's first manager."""

MIXER = (
    *("rule", "handler", "instance", "attributemanifest", "template", "adapter"),
    *("QuotaSpec", "QuotaSpecBinding", "HTTPAPISpec", "HTTPAPISpecBinding"),
)
"""Mixer's kinds of config.istio.io."""
LEGACY_ADAPTERS = (
    *("bypass", "circonus", "cloudwatch", "denier", "dogstatsd", "fluentd", "kubernetesenv", "listchecker", "memquota"),
    *("noop", "opa", "prometheus", "rbac", "redisquota", "solarwinds", "stackdriver", "statsd", "stdio", "zipkin"),
)
LEGACY_TEMPLATES = (
    *("apikey", "authorization", "checknothing", "edge", "kubernetes", "listentry", "logentry", "metric", "quota"),
    *("reportnothing", "tracespan"),
)
RBAC = ("ServiceRole", "ServiceRoleBinding", "RbacConfig", "ClusterRbacConfig")


def _mixers() -> Iterator[Kind]:
    for name in (*MIXER, *LEGACY_ADAPTERS, *LEGACY_TEMPLATES):
        yield Kind("config.istio.io/v1alpha2", name, Foreign, owner="mixer")
    for name in RBAC:
        is_cluster_wide = name.startswith("Cluster")
        yield Kind("rbac.istio.io/v1alpha1", name, Foreign, namespaced=not is_cluster_wide, owner="mixer")


KINDS = (
    NAMESPACE,
    SERVICE,
    WORKLOAD_ENTRY,
    SIDECAR,
    TRAFFIC_SPLIT,
    *CLASSIC,
    *_mixers(),
    Kind("config.meshwright.io/v1alpha1", "Policy", Foreign, owner="mixer"),
)
CUSTOM = tuple(kind for kind in KINDS if "/" in kind.api_version)
"""Those that a Kubernetes cluster knows by a definition only (CustomResourceDefinition)."""

_BY_NAME = {(kind.api_version, kind.name): kind for kind in KINDS}


def find(api_version: str, name: str) -> Kind | None:
    """Return the kind of a document, or None when there is no such kind."""
    return _BY_NAME.get((api_version, name))


def nearest(api_version: str, name: str) -> Kind | None:
    """Return the kind that was probably meant: the same name in another version or case, or a similar name."""
    same = [kind for kind in KINDS if kind.name.lower() == name.lower()]
    if same:
        return min(same, key=lambda kind: kind.api_version != api_version)
    names = {kind.name.lower(): kind for kind in KINDS}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None
