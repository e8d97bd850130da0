"""TrafficSplits with matches in a real Envoy: some requests go elsewhere, the rest to the root service."""

from __future__ import annotations

from pathlib import Path

import pytest
from ads import free_port, located, manager
from envoys import application, eventually, get, mixer, proxy
from meshes import SHOP

from pki import Pki

GROUPS = """
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: testers}
matches: [{name: header, headers: {x-beta: "[1-9]"}}, {name: path, pathRegex: /beta, methods: [GET]}]
---
apiVersion: specs.smi-spec.io/v1alpha1
kind: HTTPRouteGroup
metadata: {name: insiders}
matches: [{name: insider, pathRegex: "/insider/.*", methods: ["*"]}]
"""
SPLITS = """
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: testers}
spec:
  service: catalog-v2
  matches: [{kind: HTTPRouteGroup, name: testers}]
  backends: [{service: catalog-v1, weight: 1}, {service: nowhere, weight: 0}]
---
apiVersion: split.smi-spec.io/v1alpha3
kind: TrafficSplit
metadata: {name: insiders}
spec:
  service: catalog-v2
  matches: [{kind: HTTPRouteGroup, name: insiders}]
  backends: [{service: catalog-v1, weight: 1000}]
"""


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for the 107 bytes of a socket's path."""
    return tmp_path_factory.mktemp("b")


async def test_requests_that_match_are_split_and_others_go_to_the_root(pki: Pki, short: Path) -> None:
    for name in ("shop", "catalog-v1"):
        (short / name).mkdir()
    mesh = located(SHOP, short, free_port(), free_port()) + GROUPS
    async with (
        manager(pki, mesh) as made,
        mixer(pki) as (_, address),
        application(short / "catalog-v1" / "app.sock", "catalog v1"),
        proxy(short / "s", "shop-0", pki.workload("shop"), manager=made.address),
        proxy(short / "c", "catalog-v1-0", pki.workload("catalog"), manager=made.address, mixers=(address,)),
    ):
        await made.settled("shop-0", "catalog-v1-0")

        async def call(path: str, method: str = "GET", *headers: str) -> int:
            return (await get(short / "shop" / "mesh.sock", "catalog-v2", path, method, headers))[0]

        assert await call("/beta") == 503, "nobody of the root answers in this mesh"
        made.apply(SPLITS)
        await made.settled("shop-0")

        async def split() -> bool:
            return await call("/beta") == 200

        await eventually(split, "a request that matches at the backend")
        assert await call("/", "GET", "x-beta: 7") == 200
        assert await call("/beta/further") == 200
        assert await call("/insider/x", "DELETE") == 200, "another split of the same root"
        assert await call("/") == 503
        assert await call("/", "GET", "x-beta: 70") == 503, "an expression is about the whole value"
        assert await call("/beta", "POST") == 503
        everything = SPLITS.split("---")[0].replace("  matches: [{kind: HTTPRouteGroup, name: testers}]\n", "")
        made.apply(everything.replace("name: testers", "name: everything"))
        await made.settled("shop-0")

        async def all_split() -> bool:
            return await call("/") == 200

        await eventually(all_split, "the rest at the backend of the split without matches")
