"""How long a change takes to reach nine of ten proxies, on a clock of the test's."""

from __future__ import annotations

import meshes
from prometheus_client import CollectorRegistry, Histogram

from meshwright.manager.xds import types
from meshwright.manager.xds.convergence import Convergence

SECONDS = "acknowledged_seconds"


class Rig:
    """A convergence with its figures."""

    def __init__(self) -> None:
        self.time = 100.0
        self.registry = CollectorRegistry()
        histogram = Histogram(SECONDS, "For the test.", ["type"], registry=self.registry)
        self.convergence = Convergence(lambda: self.time, histogram)

    def found(self, type_url: str) -> tuple[float, float]:
        """How many changes were observed, and how long they took together."""
        labels = {"type": types.short(type_url)}
        count, total = (self.registry.get_sample_value(f"{SECONDS}_{what}", labels) or 0.0 for what in ("count", "sum"))
        return count, total


def test_the_tenth_proxy_is_not_waited_for() -> None:
    """Nine of ten proxies are enough, eight aren't; the time is from acceptance, though it is told of later."""
    rig = Rig()
    rig.convergence.published(7, 10)
    rig.convergence.accepted(7, 99.0)
    for number in range(9):
        assert rig.found(types.CLUSTER) == (0, 0)
        rig.time += 1
        rig.convergence.settled(types.CLUSTER, 6, 7, 7 if number else 3)
    assert rig.found(types.CLUSTER) == (1, 10.0)
    rig.convergence.settled(types.CLUSTER, 6, 7, 7)
    assert rig.found(types.CLUSTER) == (1, 10.0)
    assert rig.found(types.LISTENER) == (0, 0)


def test_a_change_that_sent_nothing_of_a_type_is_not_counted() -> None:
    """Who has all that a revision wants without being sent anything says nothing about speed."""
    rig = Rig()
    rig.convergence.published(7, 1)
    rig.convergence.settled(types.LISTENER, 6, 7, 5)
    rig.convergence.published(8, 1)
    rig.time += 2
    rig.convergence.settled(types.LISTENER, 7, 8, 8)
    assert rig.found(types.LISTENER) == (1, 2.0)


def test_a_proxy_that_skips_revisions_counts_for_all_of_them() -> None:
    """A slow proxy takes the newest, and has the older ones with it."""
    rig = Rig()
    rig.convergence.published(7, 1)
    rig.time += 1
    rig.convergence.published(8, 1)
    rig.time += 1
    rig.convergence.settled(types.CLUSTER, 6, 8, 8)
    assert rig.found(types.CLUSTER) == (2, 3.0)


def test_subscriptions_tell_when_a_type_has_settled() -> None:
    """A change of clusters has settled once the proxy has acknowledged them, not when they are sent."""
    world = meshes.World(meshes.SHOP)
    proxy = meshes.Proxy()

    def offer() -> None:
        view = world.snapshot.view("default", "shop-0")
        assert view is not None
        proxy.subscription.offer(view)

    offer()
    proxy.settle()
    assert {found[0] for found in proxy.subscription.settled()} == {types.CLUSTER, types.LISTENER}
    before = world.snapshot.revision
    world.apply(meshes.SHOP.replace("name: catalog-v2}", "name: catalog-v3}", 1))
    offer()
    sent = [meshes.decode(raw) for raw in proxy.subscription.pending()]
    assert sent[0].type_url == types.CLUSTER
    assert list(proxy.subscription.settled()) == []
    for response in sent:
        proxy.take(response)
    proxy.settle()
    settled = {type_url: rest for type_url, *rest in proxy.subscription.settled()}
    assert settled[types.CLUSTER] == [before, before + 1, before + 1]
    assert settled[types.LISTENER] == [before, before + 1, before]
