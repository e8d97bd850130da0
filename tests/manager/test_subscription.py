"""The protocol of one stream: what is sent, in which order, and when a revision counts as acknowledged."""

from __future__ import annotations

from meshes import SHOP, SPLIT, Proxy, World, decode

from meshwright.manager.xds import types
from meshwright.manager.xds.subscription import Request, Subscription

CATALOG = "outbound|80||catalog.default.svc.cluster.local"
V1, V2 = CATALOG.replace("catalog.", "catalog-v1."), CATALOG.replace("catalog.", "catalog-v2.")


def connected(world: World, workload: str = "shop-0") -> Proxy:
    proxy = Proxy()
    offer(world, proxy, workload)
    proxy.settle()
    return proxy


def offer(world: World, proxy: Proxy, workload: str = "shop-0") -> None:
    view = world.snapshot.view("default", workload)
    assert view is not None
    proxy.subscription.offer(view)


def change(world: World, proxy: Proxy, text: str = "", **options: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    world.apply(text, **options)
    offer(world, proxy)
    return proxy.settle()


def test_first_contact_answers_as_asked_with_clusters_first() -> None:
    proxy = Proxy()
    offer(World(SHOP), proxy)
    sent = [kind for kind, _ in proxy.settle()]
    assert sent == ["Cluster", "Listener", "ClusterLoadAssignment", "RouteConfiguration"]
    assert proxy.subscription.acknowledged_revision == 1


def test_a_proxy_that_asks_for_listeners_before_endpoints_is_answered() -> None:
    """Envoy asks the other way round; clients that follow gRPC's order must not wait for ever."""
    world = World(SHOP)
    proxy = Proxy()
    offer(world, proxy)
    sent = [decode(raw).type_url for raw in proxy.subscription.pending()]
    assert sent == [types.CLUSTER, types.LISTENER]


def test_a_split_pushes_routes_only() -> None:
    world = World(SHOP)
    proxy = connected(world)
    assert change(world, proxy, SPLIT) == [("RouteConfiguration", ["outbound|default|*/*"])]
    assert proxy.subscription.acknowledged_revision == 2


def test_an_endpoint_pushes_its_own_assignment_only() -> None:
    world = World(SHOP)
    proxy = connected(world)
    moved = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: catalog-v2-0}
spec: {address: 127.0.0.1, ports: {http: 29999}, labels: {app: catalog, version: v2}, serviceAccount: catalog}
"""
    assert change(world, proxy, moved) == [("ClusterLoadAssignment", [V2, CATALOG])]


def test_what_a_proxy_does_not_see_sends_nothing_and_counts_as_acknowledged() -> None:
    world = World(SHOP)
    proxy = connected(world)
    other = "{apiVersion: v1, kind: Namespace, metadata: {name: other}}"
    assert change(world, proxy, other) == []
    assert proxy.subscription.acknowledged_revision == 2


def test_a_proxy_that_missed_revisions_gets_the_sum() -> None:
    world = World(SHOP)
    proxy = connected(world)
    world.apply(SPLIT)
    world.apply(SPLIT.replace("90", "50"))
    assert change(world, proxy, SPLIT.replace("90", "10")) == [("RouteConfiguration", ["outbound|default|*/*"])]
    assert proxy.subscription.acknowledged_revision == 4


def test_routes_wait_for_the_clusters_and_endpoints_that_they_lead_to() -> None:
    world = World(SHOP)
    proxy = connected(world)
    v3 = """
apiVersion: v1
kind: Service
metadata: {name: catalog-v3}
spec: {selector: {app: catalog, version: v3}, ports: [{name: http, port: 80}]}
---
"""
    world.apply(v3 + SPLIT.replace("catalog-v2", "catalog-v3"))
    offer(world, proxy)
    [clusters] = [decode(raw) for raw in proxy.subscription.pending()]
    assert clusters.type_url == types.CLUSTER
    acknowledge(proxy, clusters)
    assert list(proxy.subscription.pending()) == [], "the proxy has yet to ask for the new cluster's endpoints"
    names = proxy.subscription.types[types.ENDPOINT].names | {CATALOG.replace("catalog.", "catalog-v3.")}
    state = proxy.subscription.types[types.ENDPOINT]
    proxy.subscription.request(Request(types.ENDPOINT, names, "1", state.last_nonce))
    [endpoints] = [decode(raw) for raw in proxy.subscription.pending()]
    assert endpoints.type_url == types.ENDPOINT
    assert proxy.subscription.acknowledged_revision == 1
    proxy.subscription.request(Request(types.ENDPOINT, names, endpoints.version_info, endpoints.nonce))
    [routes] = [decode(raw) for raw in proxy.subscription.pending()]
    assert routes.type_url == types.ROUTE


def acknowledge(proxy: Proxy, response: object) -> None:
    state = proxy.subscription.types[response.type_url]  # type: ignore[attr-defined]
    request = Request(response.type_url, state.names, response.version_info, response.nonce)  # type: ignore[attr-defined]
    proxy.subscription.request(request)


def test_a_cluster_is_taken_away_after_the_routes_to_it() -> None:
    world = World(SHOP + "---" + SPLIT)
    proxy = connected(world)
    without_v2 = SPLIT.replace(", {service: catalog-v2, weight: 10}", "")
    sent = change(world, proxy, without_v2, remove=("Service/catalog-v2",))
    assert [kind for kind, _ in sent] == ["RouteConfiguration", "Cluster"]
    assert V2 not in proxy.clusters
    assert proxy.subscription.acknowledged_revision == 2


def test_a_changed_cluster_gets_its_endpoints_again() -> None:
    """Envoy uses a changed cluster only once it received the endpoints anew (xDS, resource warming)."""
    world = World(SHOP)
    proxy = connected(world)
    another = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: catalog-v2-0}
spec: {address: 127.0.0.1, ports: {http: 21002}, labels: {app: catalog, version: v2}, serviceAccount: catalog-two}
"""
    sent = change(world, proxy, another)
    assert [kind for kind, _ in sent] == ["Cluster", "ClusterLoadAssignment"]
    assert sent[1][1] == [V2, CATALOG]


