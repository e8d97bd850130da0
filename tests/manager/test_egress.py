"""Calls that leave the mesh by its egress proxies, as an EgressRule of 2017 says."""

from __future__ import annotations

from typing import Any

from meshes import World, message

from meshwright.core.identity import SYSTEM_NAMESPACE
from meshwright.manager.xds import types

MESH = f"""
apiVersion: v1
kind: Service
metadata: {{name: istio-egress, namespace: {SYSTEM_NAMESPACE}}}
spec:
  selector: {{istio: egress}}
  ports: [{{name: http, port: 80}}, {{name: http-tls, port: 443}}]
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {{name: egress-0, namespace: {SYSTEM_NAMESPACE}}}
spec: {{address: 10.0.0.9, labels: {{istio: egress}}, serviceAccount: egress}}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {{name: shop-0}}
spec: {{address: 10.0.0.5, labels: {{app: shop}}, serviceAccount: shop}}
---
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {{name: shop}}
spec:
  workloadSelector: {{labels: {{app: shop}}}}
  egress: [{{bind: "unix:///run/shop/mesh.sock"}}]
---
apiVersion: config.istio.io/v1alpha2
kind: EgressRule
metadata: {{name: api}}
spec:
  destination: {{service: api.example.com}}
  ports: [{{port: 80, protocol: http}}, {{port: 443, protocol: https}}]
  useEgressProxy: true
"""


def clusters(world: World, namespace: str, workload: str) -> dict[str, set[str]]:
    """Return where the proxy's routes lead, by virtual host."""
    view = world.snapshot.view(namespace, workload)
    assert view is not None
    found: dict[str, set[str]] = {}
    for resource in view.all(types.ROUTE).values():
        configuration: dict[str, Any] = message(resource)
        for host in configuration["virtual_hosts"]:
            led = {route["route"]["cluster"] for route in host["routes"] if "route" in route}
            found.setdefault(f"{configuration['name']} {host['name']}", set()).update(led)
    return found


def test_callers_call_the_egress_proxy_and_that_the_host() -> None:
    world = World(MESH)
    egress = f"istio-egress.{SYSTEM_NAMESPACE}.svc.cluster.local"
    called = clusters(world, "default", "shop-0")
    for port in (80, 443):
        [led] = [found for name, found in called.items() if name.endswith(f" api.example.com:{port}")]
        assert led == {f"outbound|{port}||{egress}"}
        passed = clusters(world, SYSTEM_NAMESPACE, "egress-0")
        [led] = [found for name, found in passed.items() if name == f"gateway|{port}||0 api.example.com"]
        assert led == {f"outbound|{port}||api.example.com"}
    view = world.snapshot.view(SYSTEM_NAMESPACE, "egress-0")
    assert view is not None
    made = view.all(types.CLUSTER)
    assert "transport_socket" not in message(made["outbound|80||api.example.com"])
    assert (
        message(made["outbound|443||api.example.com"])["transport_socket"]["typed_config"]["sni"] == "api.example.com"
    )
    for listener in view.listeners.values():
        [chain] = message(listener)["filter_chains"]
        assert chain["transport_socket"]["typed_config"]["require_client_certificate"] is True
    world.apply(MESH.rpartition("---")[2].replace("useEgressProxy: true", "useEgressProxy: false"))
    called = clusters(world, "default", "shop-0")
    assert {"outbound|80||api.example.com"} in called.values()


SAME = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: same, namespace: %s}
spec:
  hosts: [same.example.com]
  ports: [{number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  endpoints: [{address: %s}]
  exportTo: ["%s"]
"""


def test_of_two_entries_for_one_host_a_caller_has_one() -> None:
    world = World(MESH + "---" + SAME % ("a-first", "192.0.2.1", "*") + "---" + SAME % ("b-second", "192.0.2.2", "*"))

    def address() -> str:
        view = world.snapshot.view("default", "shop-0")
        assert view is not None
        [configuration] = [message(each) for each in view.all(types.ROUTE).values()]
        domains = [domain for host in configuration["virtual_hosts"] for domain in host["domains"]]
        assert len(domains) == len({*domains})  # Envoy refuses all routes otherwise
        made = message(view.all(types.CLUSTER)["outbound|80||same.example.com"])
        [endpoint] = made["load_assignment"]["endpoints"][0]["lb_endpoints"]
        return str(endpoint["endpoint"]["address"]["socket_address"]["address"])

    assert address() == "192.0.2.1"
    world.apply(SAME % ("a-first", "192.0.2.1", "b-second"))
    assert address() == "192.0.2.2"
    world.apply(SAME % ("default", "192.0.2.3", "."))
    assert address() == "192.0.2.3"
