"""Who changed what: history, differences, rollback, expected revisions and watching, over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from managers import client, objects, running
from meshes import SHOP, SPLIT

from meshwright.api.config.v1 import config_pb2
from meshwright.core import errors
from meshwright.core.config import History, Key, Ledger
from meshwright.core.config.committed import StoreSource
from meshwright.core.health import Health
from meshwright.core.store import MemoryStore
from meshwright.manager.answers import Event, Expectation
from meshwright.manager.configapi.catalogue import Catalogue
from meshwright.manager.errors import Refused
from meshwright.manager.model import kinds
from meshwright.manager.model.fault import Findings
from meshwright.manager.sources.kubernetes import candidate as candidates
from meshwright.manager.sources.kubernetes.admission import Admissions
from meshwright.manager.sources.kubernetes.mirror import Mirror
from pki import Pki

ADMIN = "spiffe://mesh.local/ns/meshwright-system/sa/admin"
CATALOG = Key("split.smi-spec.io/v1alpha4", "TrafficSplit", "default", "catalog")


@pytest.fixture(params=["memory", "etcd"])
def store(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Settings that name a store."""
    found: dict[str, Any] = request.getfixturevalue("etcd") if request.param == "etcd" else {}
    return found


async def test_each_change_has_author_time_and_message(pki: Pki, tmp_path: Path, store: dict[str, Any]) -> None:
    async with running(pki, tmp_path, **store) as address, client(pki, address) as admin:
        assert await admin.history() == ([], 0)
        await admin.apply(objects(SHOP), message="open the shop")
        await admin.apply(objects(SPLIT))
        await admin.delete([CATALOG], message="no more canary")
        third, second, first = (await admin.history())[0]
        assert (first.revision, first.author, first.message, first.changed) == (1, ADMIN, "open the shop", 8)
        assert {action for _, action in first.changes} == {"created"}
        assert (second.message, second.changes) == ("", ((CATALOG, "created"),))
        assert (third.message, third.changes) == ("no more canary", ((CATALOG, "deleted"),))
        assert first.time <= second.time <= third.time
        found, _ = await admin.history("trafficsplit", "catalog")
        assert [revision.revision for revision in found] == [3, 2]
        found, _ = await admin.history(before=3, limit=1)
        assert [revision.revision for revision in found] == [2]
        with pytest.raises(errors.ConfigError, match=r"filter.kind: unknown kind TrafikSplit: did you mean"):
            await admin.history("TrafikSplit")
        with pytest.raises(errors.ConfigError, match="limit: is 1001: at most 1000"):
            await admin.history(limit=1001)
        with pytest.raises(errors.ConfigError, match="message: has 1001 characters"):
            await admin.apply(objects(SPLIT), message="x" * 1001)


async def test_differences_between_revisions(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP + "---" + SPLIT))
        await admin.apply(objects(SPLIT.replace("90", "50")))
        [changed], newer = await admin.diff(1)
        assert (newer, changed.key, changed.action) == (2, CATALOG, "changed")
        assert changed.before is not None
        assert changed.after is not None
        assert changed.before.spec["backends"][0]["weight"] == 90
        assert changed.after.spec["backends"][0]["weight"] == 50
        backwards, _ = await admin.diff(2, 0)
        assert {found.action for found in backwards} == {"deleted"}
        assert len(backwards) == 9
        with pytest.raises(errors.NotFound, match="no revision 7 yet: the newest is 2"):
            await admin.diff(1, 7)


async def test_a_difference_longer_than_a_page_comes_whole(pki: Pki, tmp_path: Path) -> None:
    note = "x" * 200_000
    text = "---\n".join(
        f"{{apiVersion: v1, kind: Namespace, metadata: {{name: n{i}, annotations: {{note: {note}}}}}}}\n"
        for i in range(30)
    )
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(text))
        found, _ = await admin.diff(0)
        assert sorted(entry.key.name for entry in found) == sorted(f"n{i}" for i in range(30))
        watched = await first_events(admin.watch(0), 1)
        assert len(watched[0].changes) == 30


