"""Two managers and a real Envoy: when one dies, the other sends what changed and nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from ads import located, manager
from envoys import eventually, proxy
from meshes import SHOP, SPLIT

from meshwright.manager.xds import types
from pki import Pki


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for the 107 bytes of a socket's path."""
    return tmp_path_factory.mktemp("r")


async def test_a_replicas_death_moves_proxies_without_a_reload(pki: Pki, folder: Path) -> None:
    """The proxy's other manager has another history, and made the same resources in another order."""
    (folder / "shop").mkdir()
    mesh = located(SHOP, folder)
    async with contextlib.AsyncExitStack() as one_life, contextlib.AsyncExitStack() as other_life:
        lives = [one_life, other_life]
        managers = [await life.enter_async_context(manager(pki, mesh)) for life in lives]
        managers[0].apply(SPLIT)
        managers[0].apply("", remove=("TrafficSplit/catalog",))
        for _ in range(2):
            managers[1].apply("")
        addresses = [one.address for one in managers]
        async with proxy(folder / "p", "shop-0", pki.workload("shop"), manager=addresses):
            await eventually(lambda: any(one.hub.connections() for one in managers), "the proxy is connected")
            chosen = 0 if managers[0].hub.connections() else 1
            survivor = managers[1 - chosen]
            await managers[chosen].settled("shop-0")
            assert all(state.delta for state in managers[chosen].states("shop-0").values() if state.asked)

            await lives[chosen].aclose()
            await survivor.settled("shop-0")
            sent = {types.short(kind): state.sent_version for kind, state in survivor.states("shop-0").items()}
            assert set(sent.values()) == {""}, "nothing that is current is sent again"

            survivor.apply(SPLIT)
            await survivor.settled("shop-0")
            sent = {types.short(kind) for kind, state in survivor.states("shop-0").items() if state.sent_version}
            assert sent == {"RouteConfiguration"}