def test_a_refusal_is_kept_until_the_type_is_accepted() -> None:
    world = World(SHOP)
    proxy = connected(world)
    proxy.refuse = {types.ROUTE}
    change(world, proxy, SPLIT)
    state = proxy.subscription.types[types.ROUTE]
    assert (state.error, state.sent_version, state.acknowledged_version) == ("refused by the test", "2", "1")
    assert proxy.subscription.acknowledged_revision == 1
    change(world, proxy, "{apiVersion: v1, kind: Namespace, metadata: {name: other}}")
    assert proxy.subscription.acknowledged_revision == 1, "a later revision doesn't hide the refusal"
    proxy.refuse = set()
    change(world, proxy, SPLIT.replace("90", "50"))
    assert state.error == ""
    assert proxy.subscription.acknowledged_revision == 4


def test_refused_endpoints_are_judged_again_with_the_next_ones() -> None:
    world = World(SHOP)
    proxy = connected(world)
    entry = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: catalog-v%d-0}
spec: {address: 127.0.0.1, ports: {http: %d}, labels: {version: v%d, app: catalog}, serviceAccount: catalog}
"""
    proxy.refuse = {types.ENDPOINT}
    change(world, proxy, entry % (2, 22222, 2))
    proxy.refuse = set()
    [(kind, names)] = change(world, proxy, entry % (1, 11111, 1))
    assert (kind, sorted(names)) == ("ClusterLoadAssignment", sorted([V1, V2, CATALOG]))


def test_a_stale_nonce_acknowledges_nothing() -> None:
    world = World(SHOP)
    proxy = connected(world)
    world.apply(SPLIT)
    offer(world, proxy)
    [response] = [decode(raw) for raw in proxy.subscription.pending()]
    state = proxy.subscription.types[types.ROUTE]
    proxy.subscription.request(Request(types.ROUTE, state.names, "1", "3"))
    assert state.nonce == response.nonce
    assert state.acknowledged_version == "1"


def test_an_unknown_type_is_answered_with_silence() -> None:
    subscription = Subscription()
    subscription.request(Request("type.googleapis.com/envoy.service.runtime.v3.Runtime", frozenset({"x"})))
    assert list(subscription.pending()) == []


def test_resources_of_two_proxies_are_the_same_bytes() -> None:
    world = World(SHOP + "---" + SPLIT)
    views = [world.snapshot.view("default", name) for name in ("shop-0", "shop-0")]
    assert views[0] is not None
    assert views[1] is not None
    assert views[0].shared is views[1].shared
    assert views[0].route("outbound|default|*/*") is views[1].route("outbound|default|*/*")


def test_what_did_not_change_is_the_same_object_in_the_next_revision() -> None:
    world = World(SHOP)
    before = world.snapshot.view("default", "shop-0")
    after = world.apply(SPLIT).view("default", "shop-0")
    assert before is not None
    assert after is not None
    assert before.shared is after.shared
    assert before.listeners is after.listeners
    assert before.endpoint(CATALOG) is after.endpoint(CATALOG)


REDIRECTED = """
apiVersion: v1
kind: Service
metadata: {name: catalog}
spec: {selector: {app: catalog}, clusterIPs: [10.96.0.10], ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: catalog-v2}
spec: {selector: {app: catalog}, clusterIPs: [10.96.0.11], ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: catalog-0, annotations: {meshwright.io/injected: redirect}}
spec: {address: 10.88.0.5, labels: {app: catalog}, serviceAccount: catalog}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-0, annotations: {meshwright.io/injected: redirect}}
spec: {address: 10.88.0.6, labels: {app: shop}, serviceAccount: shop}
"""
SHIFT = """
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: catalog}
spec: {service: catalog, backends: [{service: catalog-v2, weight: 1}]}
"""


def test_redirecting_proxies_share_the_listeners_of_services_and_a_split_pushes_one_route() -> None:
    world = World(REDIRECTED)
    name = "outbound|80||catalog.default.svc.cluster.local"
    one, other = (world.snapshot.view("default", workload) for workload in ("shop-0", "catalog-0"))
    assert one is not None
    assert other is not None
    assert one.listeners[name] is other.listeners[name]
    proxy = Proxy()
    proxy.subscription.offer(one)
    proxy.settle()
    assert proxy.subscription.acknowledged_revision == 1
    after = world.apply(SHIFT).view("default", "shop-0")
    assert after is not None
    assert after.listeners[name] is one.listeners[name]
    proxy.subscription.offer(after)
    assert proxy.settle() == [("RouteConfiguration", [name])]
    assert proxy.subscription.acknowledged_revision == 2
