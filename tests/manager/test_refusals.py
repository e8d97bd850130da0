"""What a proxy refuses stands in the status of the objects that it came from, in the proxy's words."""

from __future__ import annotations

from meshes import SHOP, SPLIT, Proxy, World

from meshwright.api.config.v1 import config_pb2
from meshwright.core.config import Key
from meshwright.manager.configapi import refusals
from meshwright.manager.configapi.acknowledged import acknowledged
from meshwright.manager.configapi.conditions import programmed
from meshwright.manager.xds import types

CATALOG = "catalog.default.svc.cluster.local"


def kinds(found: frozenset[Key]) -> set[tuple[str, str]]:
    return {(key.kind, key.name) for key in found}


def test_a_resource_came_from_the_service_and_who_speaks_of_it() -> None:
    mesh = World(SHOP + "---" + SPLIT).mesh
    assert kinds(refusals.origins(mesh, f"outbound|80||{CATALOG}", "bad")) == {
        ("Service", "catalog"),
        ("TrafficSplit", "catalog"),
    }
    assert ("TrafficSplit", "catalog") in kinds(refusals.origins(mesh, f"outbound|80||catalog-v2.{CATALOG[8:]}", "bad"))


def test_of_a_configuration_of_many_hosts_those_are_meant_that_the_proxy_names() -> None:
    mesh = World(SHOP + "---" + SPLIT).mesh
    name = "outbound|default|*/*"
    assert refusals.origins(mesh, name, "something is wrong") == frozenset()
    words = f"route: unknown cluster 'outbound|80||{CATALOG}'"
    assert ("TrafficSplit", "catalog") in kinds(refusals.origins(mesh, name, words))


def test_the_objects_status_has_the_proxys_words() -> None:
    world, proxy = World(SHOP), Proxy()
    view = world.snapshot.view("default", "shop-0")
    assert view is not None
    proxy.subscription.offer(view)
    proxy.settle()
    [key] = [key for key in World(SPLIT).objects if key.kind == "TrafficSplit"]
    view = world.apply(SPLIT).view("default", "shop-0")
    assert view is not None
    proxy.subscription.offer(view)
    proxy.refuse = {types.ROUTE}
    proxy.words = f"no route to {CATALOG} can be made"
    proxy.settle()
    state = proxy.subscription.types[types.ROUTE]
    told = config_pb2.ProxyStatusResponse.Proxy(node_id="shop-0")
    refused = told.types.add(type_url=types.ROUTE, error=state.error).refused
    for name, words in state.refused.items():
        refused.add(name=name, words=words)
    found = refusals.refused(world.mesh, key, [told])
    assert found == f"shop-0 refused outbound|default|*/*: no route to {CATALOG} can be made"
    assert refusals.complaining([told, config_pb2.ProxyStatusResponse.Proxy(node_id="quiet")]) == [told]
    condition = programmed(acknowledged([told], 2, found))
    assert (condition.status, condition.reason, condition.message) == (False, "Refused", found)
    assert refusals.refused(world.mesh, Key("v1", "Service", "default", "other"), [told]) == ""
