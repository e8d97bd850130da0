"""The stages of the suite: the same request to the same server, with one step of the mesh more in each.

One decision to know: a stage's sidecar is the unmodified Envoy with the listener that the manager's translator makes
for a workload; earlier stages lack a part of it: the policy question, then mutual TLS too. So two stages differ in one
thing. Without mutual TLS the sidecar listens on a Unix socket, as plain text is nowhere else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from meshwright.api.envoy.config.listener.v3.listener_pb2 import Listener
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

# Envoy's configuration is written as JSON: the messages inside of it must be known.
from meshwright.api.envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401
from meshwright.manager.model import mesh as meshes
from meshwright.manager.model import parse, resolution
from meshwright.manager.model.meaning import Context
from meshwright.manager.xds import cluster, listener, names, route, tls
from meshwright.manager.xds.bootstrap import bootstrap

NAMESPACE, NAME = "performance", "origin"
PORT_NAME = "http"
_AUTHORIZATION = "envoy.filters.http.ext_authz"


@dataclass(frozen=True, slots=True)
class Stage:
    """One way to the server."""

    name: str
    what: str
    sidecar: bool = True
    mtls: bool = False
    check: bool = False


STAGES = (
    Stage("direct", "no mesh", sidecar=False),
    Stage("sidecar", "through an Envoy that routes, traces and reports"),
    Stage("mtls", "with mutual TLS", mtls=True),
    Stage("check", "with a policy check by mixer", mtls=True, check=True),
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a stage's sidecar finds what it needs."""

    origin: Path
    socket: Path
    port: int
    admin_socket: Path
    agent_socket: Path
    manager: str
    mixers: tuple[str, ...]
    collector: str
    trust_domain: str


def configuration(stage: Stage, place: Place) -> dict[str, Any]:
    """Return Envoy's whole configuration for a stage."""
    area, workload, ingress = _workload(place)
    parameters = names.Parameters(place.trust_domain, 0.0)
    name = f"inbound|{ingress.number}|{workload.name}.{workload.namespace}"
    inbound = listener.inbound(workload, ingress, name, parameters, listener.Guard())
    routes = route.inbound_configuration(name, area, workload, ingress)
    content = bootstrap(
        namespace=NAMESPACE,
        workload=NAME,
        managers=[place.manager],
        mixers=list(place.mixers),
        collector=place.collector,
        agent_socket=str(place.agent_socket),
        admin_socket=str(place.admin_socket),
        trust_domain=place.trust_domain,
    )
    del content["dynamic_resources"]  # what the manager would send stands here
    static = content["static_resources"]
    static["clusters"].append(_plain(cluster.inbound(workload, ingress)))
    static["listeners"] = [_plain(_of_stage(inbound, routes, stage, place))]
    return content


def write(stage: Stage, place: Place, folder: Path) -> Path:
    """Write a stage's configuration and return the file."""
    path = folder / f"{stage.name}-envoy.json"
    path.write_text(json.dumps(configuration(stage, place), indent=1))
    return path


def _of_stage(inbound: Listener, routes: Any, stage: Stage, place: Place) -> Listener:
    chain = inbound.filter_chains[0]
    manager = HttpConnectionManager()
    chain.filters[0].typed_config.Unpack(manager)
    manager.route_config.CopyFrom(routes)
    if not stage.check:
        kept = [filter_ for filter_ in manager.http_filters if filter_.name != _AUTHORIZATION]
        del manager.http_filters[:]
        manager.http_filters.extend(kept)
    chain.filters[0].typed_config.Pack(manager)
    if not stage.mtls:
        chain.ClearField("transport_socket")
        inbound.address.CopyFrom(tls.socket_address(str(place.socket), 0o600))
    return inbound


def _workload(place: Place) -> tuple[meshes.Area, meshes.Workload, meshes.Ingress]:
    """Return the server as the manager would know it: by documents."""
    labels = {"app": NAME}
    documents: list[dict[str, Any]] = [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "spec": {"selector": labels, "ports": [{"name": PORT_NAME, "port": 80}]},
        },
        {
            "apiVersion": "networking.istio.io/v1beta1",
            "kind": "WorkloadEntry",
            "spec": {
                "address": "127.0.0.1",
                "ports": {PORT_NAME: place.port},
                "labels": labels,
                "serviceAccount": NAME,
            },
        },
        {
            "apiVersion": "networking.istio.io/v1beta1",
            "kind": "Sidecar",
            "spec": {
                "workloadSelector": {"labels": labels},
                "ingress": [
                    {
                        "port": {"number": place.port, "protocol": "HTTP", "name": PORT_NAME},
                        "defaultEndpoint": f"unix://{place.origin}",
                    }
                ],
            },
        },
    ]
    members: list[parse.Parsed] = []
    for document in documents:
        read = parse.parse(json.dumps(document | {"metadata": {"name": NAME, "namespace": NAMESPACE}}))
        assert isinstance(read, parse.Parsed), read
        members.append(read)
    area = resolution.resolve(Context(NAMESPACE, NAMESPACE, place.trust_domain), members)
    return area, area.workloads[NAME], area.sidecars[NAME].ingress[0]


def _plain(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return found
