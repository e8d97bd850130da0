"""What an injected pod's proxy has: the hosts that its Sidecar names, and hosts outside that have addresses."""

from __future__ import annotations

import json

import pytest
import yaml
from meshes import World, message

from meshwright.manager.model import parse
from meshwright.manager.xds import types

PODS = """
apiVersion: v1
kind: Service
metadata: {name: stock}
spec: {selector: {app: stock}, clusterIPs: [10.96.0.10], ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: files, namespace: other}
spec: {selector: {app: files}, clusterIPs: [10.96.0.11], ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-0, annotations: {meshwright.io/injected: redirect}}
spec: {address: 10.88.0.5, labels: {app: shop}, serviceAccount: shop}
"""
PARTNER = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: partner}
spec:
  hosts: [api.partner.com]
  addresses: [240.0.0.1]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1}]
"""
SIDECAR = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: shop}
spec:
  workloadSelector: {labels: {app: shop}}
  outboundTrafficPolicy: {mode: %s}
  egress: [{hosts: [%s]}]
"""


def seen(world: World) -> set[str]:
    """Return the hosts for which the proxy has clusters, having made sure that it has all the rest for them too."""
    view = world.snapshot.view("default", "shop-0")
    assert view is not None
    clusters = {name for name in view.all(types.CLUSTER) if name.startswith("outbound|")}
    assert {name for name in view.all(types.LISTENER) if name.startswith("outbound|")} == clusters
    assert {name for name in view.all(types.ROUTE) if name.startswith("outbound|")} == clusters
    return {name.rpartition("|")[2] for name in clusters}


ALL = {"stock.default.svc.cluster.local", "files.other.svc.cluster.local", "api.partner.com"}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ('"*/*"', ALL),
        ('"./*"', {"stock.default.svc.cluster.local", "api.partner.com"}),
        ("other/files.other.svc.cluster.local", {"files.other.svc.cluster.local"}),
        ('"*/*.partner.com"', {"api.partner.com"}),
        ('"~/*"', set()),
    ],
)
def test_a_sidecar_limits_what_an_injected_pod_sees(hosts: str, expected: set[str]) -> None:
    world = World(PODS + "---" + PARTNER)
    assert seen(world) == ALL
    world.apply(SIDECAR % ("ALLOW_ANY", hosts))
    assert seen(world) == expected
    world.apply(remove=("Sidecar/shop",))
    assert seen(world) == ALL


def test_a_sidecar_says_what_becomes_of_other_addresses() -> None:
    world = World(PODS)

    def unknown() -> str:
        view = world.snapshot.view("default", "shop-0")
        assert view is not None
        rest = message(view.listeners["outbound"])["default_filter_chain"]["filters"][0]["typed_config"]
        return str(rest["cluster"])

    assert unknown() == "outbound-unknown"
    world.apply(SIDECAR % ("REGISTRY_ONLY", '"*/*"'))
    assert unknown() == "nowhere"
    world.apply(SIDECAR % ("ALLOW_ANY", '"*/*"'))
    assert unknown() == "outbound-unknown"


@pytest.mark.parametrize(
    ("spec", "field", "says"),
    [
        ("egress: [{hosts: [a]}]", "spec.egress[0].hosts", "isn't NAMESPACE/HOST"),
        ("egress: [{hosts: ['*/*'], port: {number: 80}}]", "spec.egress[0]", "list all hosts in one"),
        ("egress: [{captureMode: NONE}]", "spec.egress[0]", "takes no connections"),
        ("egress: [{captureMode: IPTABLES, bind: 'unix:///a'}]", "spec.egress[0]", "keep one"),
        ("outboundTrafficPolicy: {egressProxy: {host: a}}", "spec.outboundTrafficPolicy", "through a gateway"),
    ],
)
def test_what_a_sidecar_cannot_say_here_is_refused(spec: str, field: str, says: str) -> None:
    document = {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "metadata": {"name": "shop"}}
    faults = parse.parse(json.dumps({**document, "spec": yaml.safe_load(spec)}))
    assert isinstance(faults, list)
    assert [fault for fault in faults if fault.field == field and says in fault.message], faults
