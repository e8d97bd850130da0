"""The contract of core.store, kept by the in-memory store and by etcd alike."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator

import pytest

from meshwright.core import errors, health, store
from meshwright.core.store import api

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=["memory", "etcd"])
async def opened(request: pytest.FixtureRequest) -> AsyncIterator[store.Store]:
    if request.param == "memory":
        yield store.MemoryStore()
        return
    etcd, tls = request.getfixturevalue("shared_etcd"), request.getfixturevalue("client_tls")
    async with store.EtcdStore([etcd.address], tls) as opened:
        yield opened


@pytest.fixture
def prefix() -> str:
    return f"/test/{uuid.uuid4()}/"


async def take(changes: AsyncIterator[store.Change | store.Resync], count: int) -> list[store.Change | store.Resync]:
    async with asyncio.timeout(15):
        return [await anext(changes) for _ in range(count)]


async def test_put_get_delete(opened: store.Store, prefix: str) -> None:
    assert await opened.get(f"{prefix}a") is None
    revision = await opened.put(f"{prefix}a", b"1")
    assert await opened.get(f"{prefix}a") == store.Entry(f"{prefix}a", b"1", revision)
    assert await opened.delete(f"{prefix}a")
    assert not await opened.delete(f"{prefix}a")
    assert await opened.get(f"{prefix}a") is None


async def test_revisions_grow(opened: store.Store, prefix: str) -> None:
    revisions = [await opened.put(f"{prefix}{n}", b"") for n in range(3)]
    assert revisions == sorted(set(revisions))


async def test_compare_and_set(opened: store.Store, prefix: str) -> None:
    key = f"{prefix}a"
    first = await opened.put(key, b"1", expect=0)
    with pytest.raises(errors.Conflict, match="exists already"):
        await opened.put(key, b"2", expect=0)
    second = await opened.put(key, b"2", expect=first)
    with pytest.raises(errors.Conflict, match=f"revision {first}"):
        await opened.put(key, b"3", expect=first)
    with pytest.raises(errors.Conflict):
        await opened.delete(key, expect=first)
    assert await opened.delete(key, expect=second)


async def test_one_of_many_writers_wins(opened: store.Store, prefix: str) -> None:
    attempts = (opened.put(f"{prefix}a", b"%d" % n, expect=0) for n in range(20))
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1


async def test_list_is_sorted_complete_and_at_one_revision(opened: store.Store, prefix: str) -> None:
    """More entries than a page holds, and neighbours of the prefix that don't belong to it."""
    count = api.PAGE * 2 + 7
    for batch in itertools.batched(range(count), 100) if hasattr(itertools, "batched") else _batches(count):
        await opened.transaction([], [store.Put(f"{prefix}{n:05}", b"x") for n in batch])
    await opened.put(prefix[:-1], b"before")
    await opened.put(f"{prefix[:-1]}0", b"after")
    entries, revision = await opened.list(prefix)
    assert [entry.key for entry in entries] == [f"{prefix}{n:05}" for n in range(count)]
    assert revision >= max(entry.revision for entry in entries)
    assert await opened.list(f"{prefix}nothing") == ([], revision)
    keys, _ = await opened.list(prefix, keys_only=True)
    assert [(key.key, key.value, key.revision) for key in keys] == [(e.key, b"", e.revision) for e in entries]


def _batches(count: int) -> list[range]:
    return [range(start, min(start + 100, count)) for start in range(0, count, 100)]


async def test_list_of_large_values(opened: store.Store, prefix: str) -> None:
    """Thirty values of 1 MiB are more than one message may hold."""
    for number in range(30):
        await opened.put(f"{prefix}{number:02}", bytes(1024 * 1024))
    entries, _ = await opened.list(prefix, timeout=20)
    assert len(entries) == 30
    await opened.delete_prefix(prefix)


async def test_delete_prefix(opened: store.Store, prefix: str) -> None:
    for number in range(3):
        await opened.put(f"{prefix}in/{number}", b"")
    await opened.put(f"{prefix}out", b"")
    assert await opened.delete_prefix(f"{prefix}in/") == 3
    assert [entry.key for entry in (await opened.list(prefix))[0]] == [f"{prefix}out"]
    with pytest.raises(errors.ConfigError, match="everything"):
        await opened.delete_prefix("")


