"""Proxies share what they have the same of, and a change costs what depends on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from meshes import SHOP, message
from speaking import CATALOG, ORIGIN, V1, Speaker, http, policy, speaking, to
from test_acceptance import MESH

from meshwright.manager.model.routing import CallerMatch, HttpMatch, HttpRoute, Routes
from meshwright.manager.xds import action, cluster, endpoint, quantity, redirect, route, types
from meshwright.manager.xds.snapshot import View

CALLERS = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-1}
spec: {address: 127.0.0.1, labels: {app: shop}, serviceAccount: shop}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-2}
spec: {address: 127.0.0.1, labels: {app: shop, trial: "yes"}, serviceAccount: shop}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: far-0, namespace: depot}
spec: {address: 127.0.0.1, labels: {app: shop}, serviceAccount: shop}
---
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: all, namespace: depot}
spec:
  egress: [{bind: "unix:///run/shop/mesh.sock"}]
"""
NAME = "outbound|default|*/*"


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    with speaking(f"{SHOP}---{CALLERS}") as made:
        made.say()
        yield made


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each translator was asked, by what."""
    counts: Counter[str] = Counter()
    for module, name in (
        (cluster, "outbound"),
        (endpoint, "load_assignment"),
        (route, "outbound"),
        (redirect, "service"),
    ):
        sound = getattr(module, name)

        def counting(*arguments: Any, _sound: Any = sound, _name: str = module.__name__, **more: Any) -> Any:
            counts[_name.rpartition(".")[2]] += 1
            return _sound(*arguments, **more)

        monkeypatch.setattr(module, name, counting)
    return counts


def view(speaker: Speaker, workload: str, namespace: str = "default") -> View:
    found = speaker.snapshot.view(namespace, workload)
    assert found is not None
    return found


def trial(**condition: Any) -> Routes:
    """Routes that are for some callers, and those for the rest."""
    some = HttpMatch(callers=CallerMatch(**condition))
    return http(HttpRoute(ORIGIN, matches=(some,), backends=(to(subset="v2"),)), HttpRoute(ORIGIN, backends=(to(),)))


def test_callers_that_fulfil_the_same_share_their_routes(speaker: Speaker) -> None:
    speaker.say(trial(labels=(("trial", "yes"),)), policy())
    first, second, on_trial = (view(speaker, name) for name in ("shop-0", "shop-1", "shop-2"))
    assert first.route(NAME) is second.route(NAME)
    assert first.route(NAME) != on_trial.route(NAME)
    assert first.shared is on_trial.shared  # conditions of routes are no matter for clusters


def test_a_policy_for_some_callers_makes_clusters_of_their_own(speaker: Speaker) -> None:
    speaker.say(policy(callers=(("trial", "yes"),)))
    first, second, on_trial = (view(speaker, name) for name in ("shop-0", "shop-1", "shop-2"))
    assert first.shared is second.shared
    subset = f"outbound|80|v1|{CATALOG}"
    assert (subset in first.shared.by_name, subset in on_trial.shared.by_name) == (False, True)


def test_namespaces_share_all_but_short_names_until_something_is_said_for_one(speaker: Speaker) -> None:
    near, far = view(speaker, "shop-0"), view(speaker, "far-0", "depot")
    assert near.shared is far.shared
    speaker.say(policy(exported=frozenset(["depot"])), namespace="depot")
    assert (
        view(speaker, "shop-0").shared is near.shared or view(speaker, "shop-0").shared.by_name == near.shared.by_name
    )
    assert f"outbound|80|v1|{CATALOG}" in view(speaker, "far-0", "depot").shared.by_name


def test_a_route_costs_its_own_service_and_no_cluster(speaker: Speaker, made: Counter[str]) -> None:
    for workload in ("shop-0", "shop-1", "shop-2"):
        view(speaker, workload).all(types.ROUTE)
    made.clear()
    speaker.say(trial(labels=(("trial", "yes"),)))
    for workload in ("shop-0", "shop-1", "shop-2"):
        view(speaker, workload).all(types.ROUTE)
        view(speaker, workload).all(types.CLUSTER)
    assert made == {"route": 2}  # the catalog's port, for callers on trial and for the others


def test_an_endpoint_costs_its_service_and_its_subsets(speaker: Speaker, made: Counter[str]) -> None:
    speaker.say(http(HttpRoute(ORIGIN, backends=(to(labels=V1.labels),))), policy())
    before = view(speaker, "shop-0")
    before.all(types.CLUSTER)
    made.clear()
    speaker.apply(SHOP.replace("21002", "21003"))
    after = view(speaker, "shop-0")
    assert made == {"endpoint": 3}  # of catalog, of catalog-v2, and of the catalog's subset v2
    assert after.shared is before.shared
    changed = after.changed_since(types.ENDPOINT, before.mark(types.ENDPOINT))
    assert changed == {
        f"outbound|80||{CATALOG}",
        "outbound|80||catalog-v2.default.svc.cluster.local",
        f"outbound|80|version=v2|{CATALOG}",
    }


def test_labels_that_no_subset_asks_for_send_nothing(speaker: Speaker) -> None:
    speaker.say(policy())
    before = view(speaker, "shop-0")
    speaker.apply(SHOP.replace("labels: {app: catalog, version: v2}", "labels: {app: catalog, version: v2, x: y}"))
    assert view(speaker, "shop-0").changed_since(types.ENDPOINT, before.mark(types.ENDPOINT)) == set()


def test_routes_of_requests_leave_redirecting_proxies_listeners_as_they_are(made: Counter[str]) -> None:
    with speaking(MESH) as speaker:
        speaker.say()
        before = view(speaker, "pod-0")
        before.all(types.ROUTE)
        made.clear()
        speaker.say(trial(namespace="depot"))
        after = view(speaker, "pod-0")
        assert after.mark(types.LISTENER) == before.mark(types.LISTENER)
        changed = after.changed_since(types.ROUTE, before.mark(types.ROUTE))
        assert changed is None or changed == {f"outbound|80||{CATALOG}"}
        after.all(types.ROUTE)
        assert made == {"route": 1}


def test_what_cannot_be_translated_is_refused_and_costs_no_other_service(
    speaker: Speaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of a translator's must not stop what all proxies are sent."""
    sound = action.routes

    def failing(stated: HttpRoute, place: action.Place) -> Iterator[Any]:
        if stated.name == "bad":
            raise ValueError("a mistake")
        return sound(stated, place)

    monkeypatch.setattr(action, "routes", failing)
    speaker.say(http(HttpRoute(ORIGIN, "bad", backends=(to(),))))
    found = view(speaker, "shop-0").route(NAME)
    assert found is not None
    by_name = {host["name"]: host["routes"][0] for host in message(found)["virtual_hosts"]}
    assert by_name[f"{CATALOG}:80"]["direct_response"]["status"] == 503
    assert by_name["catalog-v1.default.svc.cluster.local:80"]["route"]["timeout"] == "60s"


def test_shares_of_any_size_fit_the_proxys_sum_and_none_is_lost() -> None:
    huge = [2**32 - 1, 2**32 - 1, 1]
    fitting = quantity.weights(huge)
    assert sum(fitting) < 2**32
    assert fitting[0] == fitting[1] > 2**29
    assert fitting[2] == 1
    assert quantity.weights([9, 0, 1]) == [9, 0, 1]
