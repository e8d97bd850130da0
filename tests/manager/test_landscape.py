"""What the manager makes of a cluster's Services, EndpointSlices and Pods, and that it depends on nothing but them.

Out of scope: the API server and the proxies (tests/kubernetes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cluster_objects import endpoint, pod, service, slice_
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.manager.model import mesh, resolution
from meshwright.manager.model.mesh import Discovered, Endpoint, Protocol, Proxy
from meshwright.manager.sources.kubernetes import found
from meshwright.manager.sources.kubernetes.landscape import Entrance, Landscape
from meshwright.manager.xds.names import Parameters
from meshwright.manager.xds.snapshot import Snapshot

Objects = dict[str, dict[tuple[str, str], dict[str, Any]]]
READERS: Mapping[str, Callable[[Any], Any]] = {
    "services": found.service,
    "slices": found.endpoint_slice,
    "pods": found.pod,
    "namespaces": found.namespace,
}


def entrance(land: Landscape, kind: str) -> Entrance[Any]:
    return getattr(land, kind)  # type: ignore[no-any-return]


def put(land: Landscape, kind: str, raw: Mapping[str, Any]) -> None:
    """Do what a reflector does with an object that was added or modified."""
    name, value = (raw["metadata"].get("namespace", ""), raw["metadata"]["name"]), READERS[kind](raw)
    if value is None:
        entrance(land, kind).drop(name)
    else:
        entrance(land, kind).put(name, value)


def landscape(*objects: Mapping[str, Any]) -> Landscape:
    land = Landscape()
    kinds = {"Service": "services", "EndpointSlice": "slices", "Pod": "pods", "Namespace": "namespaces"}
    for raw in objects:
        put(land, kinds[raw["kind"]], raw)
    return land


def shop(*objects: Mapping[str, Any]) -> Discovered:
    return landscape(*objects).settle()["shop"]


CATALOG = service("catalog", {"app": "catalog"})
ONE = pod("catalog-1", "10.1.0.1", {"app": "catalog"})


def test_a_service_is_read_with_its_addresses_ports_and_protocols() -> None:
    ports = [
        {"name": "http-web", "port": 80, "targetPort": "web"},
        {"name": "grpc", "port": 81, "targetPort": 9090},
        {"name": "db", "port": 5432},
        {"name": "any", "port": 82, "appProtocol": "kubernetes.io/h2c"},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]
    annotations = {"meshwright.io/on-policy-outage": "allow"}
    read = shop(service("s", {"app": "s"}, ports, annotations=annotations)).services["s"]
    assert [(port.name, port.number, port.target, port.protocol) for port in read.ports] == [
        ("http-web", 80, "web", Protocol.HTTP1),
        ("grpc", 81, 9090, Protocol.HTTP2),
        ("db", 5432, 5432, Protocol.OTHER),
        ("any", 82, 82, Protocol.HTTP2),
    ]
    assert (read.cluster_ips, read.headless, read.allow_on_outage) == (("10.0.0.10",), False, True)


def test_a_headless_service_has_no_address_and_an_external_name_is_none_of_ours() -> None:
    discovered = shop(
        service("headless", {"app": "x"}, clusterIP="None", clusterIPs=["None"]),
        service("elsewhere", {}, type="ExternalName", externalName="example.org"),
    )
    assert discovered.services["headless"].headless
    assert discovered.services.keys() == {"headless"}


def test_a_pod_is_a_workload_with_its_account_its_ports_and_who_made_it() -> None:
    labels = {"app": "catalog", "pod-template-hash": "6f4"}
    owner = {"controller": True, "kind": "ReplicaSet", "name": "catalog-6f4"}
    read = shop(pod("catalog-6f4-x", "10.1.0.1", labels, ownerReferences=[owner])).workloads["catalog-6f4-x"]
    assert (read.address, read.service_account, read.ports, read.proxy) == (
        "10.1.0.1",
        "catalog",
        {"web": 8080},
        Proxy.REDIRECT,
    )
    assert read.application == "catalog"
    assert read.pod is not None
    assert read.pod.owner == "Deployment/catalog"


@pytest.mark.parametrize("change", [{"podIP": ""}, {"phase": "Succeeded"}, {"phase": "Failed"}])
def test_a_pod_without_an_address_of_its_own_isnt_there(change: dict[str, str]) -> None:
    raw = pod("catalog-1", "10.1.0.1")
    raw["status"] |= change
    assert found.pod(raw) is None


def test_endpoints_come_from_all_slices_with_their_zones_and_whether_a_proxy_is_there() -> None:
    discovered = shop(
        CATALOG,
        ONE,
        pod("catalog-2", "10.1.0.2", {"app": "catalog"}, account="other", injected=False),
        slice_("catalog-a", "catalog", [endpoint("10.1.0.1", "catalog-1", "north")]),
        slice_("catalog-b", "catalog", [endpoint("10.1.0.2", "catalog-2", "south"), endpoint("192.0.2.1")]),
        slice_("catalog-6", "catalog", [endpoint("fd00::1", "catalog-1")], family="IPv6"),
    )
    assert discovered.endpoints["catalog", 80] == (
        Endpoint("10.1.0.1", 8080, "north", True, labels=(("app", "catalog"),)),
        Endpoint("10.1.0.2", 8080, "south", False, labels=(("app", "catalog"),)),
        Endpoint("192.0.2.1", 8080, "", meshed=False, outside=True),
    )
    assert discovered.accounts["catalog"] == ("catalog",), "only who has a proxy shows an identity"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([{"ready": True}, {"ready": False}], ["10.1.0.1"]),
        ([{"ready": False}, {"ready": False}], []),
        ([{"ready": True}, {"ready": False, "serving": True, "terminating": True}], ["10.1.0.1"]),
        ([{"ready": False, "serving": True, "terminating": True}, {"ready": False}], ["10.1.0.1"]),
        ([{"ready": False, "serving": False, "terminating": True}, {"ready": False}], []),
        ([{}, {"ready": False}], ["10.1.0.1"]),
    ],
)
def test_what_is_leaving_serves_on_only_where_nothing_is_ready(
    conditions: list[dict[str, bool]], expected: list[str]
) -> None:
    endpoints = [
        endpoint(f"10.1.0.{n}", f"catalog-{n}", **condition) for n, condition in enumerate(conditions, start=1)
    ]
    pods = [pod(f"catalog-{n}", f"10.1.0.{n}") for n in (1, 2)]
    discovered = shop(CATALOG, *pods, slice_("a", "catalog", endpoints))
    assert [each.address for each in discovered.endpoints["catalog", 80]] == expected


def test_an_endpoint_waits_for_its_pod_because_that_says_how_it_is_spoken_to() -> None:
    land = landscape(CATALOG, slice_("a", "catalog", [endpoint("10.1.0.1", "catalog-1")]))
    assert land.settle()["shop"].endpoints["catalog", 80] == ()
    put(land, "pods", ONE)
    assert land.settle()["shop"].endpoints["catalog", 80] == (Endpoint("10.1.0.1", 8080, labels=(("app", "catalog"),)),)


def test_a_pod_knows_its_services_before_it_is_ready() -> None:
    land = landscape(ONE, CATALOG, service("all", {}), service("other", {"app": "other"}))
    assert land.settle()["shop"].services_of == {"catalog-1": ("catalog",)}
    put(land, "services", service("other", {"app": "catalog"}))
    assert land.settle()["shop"].services_of == {"catalog-1": ("catalog", "other")}


def test_what_says_the_same_is_the_same_object() -> None:
    """A heartbeat in a pod's status, or a slice written anew with the same content, must cost nothing after this."""
    land = landscape(CATALOG, ONE, slice_("a", "catalog", [endpoint("10.1.0.1", "catalog-1")]))
    before = land.settle()
    beat = pod("catalog-1", "10.1.0.1", {"app": "catalog"})
    beat["status"]["conditions"] = [{"type": "Ready", "lastProbeTime": "2026-11-21T16:00:00Z"}]
    put(land, "pods", beat)
    put(land, "slices", slice_("a", "catalog", [endpoint("10.1.0.1", "catalog-1")]))
    assert land.settle() is before
    put(land, "slices", slice_("a", "catalog", [endpoint("10.1.0.1", "catalog-1", "north")]))
    after = land.settle()["shop"]
    assert after.services is before["shop"].services
    assert after.workloads is before["shop"].workloads