async def test_transaction_applies_all_in_one_revision_or_nothing(opened: store.Store, prefix: str) -> None:
    seen = await opened.put(f"{prefix}a", b"1")
    operations = [store.Put(f"{prefix}b", b"2"), store.Delete(f"{prefix}a"), store.Delete(f"{prefix}none")]
    assert await opened.transaction([store.Compare(f"{prefix}a", seen + 1)], operations) is None
    assert [entry.key for entry in (await opened.list(prefix))[0]] == [f"{prefix}a"]
    revision = await opened.transaction([store.Compare(f"{prefix}a", seen), store.Compare(f"{prefix}b", 0)], operations)
    assert (await opened.list(prefix))[0] == [store.Entry(f"{prefix}b", b"2", revision or 0)]


async def test_transaction_limits_are_named(opened: store.Store, prefix: str) -> None:
    with pytest.raises(errors.Exhausted, match=r"129 operations; etcd takes 128"):
        await opened.transaction([], [store.Put(f"{prefix}{n}", b"") for n in range(129)])
    with pytest.raises(errors.Exhausted, match="bytes"):
        await opened.put(f"{prefix}a", bytes(2 * 1024 * 1024))
    with pytest.raises(errors.ConfigError, match="twice"):
        await opened.transaction([], [store.Put(f"{prefix}a", b""), store.Delete(f"{prefix}a")])
    await opened.transaction([], [store.Put(f"{prefix}{n}", b"") for n in range(128)])


async def test_watch_yields_what_came_after_the_list(opened: store.Store, prefix: str) -> None:
    await opened.put(f"{prefix}old", b"")
    _, revision = await opened.list(prefix)
    changes = opened.watch(prefix, revision)
    first = await opened.put(f"{prefix}a", b"1")
    await opened.put(f"{prefix[:-1]}other", b"")
    second = await opened.put(f"{prefix}a", b"2")
    assert await opened.delete(f"{prefix}a")
    seen = await take(changes, 3)
    assert seen[:2] == [store.Change(f"{prefix}a", b"1", first), store.Change(f"{prefix}a", b"2", second)]
    assert isinstance(seen[2], store.Change)
    assert (seen[2].value, seen[2].revision > second) == (None, True)
    await changes.aclose()  # type: ignore[attr-defined]


async def test_watch_sees_a_transaction_at_one_revision(opened: store.Store, prefix: str) -> None:
    _, revision = await opened.list(prefix)
    changes = opened.watch(prefix, revision)
    written = await opened.transaction([], [store.Put(f"{prefix}{n}", b"") for n in range(10)])
    seen = await take(changes, 10)
    assert {change.revision for change in seen if isinstance(change, store.Change)} == {written}
    await changes.aclose()  # type: ignore[attr-defined]


async def test_watch_of_another_stores_future_says_so(opened: store.Store, prefix: str) -> None:
    """A reader that outlived its store's data isn't left waiting for ever."""
    [item] = await take(opened.watch(prefix, 2**40), 1)
    assert isinstance(item, store.Resync)


async def test_ended_lease_takes_its_keys_along(opened: store.Store, prefix: str) -> None:
    async with opened.lease(5) as lease:
        await opened.put(f"{prefix}a", b"", lease=lease)
        await opened.put(f"{prefix}b", b"", lease=lease)
        await opened.put(f"{prefix}b", b"")  # written again without it: stays
        assert not lease.lost.is_set()
    assert [entry.key for entry in (await opened.list(prefix))[0]] == [f"{prefix}b"]
    with pytest.raises(errors.NotFound):
        await opened.put(f"{prefix}a", b"", lease=lease)


async def test_follow_lists_then_tells_changes(opened: store.Store, prefix: str) -> None:
    await opened.put(f"{prefix}a", b"1")
    conditions, seen, arrived = health.Health("store"), dict[str, bytes | None](), asyncio.Event()

    def on_snapshot(entries: object, _revision: int) -> None:
        seen.update({entry.key: entry.value for entry in entries})  # type: ignore[attr-defined]
        arrived.set()

    async def on_change(change: store.Change) -> None:
        seen[change.key] = change.value
        arrived.set()

    async with asyncio.timeout(15), asyncio.TaskGroup() as tasks:
        following = tasks.create_task(store.follow(opened, prefix, on_snapshot, on_change, health=conditions))
        await arrived.wait()
        assert seen == {f"{prefix}a": b"1"}
        arrived.clear()
        await opened.put(f"{prefix}b", b"2")
        await arrived.wait()
        assert seen[f"{prefix}b"] == b"2"
        assert conditions.ready()
        following.cancel()
