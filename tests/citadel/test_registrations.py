"""Registrations: what is refused in one, and how agents hear of changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.citadel.errors import RegistrationRefused
from meshwright.citadel.registrations import model, registry
from meshwright.citadel.registrations.book import Book, Update
from meshwright.citadel.registrations.model import Registration, Selector
from meshwright.citadel.registrations.registry import Registry
from meshwright.core import errors
from meshwright.core.health import Health
from meshwright.core.store import MemoryStore

WEB = Registration("web", "spiffe://mesh.local/ns/shop/sa/web", (Selector("unix:uid", "1000"),))
MAX = timedelta(days=1)

REFUSED = [
    ("id", {"id": "../x"}),
    ("id", {"id": "a/b"}),
    ("id", {"id": "x" * 129}),
    ("node", {"node": "N1"}),
    ("node", {"node": "a/b"}),
    ("spiffe_id", {"spiffe_id": "spiffe://other/ns/a/sa/b"}),
    ("spiffe_id", {"spiffe_id": "spiffe://mesh.local"}),
    ("spiffe_id", {"spiffe_id": "spiffe://mesh.local/ns/a/../b"}),
    ("spiffe_id", {"spiffe_id": "spiffe://mesh.local/ns/%61"}),
    ("spiffe_id", {"spiffe_id": "spiffe://mesh.local/" + "a" * 2048}),
    ("spiffe_id", {"spiffe_id": "spiffe://mesh.local/ns/meshwright-system/sa/manager"}),
    ("spiffe_id", {"spiffe_id": "spiffe://mesh.local.evil/ns/a"}),
    ("selectors", {"selectors": ()}),
    ("selectors", {"selectors": WEB.selectors * 17}),
    (r"selectors\[0\].type", {"selectors": (Selector("k8s:node", "x"),)}),
    (r"selectors\[1\].value", {"selectors": (*WEB.selectors, Selector("unix:uid", "root"))}),
    (r"selectors\[0\].value", {"selectors": (Selector("unix:pid", "7"),)}),
    (r"selectors\[0\].value", {"selectors": (Selector("unix:path", "relative"),)}),
    ("ttl", {"ttl": timedelta(seconds=1)}),
    ("ttl", {"ttl": timedelta(days=2)}),
    ("dns_names", {"dns_names": ("a.b",) * 33}),
    (r"dns_names\[0\]", {"dns_names": ("*.shop.svc",)}),
    (r"dns_names\[0\]", {"dns_names": ("manager.meshwright-system.svc",)}),
]


@pytest.mark.parametrize(("field", "change"), REFUSED)
def test_refusals_name_the_field(field: str, change: dict[str, object]) -> None:
    with pytest.raises(RegistrationRefused, match=f"^{field}: "):
        model.check(replace(WEB, **change), "mesh.local", MAX)


def test_a_full_registration_is_accepted_and_stored_as_it_is() -> None:
    full = replace(
        WEB,
        selectors=(Selector("unix:pid", "7@1234"), Selector("unix:path", "/usr/bin/env"), Selector("unix:gid", "0")),
        ttl=timedelta(seconds=2.5),
        dns_names=("web.shop.svc",),
        node="node-1.example",
    )
    model.check(full, "mesh.local", MAX)
    assert model.decode(model.encode(full)) == full


@given(st.text(max_size=60) | st.sampled_from(['{"id": "x"}', "[]", "null", '{"id":"x","selectors":[1]}']))
def test_a_damaged_record_is_refused(text: str) -> None:
    with pytest.raises(RegistrationRefused):
        model.decode(text.encode("utf-8", "surrogatepass"))


@contextlib.asynccontextmanager
async def running(store: MemoryStore) -> AsyncIterator[Registry]:
    service, health = Registry(store), Health("registrations")
    task = asyncio.create_task(service.run(health))
    try:
        async with asyncio.timeout(5):
            await health.wait_ready()
        yield service
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def next_of(updates: AsyncIterator[Update]) -> Update:
    async with asyncio.timeout(5):
        return await anext(updates)


async def test_an_agent_hears_of_its_node_only() -> None:
    """All first, then each change; another node's never."""
    async with running(MemoryStore()) as service:
        await service.register(WEB)
        async with contextlib.aclosing(service.follow("")) as updates:
            assert await next_of(updates) == Update(True, (WEB,))
            await service.register(replace(WEB, id="elsewhere", node="n1"))
            other = replace(WEB, id="other")
            await service.register(other)
            assert await next_of(updates) == Update(False, (other,))
            assert await service.unregister("other")
            assert await next_of(updates) == Update(False, (), ("other",))
            assert not await service.unregister("other")


async def test_replicas_see_each_others_registrations() -> None:
    store = MemoryStore()
    async with running(store) as one, running(store) as two, contextlib.aclosing(two.follow("")) as updates:
        await next_of(updates)
        await one.register(WEB)
        assert await next_of(updates) == Update(False, (WEB,))
        assert two.of_identity(WEB.spiffe_id) == WEB
        await one.unregister(WEB.id)
        await next_of(updates)
        assert two.of_identity(WEB.spiffe_id) is None


async def test_a_slow_reader_finds_each_registration_once_with_its_newest_content() -> None:
    """What waits for a reader is bounded by what exists, not by what happened."""
    book = Book()
    async with contextlib.aclosing(book.follow("")) as updates:
        await next_of(updates)
        for revision in range(1, 1000):
            book.put(replace(WEB, dns_names=(f"v{revision}.shop",)), revision)
        update = await next_of(updates)
        assert [registration.dns_names for registration in update.changed] == [("v999.shop",)]


def test_late_news_of_an_old_revision_is_ignored() -> None:
    book = Book()
    book.put(replace(WEB, dns_names=("new",)), 5)
    book.put(WEB, 4)
    known = book.get(WEB.id)
    assert known is not None
    assert known.dns_names == ("new",)


async def test_a_registration_that_moves_leaves_its_old_node() -> None:
    book = Book()
    book.put(replace(WEB, node="n1"), 1)
    async with contextlib.aclosing(book.follow("n1")) as old, contextlib.aclosing(book.follow("n2")) as new:
        await next_of(old)
        await next_of(new)
        book.put(replace(WEB, node="n2"), 2)
        assert (await next_of(old)).removed == (WEB.id,)
        assert (await next_of(new)).changed == (replace(WEB, node="n2"),)


async def test_a_damaged_record_doesnt_hide_the_others() -> None:
    store = MemoryStore()
    await store.put(registry.PREFIX + "bad", b"{")
    await store.put(registry.PREFIX + WEB.id, model.encode(WEB))
    async with running(store) as service:
        assert service.page("", 10) == [WEB]


async def test_limits_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MAX_A_NODE", 1)
    async with running(MemoryStore()) as service:
        await service.register(WEB)
        await service.register(replace(WEB, dns_names=("replaced.shop",)))
        with pytest.raises(errors.Exhausted, match="has 1 registrations"):
            await service.register(replace(WEB, id="second"))


def test_pages_are_in_order_and_complete() -> None:
    book = Book()
    for number in range(25):
        book.put(replace(WEB, id=f"w{number:02}"), number + 1)
    found, after = [], ""
    while page := book.page(after, 10):
        found += page
        after = page[-1].id
    assert [known.id for known in found] == [f"w{number:02}" for number in range(25)]