def test_a_namespace_goes_with_its_last_object() -> None:
    land = landscape({"kind": "Namespace", "metadata": {"name": "empty"}}, ONE)
    assert land.settle().keys() == {"empty", "shop"}
    land.pods.replace({})
    land.namespaces.replace({})
    assert land.settle() == {}


names = st.sampled_from(["a", "b"])
spaces = st.sampled_from(["shop", "shop", "shop", "bank"])
labels = st.dictionaries(st.sampled_from(["app", "tier"]), st.sampled_from(["x", "y"]), max_size=2)
addresses = st.integers(1, 4).map(lambda n: f"10.1.0.{n}")
flags = st.fixed_dictionaries({}, optional=dict.fromkeys(["ready", "serving", "terminating"], st.booleans()))
OBJECTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "services": st.builds(
        lambda name, selector, number, at: service(
            name, selector, [{"name": "http", "port": number, "targetPort": "web"}], namespace=at
        ),
        names,
        labels,
        st.integers(80, 81),
        spaces,
    ),
    "pods": st.builds(
        lambda name, address, label, injected, account, at: pod(
            name, address, label, injected=injected, account=account, namespace=at
        ),
        names,
        addresses,
        labels,
        st.booleans(),
        names,
        spaces,
    ),
    "slices": st.builds(
        lambda name, of, found, at, family: slice_(name, of, found, namespace=at, family=family),
        names,
        names,
        st.lists(
            st.builds(
                lambda a, p, z, c: endpoint(a, p, z, **c), addresses, st.sampled_from(["", "a", "b"]), names, flags
            ),
            max_size=3,
        ),
        spaces,
        st.sampled_from(["IPv4", "IPv4", "IPv6"]),
    ),
    "namespaces": st.builds(lambda name: {"metadata": {"name": name}}, spaces),
}
events = st.one_of(
    *(st.tuples(st.just("put"), st.just(kind), made) for kind, made in OBJECTS.items()),
    st.tuples(st.just("drop"), st.sampled_from(sorted(OBJECTS)), st.tuples(spaces, names)),
    *(st.tuples(st.just("list"), st.just(kind), st.lists(made, max_size=4)) for kind, made in OBJECTS.items()),
)


