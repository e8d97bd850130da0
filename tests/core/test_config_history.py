"""core.config.History: who changed what and when, how objects were, and where the history ends."""

from __future__ import annotations

import datetime
import json
from collections.abc import AsyncIterator

import pytest

from meshwright.core import config, errors, store
from meshwright.core.config import layout
from meshwright.core.config.history import Change


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)

    def now(self) -> datetime.datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(f"nobody sleeps here, for {seconds} s")


def key(name: str, kind: str = "Service") -> config.Key:
    return config.Key("v1", kind, "default", name)


def text(found: config.Key, value: object) -> str:
    metadata = {"name": found.name, "namespace": found.namespace}
    return json.dumps({"apiVersion": "v1", "kind": found.kind, "metadata": metadata, "spec": {"value": value}})


def puts(value: object, *names: str) -> dict[config.Key, str]:
    return {key(name): text(key(name), value) for name in names}


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


async def test_each_revision_says_who_did_what_when_and_why(opened: store.Store) -> None:
    clock = Clock()
    ledger, history = config.Ledger(opened, clock=clock), config.History(opened)
    assert await history.revisions() == []
    await ledger.commit(puts(1, "a", "b"), [], 0, author="spiffe://mesh.local/alice", message="begin")
    clock.time += datetime.timedelta(hours=1)
    await ledger.commit(puts(2, "a", "ä/ö"), [key("b")], 1, author="spiffe://mesh.local/bob")
    newest, oldest = await history.revisions()
    assert (newest.commit.revision, newest.commit.author, newest.commit.message) == (2, "spiffe://mesh.local/bob", "")
    assert newest.commit.time == "2026-01-01T01:00:00+00:00"
    assert newest.changes == ((key("a"), Change.CHANGED), (key("b"), Change.DELETED), (key("ä/ö"), Change.CREATED))
    assert (oldest.commit.author, oldest.commit.message) == ("spiffe://mesh.local/alice", "begin")
    assert [found.commit.revision for found in await history.revisions(kinds=["Service"], name="b")] == [2, 1]
    assert [found.commit.revision for found in await history.revisions(name="ä/ö")] == [2]
    assert await history.revisions(kinds=["Pod"]) == []
    assert [found.commit.revision for found in await history.revisions(limit=1)] == [2]
    assert [found.commit.revision for found in await history.revisions(before=2)] == [1]


async def test_what_differs_between_two_revisions(opened: store.Store) -> None:
    ledger, history = config.Ledger(opened), config.History(opened)
    await ledger.commit(puts(1, "a", "b", "same"), [], 0)
    await ledger.commit(puts(2, "a"), [key("b")], 1)
    await ledger.commit(puts(1, "a", "c"), [], 2)
    found = [change async for change in history.differences(1, 2)]
    assert [(change.key.name, change.before, change.after) for change in found] == [
        ("a", text(key("a"), 1), text(key("a"), 2)),
        ("b", text(key("b"), 1), None),
    ]
    found = [change async for change in history.differences(0, 1)]
    assert [change.before for change in found] == [None] * 3
    # `a` was changed and changed back: it doesn't differ, although it lies elsewhere.
    assert [change.key.name async for change in history.differences(1, 3)] == ["b", "c"]
    assert [change.key.name async for change in history.differences(1, 3, after=key("b"))] == ["c"]
    with pytest.raises(errors.NotFound, match="no revision 9 yet: the newest is 3"):
        await history.state(9)


async def test_a_revisions_events_are_what_it_wrote(opened: store.Store) -> None:
    ledger, history = config.Ledger(opened), config.History(opened)
    await ledger.commit(puts(1, "a", "b"), [], 0)
    await ledger.commit(puts(2, "a"), [key("b")], 1, author="alice")
    events = await history.events(2)
    assert (events.commit.author, events.objects) == ("alice", {key("a"): text(key("a"), 2), key("b"): None})
    with pytest.raises(errors.NotFound):
        await history.events(3)


async def test_what_is_no_longer_kept_is_told_and_never_shown_in_part(opened: store.Store) -> None:
    ledger, history = config.Ledger(opened, kept=3), config.History(opened)
    await ledger.commit(puts(1, "old"), [], 0, author="alice")
    for revision in range(1, 9):
        await ledger.commit(puts(revision, "busy"), [], revision)
    floor, head = await history.bounds()
    assert (floor, head) == (6, 9)
    # Revision 1 made what is in force still: its record stays, but the history doesn't begin there.
    assert [found.commit.revision for found in await history.revisions()] == [9, 8, 7]
    commit = await history.commit(1)
    assert commit is not None
    assert commit.author == "alice"
    assert {found.name for found in await history.state(6)} == {"busy", "old"}
    with pytest.raises(errors.Compacted, match="revision 5 is no longer kept: the history goes back to 6"):
        await history.state(5)
    with pytest.raises(errors.Compacted):
        await history.events(1)


async def test_history_that_is_too_old_goes_and_what_was_in_force_since_stays(opened: store.Store) -> None:
    clock = Clock()
    ledger, history = config.Ledger(opened, clock=clock, kept_seconds=3600), config.History(opened)
    for revision in range(4):
        await ledger.commit(puts(revision, "a"), [], revision)
        clock.time += datetime.timedelta(minutes=20)
    await ledger.trim()
    # It is 80 minutes after the first, 60 after the second: the state of an hour ago is that of revision 1.
    assert await history.bounds() == (1, 4)
    clock.time += datetime.timedelta(days=30)
    await ledger.trim()
    assert await history.bounds() == (4, 4)
    assert [found.name for found in await history.state(4)] == ["a"]
    async with config.StoreSource(opened) as source:
        assert [found.spec["value"] for found in source.current().objects.values()] == [3]


async def test_a_record_of_before_authors_is_read(opened: store.Store) -> None:
    await config.Ledger(opened).commit(puts(1, "a"), [], 0, author="alice")
    entry = await opened.get(layout.commit_path(1))
    assert entry is not None
    record = {name: value for name, value in json.loads(entry.value).items() if name not in ("author", "message")}
    await opened.put(layout.commit_path(1), json.dumps(record).encode())
    [found] = await config.History(opened).revisions()
    assert (found.commit.author, found.commit.message) == ("", "")
