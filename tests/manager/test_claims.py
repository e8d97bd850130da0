"""Whose word about a host holds, for whom, and who is told that it doesn't."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from meshes import SHOP, SPLIT, parsed

from meshwright.core.config import Key
from meshwright.manager.model import dialects, mesh
from meshwright.manager.model.claims import ANYBODY
from meshwright.manager.model.meaning import Context, Meaning
from meshwright.manager.model.notices import notices
from meshwright.manager.model.routing import Backend, Destination, Dialect, HttpRoute, Routes

CATALOG = "catalog.default.svc.cluster.local"


def key(name: str, namespace: str = "default") -> Key:
    return Key("v1", "Rule", namespace, name)


def routes(
    name: str, dialect: Dialect = Dialect.VIRTUAL_SERVICE, namespace: str = "default", to: str = CATALOG, **more: Any
) -> Routes:
    """Routes of one object that sends everything to one host."""
    return Routes(
        CATALOG, dialect, (HttpRoute(key(name, namespace), name, backends=(Backend(Destination(to)),)),), **more
    )


class World:
    """A mesh whose namespaces say what the test makes them say; an object's change lets one speak anew."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.words: dict[str, Sequence[Routes]] = {}
        self.mesh, self.objects = mesh.EMPTY, parsed(SHOP)
        self._turn = 0
        monkeypatch.setitem(dialects.DIALECTS, "test", self._translate)  # type: ignore[arg-type]

    def _translate(self, members: Any, context: Context) -> Meaning:
        return Meaning(tuple(self.words.get(context.namespace, ())))

    def say(self, namespace: str, *words: Routes) -> mesh.Mesh:
        """Let a namespace say something else than before."""
        self.words[namespace] = words
        self._turn += 1
        turn = SPLIT.replace("name: catalog}", f"name: turn, namespace: {namespace}}}").replace("90", str(self._turn))
        before, self.objects = self.objects, {**self.objects, **parsed(turn.replace("catalog", "other"))}
        self.mesh = mesh.build(self._turn, self.objects, (before if self._turn > 1 else {}, self.mesh))
        return self.mesh

    def winner(self, caller: str = ANYBODY, port: int = 80) -> list[str]:
        return [route.name for route in self.mesh.areas["default"].spoken["catalog"].http(port, caller)]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_the_dialect_decides_first_and_losers_and_winners_are_told(world: World) -> None:
    gateway = routes("gateway", Dialect.GATEWAY_API)
    made = world.say("default", routes("rule", Dialect.ROUTE_RULE), routes("virtual"), gateway)
    assert world.winner() == ["gateway"]
    told = {(each.key.name, each.reason): each.message for each in notices(made, [key("rule"), key("gateway")])}
    assert told == {
        ("rule", "Conflicted"): f"has no effect on {CATALOG} port 80: Rule default/gateway comes first",
        ("gateway", "Conflicted"): f"takes the place of Rule default/rule, Rule default/virtual on {CATALOG} port 80",
    }


def test_ports_are_judged_one_by_one(world: World) -> None:
    world.say("default", routes("other port", Dialect.GATEWAY_API, ports=frozenset([81])), routes("virtual"))
    assert (world.winner(), world.winner(port=81)) == (["virtual"], ["other port"])


def test_a_consumers_rule_is_its_own_callers_alone_and_nobodys_conflict(world: World) -> None:
    world.say("default", routes("owner"))
    made = world.say("depot", routes("consumer", namespace="depot", exported=frozenset(["depot"])))
    assert (world.winner("depot"), world.winner(), world.winner("default")) == (["consumer"], ["owner"], ["owner"])
    assert list(notices(made, [key("owner"), key("consumer", "depot")])) == []


def test_of_two_strangers_the_first_by_name_has_the_say(world: World) -> None:
    world.say("yard", routes("late", namespace="yard"))
    made = world.say("depot", routes("early", namespace="depot"))
    assert (world.winner(), world.winner("yard"), world.winner("default")) == (["early"], ["late"], ["early"])
    assert [each.key.name for each in notices(made, [key("late", "yard")])] == ["late"]


def test_an_area_that_hears_nothing_new_is_the_same_object(world: World) -> None:
    world.say("default", routes("owner"))
    before = world.say("depot", routes("consumer", namespace="depot"))
    same = world.say("depot", routes("consumer", namespace="depot"))
    assert same.areas["default"] is before.areas["default"]
    assert same.areas["depot"] is not before.areas["depot"]
    other = world.say("depot")
    assert other.areas["default"] is not before.areas["default"]
    assert world.winner("depot") == ["owner"]


def test_a_service_elsewhere_that_comes_changes_the_areas_that_lead_to_it(world: World) -> None:
    before = world.say("default", routes("far", to="store.depot.svc.cluster.local"))
    assert before.areas["default"].find("store.depot.svc.cluster.local") is None
    [missing] = [each for each in notices(before, [key("far")])]
    assert (missing.reason, missing.message) == (
        "RefNotFound",
        "service store of namespace depot doesn't exist: 100 % of the requests fail until it does",
    )
    service = "{apiVersion: v1, kind: Service, metadata: {name: store, namespace: depot}, spec: {ports: [{port: 80}]}}"
    objects = {**world.objects, **parsed(service)}
    after = mesh.build(9, objects, (world.objects, before))
    found = after.areas["default"].find("store.depot.svc.cluster.local")
    assert found is not None
    assert found.service is after.areas["depot"].services["store"]
    assert list(notices(after, [key("far")])) == []
    assert mesh.build(10, objects, (objects, after)).areas["default"] is after.areas["default"]
