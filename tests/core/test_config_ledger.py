"""core.config.Ledger and StoreSource: revisions are whole or not there, whoever writes and whatever fails."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshwright.core import config, errors, health, store
from meshwright.core.config import layout
from meshwright.core.config.journal import Journal


def key(name: str) -> config.Key:
    return config.Key("v1", "Namespace", "", name)


def text(name: str, value: object = 1) -> str:
    document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {"value": value}}
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def puts(*names: str, value: object = 1) -> dict[config.Key, str]:
    return {key(name): text(name, value) for name in names}


def values(snapshot: config.Snapshot) -> dict[str, Any]:
    return {key.name: found.spec["value"] for key, found in snapshot.objects.items()}


@pytest.fixture(params=["memory", "etcd"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[store.Store]:
    if request.param == "memory":
        yield store.MemoryStore()
        return
    etcd, tls = request.getfixturevalue("shared_etcd"), request.getfixturevalue("client_tls")
    async with store.EtcdStore([etcd.address], tls) as opened:
        await opened.delete_prefix(layout.PREFIX)
        yield opened
        await opened.delete_prefix(layout.PREFIX)


async def at(source: config.Source, revision: int) -> config.Snapshot:
    async with asyncio.timeout(15):
        async for snapshot in source.changes():
            if snapshot.revision >= revision:
                return snapshot
    raise AssertionError


async def test_empty_store_has_an_empty_snapshot(opened: store.Store) -> None:
    conditions = health.Health("config")
    async with config.StoreSource(opened, health=conditions) as source:
        assert source.current() == config.Snapshot(0)
        assert conditions.ready()
    assert await config.Ledger(opened).head() == 0


async def test_commits_are_seen_by_readers_that_follow_and_that_come_later(opened: store.Store) -> None:
    ledger = config.Ledger(opened)
    async with config.StoreSource(opened) as source:
        assert await ledger.commit(puts("a", "b"), [], 0) == 1
        assert values(await at(source, 1)) == {"a": 1, "b": 1}
        assert await ledger.commit(puts("a", value=2), [key("b")], 1) == 2
        assert values(await at(source, 2)) == {"a": 2}
    async with config.StoreSource(opened) as later:
        assert values(later.current()) == {"a": 2}
        assert later.current().revision == 2


async def test_change_for_another_revision_is_a_conflict_and_leaves_nothing(opened: store.Store) -> None:
    ledger = config.Ledger(opened)
    await ledger.commit(puts("a"), [], 0)
    with pytest.raises(errors.Conflict, match="at revision 1, the change was made for 0"):
        await ledger.commit(puts("b"), [], 0)
    entries, _ = await opened.list(layout.REVISIONS)
    assert len(entries) == 1


async def test_of_many_writers_one_wins_and_the_others_leave_nothing(opened: store.Store) -> None:
    ledgers = [config.Ledger(opened) for _ in range(8)]
    attempts = (ledger.commit(puts(f"n{n}", "x", value=n), [], 0) for n, ledger in enumerate(ledgers))
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert [result for result in results if isinstance(result, int)] == [1]
    assert sum(isinstance(result, errors.Conflict) for result in results) == 7
    entries, _ = await opened.list(layout.REVISIONS)
    assert len(entries) == 2


async def test_thousands_of_objects_are_one_revision(opened: store.Store) -> None:
    """Far more than one transaction holds; a reader sees all of them or none."""
    many = puts(*(f"n{n}" for n in range(2500)))
    async with config.StoreSource(opened) as source:
        committing = asyncio.create_task(config.Ledger(opened).commit(many, [], 0))
        async with asyncio.timeout(30):
            async for snapshot in source.changes():
                assert len(snapshot.objects) in (0, 2500)
                if snapshot.revision == 1:
                    break
        assert await committing == 1


async def test_large_objects(opened: store.Store) -> None:
    big = "x" * (1024 * 1024 - 200)
    many = {key(name): text(name, big) for name in ("a", "b", "c")}
    await config.Ledger(opened).commit(many, [], 0)
    async with config.StoreSource(opened) as source:
        assert set(values(source.current())) == {"a", "b", "c"}


async def test_nothing_to_change_makes_no_revision(opened: store.Store) -> None:
    assert await config.Ledger(opened).commit({}, [], 0) == 0


async def test_history_is_bounded_and_the_objects_stay(opened: store.Store) -> None:
    ledger = config.Ledger(opened, kept=5)
    await ledger.commit(puts("old", "gone"), [], 0)
    await ledger.commit({}, [key("gone")], 1)
    for revision in range(2, 30):
        await ledger.commit(puts("busy", value=revision), [], revision)
    async with config.StoreSource(opened) as source:
        assert values(source.current()) == {"old": 1, "busy": 29}
        assert source.current().revision == 30
    entries, _ = await opened.list(layout.REVISIONS)
    names = [layout.Place.parse(entry.key).key.name for entry in entries]
    assert names.count("old") == 1
    assert names.count("gone") == 0
    assert 6 <= names.count("busy") <= 11
    commits, _ = await opened.list(layout.COMMITS)
    assert len(commits) == len(entries)


async def test_leftovers_of_a_crashed_writer_never_count_and_are_removed(opened: store.Store) -> None:
    left = layout.Place(1, "crashed", False, key("ghost"))
    await opened.put(left.path(), text("ghost").encode())
    ledger = config.Ledger(opened)
    async with config.StoreSource(opened) as source:
        assert values(source.current()) == {}
        await ledger.commit(puts("a"), [], 0)
        assert values(await at(source, 1)) == {"a": 1}
    assert await opened.get(left.path()) is None


async def test_names_of_any_characters_come_back(opened: store.Store) -> None:
    odd = config.Key("x/v1", "K ind", "ü/ñ", "a%2F/b+-")
    document = {"apiVersion": "x/v1", "kind": "K ind", "metadata": {"namespace": "ü/ñ", "name": "a%2F/b+-"}}
    await config.Ledger(opened).commit({odd: json.dumps(document)}, [], 0)
    async with config.StoreSource(opened) as source:
        assert list(source.current().objects) == [odd]


class Flaky(store.MemoryStore):
    """Moves of the head get no answer, applied or not."""

    def __init__(self, *, applied: bool, back: bool = True) -> None:
        super().__init__()
        self.applied, self.back, self.failures = applied, back, 1

    async def transaction(self, compares: Sequence[Any], operations: Sequence[Any], **options: Any) -> int | None:
        if len(operations) == 2 and operations[0].key == layout.HEAD and self.failures:
            self.failures -= 1
            if self.applied:
                await super().transaction(compares, operations, **options)
            raise errors.DeadlineExceeded("no answer")
        if not self.failures and not self.back:
            raise errors.Unavailable("away")
        return await super().transaction(compares, operations, **options)


async def test_commit_without_an_answer_that_was_applied_succeeds() -> None:
    opened = Flaky(applied=True)
    assert await config.Ledger(opened).commit(puts("a"), [], 0) == 1


async def test_commit_without_an_answer_that_was_not_applied_says_so_and_can_be_retried() -> None:
    opened = Flaky(applied=False)
    ledger = config.Ledger(opened)
    with pytest.raises(errors.Unavailable, match="nothing was committed"):
        await ledger.commit(puts("a"), [], 0)
    assert (await opened.list(layout.REVISIONS))[0] == []
    assert await ledger.commit(puts("a"), [], 0) == 1


async def test_commit_of_unknown_outcome_keeps_what_it_wrote() -> None:
    opened = Flaky(applied=True, back=False)
    with pytest.raises(errors.Unavailable, match="didn't say whether revision 1 was committed"):
        await config.Ledger(opened).commit(puts("a"), [], 0)
    opened.back = True
    async with config.StoreSource(opened) as source:
        assert values(source.current()) == {"a": 1}


async def test_object_that_cannot_be_read_is_left_out_and_the_rest_serves() -> None:
    opened = store.MemoryStore()
    await config.Ledger(opened).commit({key("bad"): "{", **puts("good")}, [], 0)
    async with config.StoreSource(opened) as source:
        assert values(source.current()) == {"good": 1}


@given(
    st.lists(
        st.tuples(st.dictionaries(st.sampled_from("abcd"), st.integers(0, 9)), st.sets(st.sampled_from("abcd"))),
        max_size=12,
    ),
    st.integers(1, 4),
)
@settings(max_examples=60)
def test_any_history_reads_as_it_was_written(history: list[tuple[dict[str, int], set[str]]], kept: int) -> None:
    """Followed change by change, listed at the end, trimmed or not: always the same objects."""

    async def run() -> None:
        opened, expected, revision = store.MemoryStore(), dict[str, int](), 0
        ledger, followed = config.Ledger(opened, kept=kept), Journal()
        for put, delete in history:
            changed = {key(name): text(name, value) for name, value in put.items()}
            gone = [key(name) for name in delete - put.keys()]
            revision = await ledger.commit(changed, gone, revision)
            expected.update(put)
            for each in gone:
                expected.pop(each.name, None)
        changes = opened.watch(layout.PREFIX, 1)
        target = revision
        while followed.revision < target:
            item = await anext(changes)
            assert isinstance(item, store.Change)
            followed.take(item)
        listed = Journal()
        listed.load((await opened.list(layout.PREFIX))[0])
        for journal in (followed, listed):
            assert {name.name: found.spec["value"] for name, found in journal.objects.items()} == expected
            assert journal.revision == revision

    asyncio.run(run())