async def test_rollback_makes_a_new_revision_with_the_old_state(
    pki: Pki, tmp_path: Path, store: dict[str, Any]
) -> None:
    more = "apiVersion: v1\nkind: Namespace\nmetadata: {name: depot}\n"
    async with running(pki, tmp_path, **store) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP + "---" + SPLIT))
        before, _ = await admin.list()
        await admin.apply(objects(SPLIT.replace("90", "50") + "---\n" + more))
        await admin.delete([Key("", "Service", "", "catalog-v2")])
        planned = await admin.rollback(1, dry_run=True)
        assert planned.revision == 3
        assert sorted((key.name, action) for key, action in planned.results) == [
            ("catalog", "changed"),
            ("catalog-v2", "created"),
            ("depot", "deleted"),
        ]
        assert (await admin.list("Namespace"))[0] != []
        done = await admin.rollback(1)
        assert (done.revision, done.results) == (4, planned.results)
        assert await admin.list() == (before, 4)
        [newest], _ = await admin.history(limit=1)
        assert (newest.author, newest.message) == (ADMIN, "rollback to revision 1")
        assert (await admin.diff(1, 4))[0] == []
        assert (await admin.rollback(1)).revision == 4  # nothing differed
        emptied = await admin.rollback(0, message="start over")
        assert {action for _, action in emptied.results} == {"deleted"}
        assert await admin.list() == ([], 5)
        with pytest.raises(errors.NotFound, match="no revision 77 yet"):
            await admin.rollback(77)


async def test_history_is_as_long_as_the_settings_say(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path, history_revisions=2) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))
        for weight in range(1, 6):
            await admin.apply(objects(SPLIT.replace("90", str(weight))))
        found, floor = await admin.history()
        assert (floor, [revision.revision for revision in found]) == (4, [6, 5])
        for refused in (admin.diff(1), admin.rollback(1)):
            with pytest.raises(errors.Compacted, match="revision 1 is no longer kept: the history goes back to 4"):
                await refused
        with pytest.raises(errors.Compacted, match="changes after revision 3 are no longer kept, only those after 4"):
            await first_events(admin.watch(3), 1)
        events = await first_events(admin.watch(4), 2)
        assert [event.revision for event in events] == [5, 6]


async def test_who_was_slower_learns_who_changed_it_when(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP), expected=Expectation(revision=0))
        await admin.apply(objects(SPLIT), expected=Expectation(objects={CATALOG: 0}), message="canary")
        half = objects(SPLIT.replace("90", "50"))
        with pytest.raises(
            errors.Conflict, match=rf"at revision 2, changed by {ADMIN} at 20.*\(canary\); you expected 1"
        ):
            await admin.apply(half, expected=Expectation(revision=1))
        with pytest.raises(errors.Conflict, match=rf"{CATALOG} was last changed in revision 2 by {ADMIN} at 20"):
            await admin.delete([CATALOG], expected=Expectation(objects={CATALOG: 1}))
        # Others' objects don't matter to who expects something of one object, in whatever words.
        short = Key("", "trafficsplit", "", "catalog")
        assert (await admin.apply(half, expected=Expectation(objects={short: 2}))).revision == 3
        await admin.delete([CATALOG])
        with pytest.raises(
            errors.Conflict, match=rf"{CATALOG} doesn't exist \(deleted by {ADMIN} at .*you expected revi"
        ):
            await admin.apply(half, expected=Expectation(objects={CATALOG: 3}))
        nobody = Key("v1", "Service", "default", "nobody")
        with pytest.raises(errors.Conflict, match="Service default/nobody doesn't exist; you expected revision 1"):
            await admin.apply(half, expected=Expectation(objects={nobody: 1}))
        with pytest.raises(errors.Conflict, match="is at revision 4.*you expected 3"):
            await admin.rollback(1, expected=Expectation(revision=3))
        assert (await admin.list("TrafficSplit"))[0] == []


async def test_of_many_who_expect_the_same_revision_one_wins(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))

        async def attempt(weight: int) -> bool:
            text = SPLIT.replace("90", str(weight))
            try:
                await admin.apply(objects(text), expected=Expectation(revision=1))
            except errors.Conflict:
                return False
            return True

        assert sum(await asyncio.gather(*map(attempt, range(1, 9)))) == 1
        assert (await admin.list())[1] == 2


