"""etcd that goes away, forgets, hangs or refuses: what the store does then."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import servers

from meshwright.core import errors, health, store
from meshwright.core.store import etcd_auth

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
async def opened(own_etcd: servers.Process, client_tls: Path) -> AsyncIterator[store.EtcdStore]:
    async with store.EtcdStore([own_etcd.address], client_tls) as opened:
        yield opened


async def next_item(changes: AsyncIterator[store.Change | store.Resync]) -> store.Change | store.Resync:
    async with asyncio.timeout(20):
        return await anext(changes)


async def test_watch_goes_on_after_kill_and_restart(own_etcd: servers.Process, opened: store.EtcdStore) -> None:
    """Nothing is lost, nothing comes twice, the outage is told once, and it costs next to no CPU."""
    reports: list[str] = []
    _, revision = await opened.list("/w/")
    changes = opened.watch("/w/", revision, report=reports.append)
    await opened.transaction([], [store.Put("/w/1", b"a"), store.Put("/w/2", b"a")])
    assert [await next_item(changes) for _ in range(2)]
    pending = asyncio.ensure_future(next_item(changes))
    own_etcd.kill()
    before = time.process_time()
    await asyncio.sleep(4)  # the measurement itself
    assert time.process_time() - before < 0.4
    assert len(reports) == 1
    await asyncio.to_thread(own_etcd.start)
    await opened.put("/w/3", b"b", timeout=15)
    change = await pending
    assert isinstance(change, store.Change)
    assert (change.key, change.value) == ("/w/3", b"b")
    assert reports[1:] == [""]


async def test_changes_of_an_outage_of_the_reader_are_all_seen(opened: store.EtcdStore) -> None:
    """A long backlog of large values arrives in parts that fit."""
    _, revision = await opened.list("/b/")
    for number in range(40):
        await opened.put(f"/b/{number}", bytes(1024 * 1024))
    changes = opened.watch("/b/", revision)
    seen = [await next_item(changes) for _ in range(40)]
    assert [change.key for change in seen if isinstance(change, store.Change)] == [f"/b/{n}" for n in range(40)]


async def test_compaction_asks_for_a_new_list(opened: store.EtcdStore) -> None:
    first = await opened.put("/c/a", b"1")
    last = [await opened.put("/c/a", b"%d" % n) for n in range(5)][-1]
    await opened.compact(last)
    assert isinstance(await next_item(opened.watch("/c/", first)), store.Resync)


async def test_store_with_other_data_asks_for_a_new_list(
    own_etcd: servers.Process, opened: store.EtcdStore, tmp_path: Path
) -> None:
    """etcd comes back empty while a reader watches: the reader isn't left with what is gone."""
    for number in range(5):
        revision = await opened.put(f"/x/{number}", b"")
    changes = opened.watch("/x/", revision)
    pending = asyncio.ensure_future(next_item(changes))
    await opened.put("/y", b"")
    own_etcd.kill()
    (tmp_path / "etcd" / "data").rename(tmp_path / "gone")
    await asyncio.to_thread(own_etcd.start)
    assert isinstance(await pending, store.Resync)


async def test_follow_keeps_the_last_state_and_says_so(own_etcd: servers.Process, opened: store.EtcdStore) -> None:
    conditions, lists = health.Health("store"), asyncio.Queue[int]()
    following = asyncio.create_task(
        store.follow(
            opened, "/f/", lambda entries, _: lists.put_nowait(len(entries)), lambda _: None, health=conditions
        )
    )

    async def until(state: health.State) -> None:
        async with asyncio.timeout(20):
            async for _ in conditions.changes():
                if conditions.state() is state:
                    return

    await until(health.State.OK)
    own_etcd.kill()
    await until(health.State.DEGRADED)
    assert conditions.ready()
    await asyncio.to_thread(own_etcd.start)
    await until(health.State.OK)
    assert lists.qsize() == 1, "nothing was lost, so nothing is listed again"
    following.cancel()


async def test_calls_have_deadlines(own_etcd: servers.Process, opened: store.EtcdStore) -> None:
    await opened.put("/a", b"")
    own_etcd.kill()
    for call in (opened.get("/a", timeout=0.5), opened.put("/a", b"", timeout=0.5), opened.list("/", timeout=0.5)):
        begin = time.monotonic()
        with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
            await call
        assert time.monotonic() - begin < 2.0


async def test_calls_wait_for_a_server_that_starts(own_etcd: servers.Process, opened: store.EtcdStore) -> None:
    own_etcd.kill()
    reading = asyncio.ensure_future(opened.put("/a", b"1", timeout=20))
    await asyncio.to_thread(own_etcd.start)
    assert await reading


async def test_another_member_is_asked_when_one_is_away(own_etcd: servers.Process, client_tls: Path) -> None:
    away = f"127.0.0.1:{servers.free_port()}"
    async with store.EtcdStore([away, own_etcd.address], client_tls) as opened:
        await opened.put("/a", b"1")
        assert await opened.get("/a")
        _, revision = await opened.list("/")
        changes = opened.watch("/", revision)
        await opened.put("/b", b"")
        assert isinstance(await next_item(changes), store.Change)


