"""What a dry run says of the resources that proxies would get, without sending any."""

from __future__ import annotations

from pathlib import Path

import pytest
from managers import client, objects, running
from meshes import SHOP, SPLIT, World

from meshwright.core.config import Key
from meshwright.manager.configapi import preview
from meshwright.manager.configapi.plan import Action
from meshwright.manager.configapi.preview import Depth, Previews
from meshwright.manager.xds import names
from meshwright.manager.xds.hub import Hub
from pki import Pki

SECOND = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-1}
spec: {address: 127.0.0.2, labels: {app: shop}, serviceAccount: shop}
"""


async def test_a_split_changes_the_routes_of_the_proxies_that_see_it(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP + "---" + SECOND))
        planned = await admin.apply(objects(SPLIT), dry_run=True, preview="text")
        changed = {(found.type_url.rpartition(".")[2], found.action) for found in planned.resources}
        assert changed == {("RouteConfiguration", "changed")}
        [route] = [found for found in planned.resources if found.name.startswith("outbound|default|")]
        assert route.proxies == 2  # both instances of the shop see the same
        assert any(line.startswith("+") and "weighted_clusters" in line for line in route.diff.splitlines())
        assert any("catalog-v2" in line for line in route.diff.splitlines() if line.startswith("+"))
        assert (await admin.list("TrafficSplit")) == ([], 1)  # and nothing happened
        named = await admin.apply(objects(SPLIT), dry_run=True, preview="names")
        assert [(found.name, found.proxies, found.diff) for found in named.resources] == [
            (found.name, found.proxies, "") for found in planned.resources
        ]
        assert (await admin.apply(objects(SPLIT), dry_run=True)).resources == ()
        # What is applied then changes nothing more, and a rollback shows the way back.
        await admin.apply(objects(SPLIT))
        assert (await admin.apply(objects(SPLIT), dry_run=True, preview="names")).resources == ()
        back = await admin.rollback(1, dry_run=True, preview="text")
        assert [found.name for found in back.resources] == [found.name for found in planned.resources]


async def test_new_and_deleted_objects_create_and_delete_resources(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        created = await admin.apply(objects(SHOP), dry_run=True, preview="names")
        assert {found.action for found in created.resources} == {"created"}
        kinds = {found.type_url.rpartition(".")[2] for found in created.resources}
        assert kinds == {"Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"}
        await admin.apply(objects(SHOP))
        gone = await admin.delete([Key("", "Service", "", "catalog-v2")], dry_run=True, preview="names")
        assert ("outbound|80||catalog-v2.default.svc.cluster.local", "deleted") in {
            (found.name, found.action) for found in gone.resources
        }


async def test_the_published_snapshot_stays_and_what_is_made_is_what_would_be_sent() -> None:
    world, hub = World(SHOP), Hub()
    hub.publish(world.snapshot)
    latest = hub.latest
    planned = World(SHOP + "---" + SPLIT)
    found = await Previews(hub, names.Parameters()).of(planned.mesh, Depth.NAMES)
    assert hub.latest is latest
    assert [change.action for change in found.changes] == [Action.CHANGED]
    assert not found.left_out


async def test_a_preview_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    hub.publish(World().snapshot)
    planned = World(SHOP).mesh
    monkeypatch.setattr(preview, "MAX_CHANGES", 2)
    found = await Previews(hub, names.Parameters()).of(planned, Depth.NAMES)
    assert (len(found.changes), found.left_out) == (2, True)
    monkeypatch.setattr(preview, "MAX_CHANGES", 100)
    monkeypatch.setattr(preview, "MAX_TEXT", 50)
    found = await Previews(hub, names.Parameters()).of(planned, Depth.TEXT)
    assert sum(bool(change.diff) for change in found.changes) == 1
    monkeypatch.setattr(preview, "SECONDS", -1.0)
    found = await Previews(hub, names.Parameters()).of(planned, Depth.NAMES)
    assert (found.changes, found.left_out) == ((), True)
