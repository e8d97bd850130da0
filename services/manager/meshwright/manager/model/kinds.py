"""The table of kinds: which there are, where they live, and who owns (validates) them.

Kinds without a schema here belong to another service, which the manager asks before it commits anything.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from meshwright.core.config import named
from meshwright.manager.classic.destination_policy import DestinationPolicy
from meshwright.manager.classic.egress_rule import EgressRule
from meshwright.manager.classic.ingress_rule import IngressRule
from meshwright.manager.classic.route_rule import RouteRule
from meshwright.manager.istio.authorization_policy import AuthorizationPolicy
from meshwright.manager.istio.destination_rule import DestinationRule
from meshwright.manager.istio.gateway import Gateway
from meshwright.manager.istio.peer_authentication import PeerAuthentication
from meshwright.manager.istio.request_authentication import RequestAuthentication
from meshwright.manager.istio.service_entry import ServiceEntry
from meshwright.manager.istio.sidecar import Sidecar
from meshwright.manager.istio.telemetry import Telemetry
from meshwright.manager.istio.virtual_service import VirtualService
from meshwright.manager.istio.workload_entry import WorkloadEntry
from meshwright.manager.model.document import Document
from meshwright.manager.model.kubernetes import Namespace, Service
from meshwright.manager.smeagol import normal as smeagol_normal
from meshwright.manager.smeagol.canary import Canary
from meshwright.manager.smeagol.normal import API_VERSION, BARE
from meshwright.manager.smeagol.sidecar import Sidecar as SmeagolSidecar
from meshwright.manager.smeagol.tls_config import TLSConfig
from meshwright.manager.smi import (
    http_route_group,
    identity_binding,
    normal,
    port_routes,
    traffic_split,
    traffic_target,
)

Raw = dict[str, Any]


class Foreign(Document):
    """An object that another service understands: only its name and place are judged here."""

    spec: dict[str, Any] | None = None


def _same(raw: Raw) -> Raw:
    return raw


@dataclass(frozen=True, slots=True)
class Spelling:
    """Another version or name in which objects of a kind are written."""

    api_version: str
    name: str
    schema: type[Document]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind. `owner` names the service whose Validation API judges it; empty: the manager itself.

    Objects are kept as this `api_version`, whatever `spellings` they were written in: `newest` turns a valid object of
    one of those into it, and raises ConfigError where it can't be said. `shape` comes first: it brings what one version
    lets people write in several ways into one, for the schema to judge; it takes any JSON object.
    """

    api_version: str
    name: str
    schema: type[Document]
    namespaced: bool = True
    owner: str = ""
    spellings: tuple[Spelling, ...] = ()
    newest: Callable[[Raw], Raw] = _same
    shape: Callable[[Raw], Raw] = _same

    def __str__(self) -> str:
        return f"{self.name} ({self.api_version})"

    @property
    def plural(self) -> str:
        """The name of this kind in the paths of a Kubernetes API server."""
        name = self.name.lower()
        if name.endswith("y") and name[-2] not in "aeiou":
            return f"{name.removesuffix('y')}ies"
        return f"{name}es" if name.endswith(("s", "ch")) else f"{name}s"

    @property
    def definition(self) -> str:
        """The name of this kind's CustomResourceDefinition."""
        return f"{self.plural}.{self.api_version.partition('/')[0]}"


NAMESPACE = Kind("v1", "Namespace", Namespace, namespaced=False)
SERVICE = Kind("v1", "Service", Service)


def _istio(group: str, name: str, schema: type[Document], *versions: str) -> Kind:
    """Return a kind of Istio, kept as the first of its `versions`, which say the same in the same fields."""
    api_version, *others = (f"{group}.istio.io/{version}" for version in versions)
    spellings = tuple(Spelling(other, name, schema) for other in others)
    return Kind(api_version, name, schema, spellings=spellings, newest=lambda raw: {**raw, "apiVersion": api_version})


WORKLOAD_ENTRY = _istio("networking", "WorkloadEntry", WorkloadEntry, "v1beta1", "v1", "v1alpha3")
SIDECAR = _istio("networking", "Sidecar", Sidecar, "v1beta1", "v1", "v1alpha3")
ISTIO = (
    WORKLOAD_ENTRY,
    SIDECAR,
    _istio("networking", "VirtualService", VirtualService, "v1", "v1beta1", "v1alpha3"),
    _istio("networking", "DestinationRule", DestinationRule, "v1", "v1beta1", "v1alpha3"),
    _istio("networking", "ServiceEntry", ServiceEntry, "v1", "v1beta1", "v1alpha3"),
    _istio("networking", "Gateway", Gateway, "v1", "v1beta1", "v1alpha3"),
    _istio("security", "PeerAuthentication", PeerAuthentication, "v1", "v1beta1"),
    _istio("security", "AuthorizationPolicy", AuthorizationPolicy, "v1", "v1beta1"),
    _istio("security", "RequestAuthentication", RequestAuthentication, "v1", "v1beta1"),
    _istio("telemetry", "Telemetry", Telemetry, "v1", "v1alpha1"),
)
CLASSIC = (
    Kind("config.istio.io/v1alpha2", "RouteRule", RouteRule),
    Kind("config.istio.io/v1alpha2", "DestinationPolicy", DestinationPolicy),
    Kind("config.istio.io/v1alpha2", "IngressRule", IngressRule),
    Kind("config.istio.io/v1alpha2", "EgressRule", EgressRule),
)
"""The kinds of Istio's first manager."""


