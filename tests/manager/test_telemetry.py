"""Telemetry: which share of a workload's requests is traced."""

from __future__ import annotations

from meshes import SHOP, World, message

from meshwright.core.identity import SYSTEM_NAMESPACE

TELEMETRY = """
apiVersion: telemetry.istio.io/v1
kind: Telemetry
metadata: {name: %s, namespace: %s}
spec: {%s}
"""


def shares(world: World, workload: str) -> list[float]:
    """Return the shares of the proxy's listeners, in percent."""
    view = world.snapshot.view("default", workload)
    assert view is not None
    managers = [message(made)["filter_chains"][0]["filters"][0]["typed_config"] for made in view.listeners.values()]
    return [manager["tracing"]["random_sampling"].get("value", 0.0) for manager in managers]


def test_the_narrowest_word_about_traces_counts() -> None:
    world = World(SHOP)
    assert (shares(world, "shop-0"), shares(world, "catalog-v1-0")) == ([100.0], [100.0])
    everywhere = "tracing: [{randomSamplingPercentage: 10}]"
    world.apply(TELEMETRY % ("mesh", SYSTEM_NAMESPACE, everywhere))
    assert (shares(world, "shop-0"), shares(world, "catalog-v1-0")) == ([10.0], [10.0])
    world.apply(TELEMETRY % ("all", "default", "tracing: [{match: {mode: CLIENT}, disableSpanReporting: true}]"))
    assert (shares(world, "shop-0"), shares(world, "catalog-v1-0")) == ([0.0], [10.0])
    some = "selector: {matchLabels: {app: catalog}}, tracing: [{match: {mode: SERVER}, randomSamplingPercentage: 50}]"
    world.apply(TELEMETRY % ("catalog", "default", some))
    assert (shares(world, "shop-0"), shares(world, "catalog-v1-0")) == ([0.0], [50.0])
    world.apply(remove=("Telemetry/catalog", "Telemetry/all", "Telemetry/mesh"))
    assert (shares(world, "shop-0"), shares(world, "catalog-v1-0")) == ([100.0], [100.0])
