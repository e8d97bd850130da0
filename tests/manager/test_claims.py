"""Whose word about a host holds, for whom, and who is told that it doesn't."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from meshes import parsed
from speaking import CATALOG, ORIGIN, Speaker, policy, speaking, to

from meshwright.core.config import Key
from meshwright.manager.model import resolution
from meshwright.manager.model.claims import ANYBODY
from meshwright.manager.model.notices import notices
from meshwright.manager.model.routing import Backend, Destination, Dialect, HttpRoute, Routes
from meshwright.manager.model.traffic import Locality, Settings


def key(name: str, namespace: str = "default") -> Key:
    return Key("v1", "Rule", namespace, name)


def routes(
    name: str, dialect: Dialect = Dialect.VIRTUAL_SERVICE, namespace: str = "default", leads: str = CATALOG, **more: Any
) -> Routes:
    """Routes of one object that sends everything to one host."""
    return Routes(
        CATALOG, dialect, (HttpRoute(key(name, namespace), name, backends=(Backend(Destination(leads)),)),), **more
    )


@pytest.fixture
def world() -> Iterator[Speaker]:
    with speaking() as made:
        yield made


def winner(world: Speaker, caller: str = ANYBODY, port: int = 80) -> list[str]:
    return [route.name for route in world.mesh.areas["default"].spoken["catalog"].http(port, caller)]


def test_the_dialect_decides_first_and_losers_and_winners_are_told(world: Speaker) -> None:
    gateway = routes("gateway", Dialect.GATEWAY_API)
    world.say(routes("rule", Dialect.ROUTE_RULE), routes("virtual"), gateway)
    assert winner(world) == ["gateway"]
    told = {(each.key.name, each.reason): each.message for each in notices(world.mesh, [key("rule"), key("gateway")])}
    assert told == {
        ("rule", "Conflicted"): f"has no effect on {CATALOG} port 80: Rule default/gateway comes first",
        ("gateway", "Conflicted"): f"takes the place of Rule default/rule, Rule default/virtual on {CATALOG} port 80",
    }


def test_ports_are_judged_one_by_one(world: Speaker) -> None:
    world.say(routes("other port", Dialect.GATEWAY_API, ports=frozenset([81])), routes("virtual"))
    assert (winner(world), winner(world, port=81)) == (["virtual"], ["other port"])


def test_a_consumers_rule_is_its_own_callers_alone_and_nobodys_conflict(world: Speaker) -> None:
    world.say(routes("owner"))
    world.say(routes("consumer", namespace="depot", exported=frozenset(["depot"])), namespace="depot")
    assert (winner(world, "depot"), winner(world), winner(world, "default")) == (["consumer"], ["owner"], ["owner"])
    assert list(notices(world.mesh, [key("owner"), key("consumer", "depot")])) == []


def test_of_two_strangers_the_first_by_name_has_the_say(world: Speaker) -> None:
    world.say(routes("late", namespace="yard"), namespace="yard")
    world.say(routes("early", namespace="depot"), namespace="depot")
    assert (winner(world), winner(world, "yard"), winner(world, "default")) == (["early"], ["late"], ["early"])
    assert [each.key.name for each in notices(world.mesh, [key("late", "yard")])] == ["late"]


def test_an_area_that_hears_nothing_new_is_the_same_object(world: Speaker) -> None:
    world.say(routes("owner"))
    world.say(routes("consumer", namespace="depot"), namespace="depot")
    before = world.mesh.areas
    world.say(routes("consumer", namespace="depot"), namespace="depot")
    assert world.mesh.areas["default"] is before["default"]
    assert world.mesh.areas["depot"] is not before["depot"]
    world.say(namespace="depot")
    assert world.mesh.areas["default"] is not before["default"]
    assert winner(world, "depot") == ["owner"]


def test_a_service_elsewhere_that_comes_changes_the_areas_that_lead_to_it(world: Speaker) -> None:
    world.say(routes("far", leads="store.depot.svc.cluster.local"))
    before = world.mesh
    assert before.areas["default"].find("store.depot.svc.cluster.local") is None
    [missing] = notices(before, [key("far")])
    assert (missing.reason, missing.message) == (
        "RefNotFound",
        "service store of namespace depot doesn't exist: 100 % of the requests fail until it does",
    )
    service = "{apiVersion: v1, kind: Service, metadata: {name: store, namespace: depot}, spec: {ports: [{port: 80}]}}"
    objects = {**world.objects, **parsed(service)}
    after = resolution.build(9, objects, (world.objects, before))
    found = after.areas["default"].find("store.depot.svc.cluster.local")
    assert found is not None
    assert found.service is after.areas["depot"].services["store"]
    assert list(notices(after, [key("far")])) == []
    assert resolution.build(10, objects, (objects, after)).areas["default"] is after.areas["default"]


def test_a_subset_that_no_policy_names_is_told(world: Speaker) -> None:
    backends = (to(subset="v1", weight=1), to(subset="v9", weight=3), to(subset="v8", weight=0))
    world.say(Routes(CATALOG, Dialect.VIRTUAL_SERVICE, (HttpRoute(key("subsets"), backends=backends),)), policy())
    assert [each.message for each in notices(world.mesh, [key("subsets")])] == [
        "no policy names subset v9 of service catalog for callers here: 75 % of the requests fail until one does",
        "no policy names subset v8 of service catalog for callers here: with weight 0 nothing is sent there",
    ]


def test_a_policy_that_chooses_by_locality_is_told_that_it_does_nothing(world: Speaker) -> None:
    world.say(policy(Settings(locality=Locality())))
    assert [each.reason for each in notices(world.mesh, [ORIGIN])] == ["UnsupportedValue"]
    world.say(policy(Settings(locality=Locality(enabled=False))))
    assert list(notices(world.mesh, [ORIGIN])) == []