async def test_watching_from_a_revision_on(pki: Pki, tmp_path: Path, store: dict[str, Any]) -> None:
    async with running(pki, tmp_path, **store) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))
        await admin.apply(objects(SPLIT), message="canary")
        events = await first_events(admin.watch(0), 2)
        assert [(event.revision, len(event.changes)) for event in events] == [(1, 8), (2, 1)]
        split = events[1].changes[CATALOG]
        assert split is not None
        assert (split.spec["service"], events[1].author, events[1].message) == ("catalog", ADMIN, "canary")
        # Only what fits is told, and what comes while somebody watches.
        watching = asyncio.create_task(first_events(admin.watch(2, kind="TrafficSplit"), 2))
        await admin.apply(objects("apiVersion: v1\nkind: Namespace\nmetadata: {name: depot}\n"))
        await admin.apply(objects(SPLIT.replace("90", "50")))
        await admin.delete([CATALOG])
        changed, deleted = await watching
        assert (changed.revision, deleted.revision, deleted.changes) == (4, 5, {CATALOG: None})
        with pytest.raises(errors.NotFound, match="no revision 99 yet"):
            await first_events(admin.watch(99), 1)


async def test_two_replicas_tell_the_same(pki: Pki, tmp_path: Path, etcd: dict[str, Any]) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    async with (
        running(pki, tmp_path / "one", **etcd) as first,
        running(pki, tmp_path / "other", **etcd) as second,
        client(pki, first) as one,
        client(pki, second) as other,
    ):
        watching = asyncio.create_task(first_events(other.watch(0), 2))
        await one.apply(objects(SHOP))
        # What one replica answered is no conflict at the other, which may not have read it yet.
        await other.apply(objects(SPLIT), expected=Expectation(revision=1))
        assert [event.revision for event in await watching] == [1, 2]
        assert await one.history() == await other.history()


async def test_what_is_mirrored_from_a_cluster_has_the_cluster_as_author() -> None:
    store = MemoryStore()
    catalogue = Catalogue(Health(), strict=False, on_change=lambda _: None)
    raw = {**yaml.safe_load(SPLIT), "metadata": {"name": "catalog", "namespace": "default", "uid": "1"}}
    candidate = candidates.read(raw, kinds.TRAFFIC_SPLIT)

    async def judge(_: Any) -> Findings:
        return Findings()

    class Statuses:
        """The API server, as far as statuses go."""

        async def merge(self, path: str, patch: Any) -> None:
            assert path.endswith("/trafficsplits/catalog/status")

    class Board:
        """No proxy is connected."""

        def here(self) -> Any:
            return config_pb2.ProxyStatusResponse()

        async def add_others(self, response: Any) -> None:
            pass

    async with StoreSource(store) as source:
        catalogue.start(source.current())

        async def follow() -> None:
            async for snapshot in source.changes():
                catalogue.update(snapshot)

        mirror = Mirror(
            Statuses(),  # type: ignore[arg-type]
            {candidate.key: candidate},
            Admissions(judge),
            catalogue,
            Ledger(store),
            Board(),
            Health(),
            asyncio.Event(),
        )
        tasks = [asyncio.create_task(follow()), asyncio.create_task(mirror.run())]
        async with asyncio.timeout(20):
            await catalogue.beyond(0)
        [revision] = await History(store).revisions()
        assert (revision.commit.author, revision.changes[0][0]) == ("cluster", CATALOG)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_folder_has_no_history_here(pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    (folder / "shop.yaml").write_text(SHOP)
    async with running(pki, tmp_path, config=folder) as address, client(pki, address) as admin:
        for asked in (admin.history(), admin.diff(0), admin.rollback(0, dry_run=True), first_events(admin.watch(), 1)):
            with pytest.raises(errors.ConfigError, match="serves a folder of files, which has no history here"):
                await asked


async def test_only_the_administrator_reads_history(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address, "mixer") as mixer:
        for asked in (mixer.history(), mixer.diff(0), mixer.rollback(0), first_events(mixer.watch(), 1)):
            with pytest.raises(errors.Forbidden):
                await asked


async def test_a_rollback_that_would_break_something_is_refused(pki: Pki, tmp_path: Path) -> None:
    inside = SPLIT.replace("name: catalog}", "name: catalog, namespace: depot}", 1)
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))
        await admin.apply(objects("apiVersion: v1\nkind: Namespace\nmetadata: {name: depot}\n"))
        await admin.apply(objects(inside))
        # Revision 1 had neither namespace nor split: both go together.
        gone = await admin.rollback(1)
        assert {key.kind for key, _ in gone.results} == {"Namespace", "TrafficSplit"}
        with pytest.raises(Refused, match="apply a Namespace depot first"):
            await admin.apply(objects(inside))


async def first_events(events: AsyncIterator[Event], count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(20), contextlib.aclosing(events) as following:  # type: ignore[type-var]
        async for event in following:
            found.append(event)
            if len(found) == count:
                break
    return found