async def test_member_that_hangs_doesn_t_take_all_the_time(own_etcd: servers.Process, client_tls: Path) -> None:
    """It accepts connections and never says anything."""
    silent: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _reader, writer: silent.append(writer), "127.0.0.1", 0)
    async with server:
        hanging = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with store.EtcdStore([hanging, own_etcd.address], client_tls) as opened:
            assert await opened.get("/a", timeout=4) is None
    assert silent
    for writer in silent:
        writer.close()


async def test_lease_is_lost_when_etcd_is_away_too_long(own_etcd: servers.Process, opened: store.EtcdStore) -> None:
    async with opened.lease(2) as lease:
        own_etcd.kill()
        async with asyncio.timeout(15):
            await lease.lost.wait()


async def test_lease_outlives_a_restart(own_etcd: servers.Process, opened: store.EtcdStore) -> None:
    async with opened.lease(6) as lease:
        await opened.put("/l/a", b"", lease=lease)
        own_etcd.kill()
        await asyncio.to_thread(own_etcd.start)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(8):
                await lease.lost.wait()
        assert not lease.lost.is_set()
        assert await opened.get("/l/a")


async def test_each_service_is_held_to_its_prefixes(
    own_etcd: servers.Process, infrastructure: servers.InfrastructurePki, client_tls: Path, tmp_path: Path
) -> None:
    """With authentication on, a certificate's common name is the user; enabling twice is no fault."""
    for _ in range(2):
        await etcd_auth.enable([own_etcd.address], client_tls)
    mixer = infrastructure.write(tmp_path / "mixer", "mixer")
    manager = infrastructure.write(tmp_path / "manager", "manager")
    async with (
        store.EtcdStore([own_etcd.address], manager) as writer,
        store.EtcdStore([own_etcd.address], mixer) as reader,
    ):
        await writer.put("/meshwright/config/head", b"1")
        _, revision = await reader.list("/meshwright/config/")
        changes = reader.watch("/meshwright/config/", revision)
        await writer.put("/meshwright/config/head", b"2")
        assert isinstance(await next_item(changes), store.Change)
        async with reader.lease(5) as lease:
            await reader.put("/meshwright/mixer/replicas/1", b"", lease=lease)
        for refused in (
            reader.put("/meshwright/config/head", b"3"),
            reader.get("/meshwright/citadel/ca"),
            reader.list("/meshwright/"),
            writer.put("/meshwright/mixer/x", b""),
            next_item(reader.watch("/meshwright/citadel/", 1)),
        ):
            with pytest.raises(errors.Forbidden, match="permission denied"):
                await refused
    stranger = infrastructure.write(tmp_path / "stranger", "stranger")
    async with store.EtcdStore([own_etcd.address], stranger) as nobody:
        with pytest.raises(errors.MeshwrightError):
            await nobody.get("/meshwright/config/head")


async def test_etcd_itself_may_ask_for_its_health_and_nothing_else(
    own_etcd: servers.Process, infrastructure: servers.InfrastructurePki, client_tls: Path, tmp_path: Path
) -> None:
    """As its pod's probe does, with etcd's own certificate."""
    await etcd_auth.enable([own_etcd.address], client_tls)
    async with store.EtcdStore([own_etcd.address], infrastructure.write(tmp_path / "etcd", "etcd")) as opened:
        assert await opened.get("health") is None
        with pytest.raises(errors.Forbidden):
            await opened.get("/meshwright/citadel/ca")
        with pytest.raises(errors.Forbidden):
            await opened.put("health", b"")


async def test_role_is_narrowed_when_it_is_enabled_again(
    own_etcd: servers.Process, infrastructure: servers.InfrastructurePki, client_tls: Path, tmp_path: Path
) -> None:
    roles = {"mixer": etcd_auth.Role(writes=("/a/", "/b/"))}
    await etcd_auth.enable([own_etcd.address], client_tls, roles=roles)
    await etcd_auth.enable(
        [own_etcd.address], client_tls, roles={"mixer": etcd_auth.Role(writes=("/a/",), reads=("/b/",))}
    )
    async with store.EtcdStore([own_etcd.address], infrastructure.write(tmp_path / "m", "mixer")) as opened:
        await opened.put("/a/x", b"")
        assert await opened.get("/b/x") is None
        with pytest.raises(errors.Forbidden):
            await opened.put("/b/x", b"")


async def test_foreign_authority_and_plain_text_are_refused(own_etcd: servers.Process, tmp_path: Path) -> None:
    foreign = servers.InfrastructurePki().write(tmp_path / "foreign", "root")
    for tls in (foreign, None):
        async with store.EtcdStore([own_etcd.address], tls) as opened:
            with pytest.raises(errors.Unavailable):
                await opened.get("/a", timeout=1)


def test_missing_certificates_are_named(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match=r"etcd_tls: can't read .*ca\.pem"):
        store.EtcdStore(["127.0.0.1:1"], tmp_path)
