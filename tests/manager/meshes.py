"""Meshes from YAML, and resources back to YAML, for tests."""

from __future__ import annotations

import json
from typing import Any

import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, json_format

from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from meshwright.core.config import Key
from meshwright.manager.model import mesh, parse, resolution
from meshwright.manager.xds import names, snapshot, subscription, types, wire

# Any-typed fields are shown in plain text: their messages must be known.
from meshwright.api.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401  isort: skip

# Messages without content are named in resources and not generated: their readers are Envoys and these tests.
for _package, _name in (
    ("envoy.extensions.filters.listener.original_dst.v3", "OriginalDst"),
    ("envoy.extensions.filters.listener.tls_inspector.v3", "TlsInspector"),
    ("envoy.extensions.tracers.opentelemetry.resource_detectors.v3", "EnvironmentResourceDetectorConfig"),
):
    descriptor_pool.Default().Add(
        descriptor_pb2.FileDescriptorProto(
            name=f"tests/{_name}.proto",
            package=_package,
            syntax="proto3",
            message_type=[descriptor_pb2.DescriptorProto(name=_name)],
        )
    )

SHOP = """
apiVersion: v1
kind: Service
metadata: {name: catalog, annotations: {meshwright.io/on-policy-outage: allow}}
spec:
  selector: {app: catalog}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v1}
spec:
  selector: {app: catalog, version: v1}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v2}
spec:
  selector: {app: catalog, version: v2}
  ports: [{name: http, port: 80}]
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: catalog-v1-0}
spec: {address: 127.0.0.1, ports: {http: 21001}, labels: {app: catalog, version: v1}, serviceAccount: catalog}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: catalog-v2-0}
spec: {address: 127.0.0.1, ports: {http: 21002}, labels: {app: catalog, version: v2}, serviceAccount: catalog}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-0}
spec: {address: 127.0.0.1, labels: {app: shop}, serviceAccount: shop}
---
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: shop}
spec:
  workloadSelector: {labels: {app: shop}}
  egress: [{bind: "unix:///run/shop/mesh.sock"}]
---
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: catalog-v1}
spec:
  workloadSelector: {labels: {app: catalog, version: v1}}
  ingress: [{port: {number: 21001}, defaultEndpoint: "unix:///run/catalog-v1/app.sock"}]
"""

SPLIT = """
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: catalog}
spec:
  service: catalog
  backends: [{service: catalog-v1, weight: 90}, {service: catalog-v2, weight: 10}]
"""


def parsed(text: str) -> dict[Key, parse.Parsed]:
    """Read and validate YAML documents."""
    found = {}
    for document in yaml.safe_load_all(text):
        result = parse.parse(json.dumps(document))
        assert isinstance(result, parse.Parsed), result
        found[result.key] = result
    return found


class World:
    """A mesh that changes: each `apply` gives the snapshot of the next revision."""

    def __init__(self, text: str = "", parameters: names.Parameters | None = None) -> None:
        self.parameters = parameters or names.Parameters()
        self.objects: dict[Key, parse.Parsed] = {}
        self.mesh = mesh.EMPTY
        self.snapshot = snapshot.Snapshot(self.mesh, self.parameters)
        if text:
            self.apply(text)

    def apply(self, text: str = "", *, remove: tuple[str, ...] = ()) -> snapshot.Snapshot:
        """Add or change objects; `remove` names objects as KIND/NAME."""
        kept = {key: value for key, value in self.objects.items() if f"{key.kind}/{key.name}" not in remove}
        objects = {**kept, **parsed(text)}
        self.mesh = resolution.build(self.mesh.revision + 1, objects, (self.objects, self.mesh))
        self.objects = objects
        self.snapshot = snapshot.Snapshot(self.mesh, self.parameters, self.snapshot)
        return self.snapshot


def decode(response: bytes) -> DiscoveryResponse:
    """Read a response as a proxy does."""
    return DiscoveryResponse.FromString(response)


def message(resource: wire.Resource) -> Any:
    """Decode a resource to a dictionary."""
    [packed] = DiscoveryResponse.FromString(resource.body).resources
    plain = json.loads(json_format.MessageToJson(packed, preserving_proto_field_name=True, sort_keys=True))
    plain.pop("@type")
    return plain


class Proxy:
    """A proxy that takes what it is sent, as Envoy does: it asks for the endpoints and routes that it is told of."""

    def __init__(self) -> None:
        self.subscription = subscription.Subscription()
        self.log: list[tuple[str, list[str]]] = []
        self.clusters: dict[str, Any] = {}
        self.routes: dict[str, Any] = {}
        self.refuse: set[str] = set()
        self.words = "refused by the test"
        self.ask(types.CLUSTER)
        self.ask(types.LISTENER)

    def ask(self, type_url: str, *wanted: str) -> None:
        """Send a request that answers nothing."""
        self.subscription.request(subscription.Request(type_url, frozenset(wanted)))

    def settle(self) -> list[tuple[str, list[str]]]:
        """Take and acknowledge until nothing comes any more; return what came, as (type, names)."""
        self.log = []
        while responses := [decode(raw) for raw in self.subscription.pending()]:
            for response in responses:
                self.take(response)
        return self.log

    def take(self, response: DiscoveryResponse) -> None:
        """Acknowledge a response, or refuse it, and ask for what it leads to."""
        resources = [
            json_format.MessageToDict(packed, preserving_proto_field_name=True) for packed in response.resources
        ]
        found = [resource.get("name") or resource["cluster_name"] for resource in resources]
        self.log.append((types.short(response.type_url), found))
        wanted = self.subscription.types[response.type_url].names
        if response.type_url in self.refuse:
            answer = subscription.Request(response.type_url, wanted, "", response.nonce, self.words)
            self.subscription.request(answer)
            return
        self.subscription.request(
            subscription.Request(response.type_url, wanted, response.version_info, response.nonce)
        )
        if response.type_url == types.CLUSTER:
            self.clusters = dict(zip(found, resources, strict=True))
            self._follow(types.ENDPOINT, [n for n, c in self.clusters.items() if c.get("type") == "EDS"])
        if response.type_url == types.LISTENER:
            self._follow(types.ROUTE, [name for listener in resources for name in _rds(listener)])

    def _follow(self, type_url: str, found: list[str]) -> None:
        state = self.subscription.types[type_url]
        self.subscription.request(
            subscription.Request(type_url, frozenset(found), state.acknowledged_version, state.last_nonce)
        )


def _rds(listener: Any) -> list[str]:
    configurations = [chain["filters"][0]["typed_config"] for chain in listener["filter_chains"]]
    return [str(found["rds"]["route_config_name"]) for found in configurations if "rds" in found]