def _smi(group: str, name: str, schemas: tuple[type[Document], ...], shape: Callable[[Raw], Raw] = _same) -> Kind:
    """Return a kind of SMI; `schemas` from v1alpha1 on, the last one is v1alpha4's."""
    older = tuple(Spelling(f"{group}/v1alpha{number}", name, schema) for number, schema in enumerate(schemas[:-1], 1))
    return Kind(f"{group}/v1alpha4", name, schemas[-1], spellings=older, newest=normal.newest, shape=shape)


TRAFFIC_TARGET = _smi(
    "access.smi-spec.io",
    "TrafficTarget",
    (
        traffic_target.TrafficTargetV1,
        traffic_target.TrafficTargetV2,
        traffic_target.TrafficTarget,
        traffic_target.TrafficTarget,
    ),
)
IDENTITY_BINDING = _smi("access.smi-spec.io", "IdentityBinding", (identity_binding.IdentityBinding,))
HTTP_ROUTE_GROUP = _smi(
    "specs.smi-spec.io",
    "HTTPRouteGroup",
    (
        http_route_group.HTTPRouteGroupV1,
        http_route_group.HTTPRouteGroupV2,
        http_route_group.HTTPRouteGroup,
        http_route_group.HTTPRouteGroup,
    ),
    normal.route_group,
)
TCP_ROUTE = _smi(
    "specs.smi-spec.io",
    "TCPRoute",
    (port_routes.OldTCPRoute, port_routes.OldTCPRoute, port_routes.OldTCPRoute, port_routes.TCPRoute),
    normal.port_route,
)
UDP_ROUTE = _smi("specs.smi-spec.io", "UDPRoute", (port_routes.UDPRoute,), normal.port_route)
TRAFFIC_SPLIT = _smi(
    "split.smi-spec.io",
    "TrafficSplit",
    (
        traffic_split.TrafficSplitV1,
        traffic_split.TrafficSplitV2,
        traffic_split.TrafficSplit,
        traffic_split.TrafficSplit,
    ),
)


def _smeagol(name: str, schema: type[Document], *former: str) -> Kind:
    spellings = [Spelling(version, each, schema) for each in (name, *former) for version in (BARE, API_VERSION)]
    others = tuple(each for each in spellings if (each.api_version, each.name) != (API_VERSION, name))
    return Kind(API_VERSION, name, schema, spellings=others, newest=smeagol_normal.newest, shape=named)


SMEAGOL = (
    _smeagol("TLSConfig", TLSConfig, "MutualTLS"),
    _smeagol("Canary", Canary),
    _smeagol("Sidecar", SmeagolSidecar, "Monitor"),
)
"""The kinds of SMI's first draft."""
SMI = (TRAFFIC_TARGET, IDENTITY_BINDING, HTTP_ROUTE_GROUP, TCP_ROUTE, UDP_ROUTE, TRAFFIC_SPLIT)

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
    *ISTIO,
    *SMI,
    *CLASSIC,
    *SMEAGOL,
    *_mixers(),
    Kind("config.meshwright.io/v1alpha1", "Policy", Foreign, owner="mixer"),
)
CUSTOM = tuple(kind for kind in KINDS if "/" in kind.api_version)
"""Those that a Kubernetes cluster knows by a definition only (CustomResourceDefinition)."""
CONVERTED = tuple(kind for kind in SMI if kind.spellings)
"""Those whose versions the API server asks us to convert."""

_SPELLINGS = {(spelling.api_version, spelling.name): spelling for kind in KINDS for spelling in kind.spellings}
_BY_NAME = {(kind.api_version, kind.name): kind for kind in KINDS} | {
    (spelling.api_version, spelling.name): kind for kind in KINDS for spelling in kind.spellings
}


def find(api_version: str, name: str) -> Kind | None:
    """Return the kind of a document of any spelling, or None when there is no such kind."""
    return _BY_NAME.get((api_version, name))


def spelling(api_version: str, name: str) -> Spelling | None:
    """Return in which other spelling a document is; None: in its kind's own."""
    return _SPELLINGS.get((api_version, name))


def nearest(api_version: str, name: str) -> Kind | None:
    """Return the kind that was probably meant: the same name in another version or case, or a similar name."""
    same = [kind for kind in KINDS if kind.name.lower() == name.lower()]
    if same:
        return min(same, key=lambda kind: kind.api_version != api_version)
    names = {kind.name.lower(): kind for kind in KINDS}
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    return names[close[0]] if close else None