def name_of(raw: Mapping[str, Any]) -> tuple[str, str]:
    return raw["metadata"].get("namespace", ""), raw["metadata"]["name"]


def fresh(present: Objects) -> Mapping[str, Discovered]:
    land = Landscape()
    for kind, objects in present.items():
        read = {name: READERS[kind](raw) for name, raw in objects.items()}
        entrance(land, kind).replace({name: value for name, value in read.items() if value is not None})
    return land.settle()


@given(st.lists(events, max_size=30))
@settings(max_examples=200)
def test_any_sequence_of_events_gives_the_picture_of_a_fresh_list(sequence: list[tuple[str, str, Any]]) -> None:
    """At every step, because what one step forgot to look at again may be hidden by the next.

    And not only the picture: what proxies get of it, which is made from what changed, too.
    """
    land = Landscape()
    built, served = mesh.EMPTY, Snapshot(mesh.EMPTY, Parameters())
    present: Objects = {kind: {} for kind in OBJECTS}
    for what, kind, content in sequence:
        match what:
            case "put":
                put(land, kind, content)
                present[kind][name_of(content)] = content
            case "drop":
                entrance(land, kind).drop(content)
                present[kind].pop(content, None)
            case "list":
                present[kind] = {name_of(raw): raw for raw in content}
                entrance(land, kind).replace({name: READERS[kind](raw) for name, raw in present[kind].items()})
        picture = fresh(present)
        assert land.settle() == picture
        built = resolution.build(1, {}, ({}, built), land.settle())
        served = Snapshot(built, Parameters(), served)
        assert views(served, picture) == views(Snapshot(built_anew(picture), Parameters()), picture)


def built_anew(picture: Mapping[str, Discovered]) -> mesh.Mesh:
    return resolution.build(1, {}, ({}, mesh.EMPTY), picture)


def views(snapshot: Snapshot, picture: Mapping[str, Discovered]) -> list[Any]:
    """Return all that all proxies get."""
    found: list[Any] = []
    for namespace, discovered in sorted(picture.items()):
        for name in sorted(discovered.workloads):
            view = snapshot.view(namespace, name)
            assert view is not None
            clusters, listeners = {**view.shared.by_name, **view.own_clusters}, dict(view.listeners)
            routes = {route: view.route(route) for route in view.route_names}
            found.append((name, clusters, {each: view.endpoint(each) for each in clusters}, listeners, routes))
    return found
