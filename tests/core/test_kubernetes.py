"""The API server as the platform asks it: every change is seen once and in order, whatever breaks meanwhile."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import kube_api
from meshwright.core import errors
from meshwright.core.clock import ManualClock
from meshwright.core.health import Health, State
from meshwright.core.kubernetes import Api, Cluster, Kubeconfig, follow, in_cluster
from meshwright.core.kubernetes import api as apis

PODS = "/api/v1/pods"
MESH = {"meshwright.io/mesh": "enabled"}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[kube_api.KubeApi]:
    async with kube_api.serving(tmp_path) as running:
        yield running


@pytest.fixture
async def api(server: kube_api.KubeApi) -> AsyncIterator[Api]:
    async with Api(server.cluster()) as opened:
        yield opened


class Seen:
    """What a follower was told."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self.snapshots = self.heard = 0
        self.changed = asyncio.Event()

    def snapshot(self, objects: list[Any]) -> None:
        self.names = {item["metadata"]["name"] for item in objects}
        self.snapshots += 1
        self.changed.set()

    def change(self, item: Any, deleted: bool) -> None:
        (self.names.discard if deleted else self.names.add)(item["metadata"]["name"])
        self.changed.set()

    def hear(self) -> None:
        self.heard += 1

    async def until(self, *names: str) -> None:
        async with asyncio.timeout(10):
            while self.names != set(names):
                await self.changed.wait()
                self.changed.clear()


@contextlib.asynccontextmanager
async def following(api: Api, health: Health, seconds: int = 240) -> AsyncIterator[Seen]:
    seen = Seen()
    work = follow(
        api,
        PODS,
        seen.snapshot,
        seen.change,
        health=health,
        part="pods",
        heard=seen.hear,
        seconds=seconds,
        labelSelector="meshwright.io/mesh=enabled",
    )
    task = asyncio.create_task(work)
    try:
        yield seen
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def state(health: Health, wanted: State) -> None:
    async with asyncio.timeout(10):
        async for conditions in health.changes():
            if conditions["pods"].state is wanted:
                return


async def test_a_collection_is_followed_through_all_that_breaks(server: kube_api.KubeApi, api: Api) -> None:
    """In pages, by changes, over a broken watch, over a revision that is gone, and over an outage."""
    server.page = 2
    for name in ("a", "b", "c", "d", "e"):
        server.pod("shop", name, "node-1")
    server.pod("shop", "not-ours", "node-1", labels={})
    health = Health("pods")
    async with following(api, health) as seen:
        await seen.until("a", "b", "c", "d", "e")
        server.remove("/api/v1/namespaces/shop/pods/a")
        server.pod("bank", "f", "node-2")
        await seen.until("b", "c", "d", "e", "f")

        server.break_watches()
        server.pod("shop", "g", "node-1")
        await seen.until("b", "c", "d", "e", "f", "g")
        assert seen.snapshots == 1, "a watch that broke goes on where it was"

        server.remove("/api/v1/namespaces/shop/pods/b")
        server.down = True
        server.break_watches()
        await state(health, State.DEGRADED)
        server.remove("/api/v1/namespaces/shop/pods/c")
        server.forget_history()
        server.down = False
        await seen.until("d", "e", "f", "g")
        assert seen.snapshots == 2, "what a compaction took away is listed again"
        await state(health, State.OK)
        assert seen.heard > 3


async def test_many_large_objects_come_in_smaller_pages(
    server: kube_api.KubeApi, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apis, "MAX_ANSWER", 20_000)
    names = [f"large-{n}" for n in range(12)]
    for name in names:
        server.put(f"/api/v1/namespaces/shop/pods/{name}", metadata={"labels": MESH, "annotations": {"a": "x" * 5_000}})
    async with following(api, Health("pods")) as seen:
        await seen.until(*names)
        assert seen.snapshots == 1
        assert len([each for each in server.requests if each == f"GET {PODS}"]) > 12 / 4


async def test_many_watches_leave_room_for_requests(server: kube_api.KubeApi, api: Api) -> None:
    """Each kind that is followed holds a connection; with 32 in all, statuses of the newer kinds were never written."""
    server.pod("shop", "a", "node-1")
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(128):
            await stack.enter_async_context(contextlib.aclosing(watch := api.watch(PODS, seconds=240)))
            assert await anext(watch) == {}
        async with asyncio.timeout(10):
            assert (await api.get(f"{PODS.replace('/pods', '/namespaces/shop/pods')}/a"))["metadata"]["name"] == "a"


async def test_a_watch_that_fell_silent_is_begun_anew(
    server: kube_api.KubeApi, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server holds the connection and says nothing: what happened meanwhile is heard on the next one."""
    monkeypatch.setattr(apis, "DEADLINE_SECONDS", 0.3)
    server.pod("shop", "a", "node-1")
    health = Health("pods")
    async with following(api, health, seconds=1) as seen:
        await seen.until("a")
        server.freeze_watches()
        server.pod("shop", "b", "node-1")
        server.remove("/api/v1/namespaces/shop/pods/a")
        await seen.until("b")
        assert seen.snapshots == 1


async def test_a_kind_that_isnt_installed_is_no_outage_and_is_found_when_it_comes(
    server: kube_api.KubeApi, api: Api
) -> None:
    clock, health, seen = ManualClock(), Health("things"), Seen()
    absent = asyncio.Event()
    kept: list[Any] = []

    def keep(item: Any) -> Any:
        kept.append(item)
        return item

    work = follow(
        api,
        "/apis/example.org/v1/things",
        seen.snapshot,
        seen.change,
        health=health,
        part="things",
        clock=clock,
        absent=absent.set,
        keep=keep,
    )
    task = asyncio.create_task(work)
    async with asyncio.timeout(10):
        await absent.wait()
        assert health.conditions()["things"].state is State.OK
        server.collections.add("things")
        server.put("/apis/example.org/v1/namespaces/shop/things/one")
        while not seen.snapshots:
            await clock.advance(1)
            await asyncio.sleep(0)
    assert (seen.names, len(kept)) == ({"one"}, 1)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("form", ["file", "data", "token file"])
async def test_a_kubeconfig_names_server_authority_and_credentials(
    server: kube_api.KubeApi, tmp_path: Path, form: str
) -> None:
    cluster: dict[str, str] = {"server": server.url, "certificate-authority": "ca.crt"}
    if form == "data":
        encoded = base64.b64encode((tmp_path / "ca.crt").read_bytes()).decode()
        cluster = {"server": server.url, "certificate-authority-data": encoded}
    user = {"tokenFile": "token"} if form == "token file" else {"token": kube_api.OUR_TOKEN}
    async with Api(Kubeconfig.read(kubeconfig(tmp_path, cluster, user))) as api:
        assert (await api.get(PODS))["kind"] == "List"


@pytest.mark.parametrize(
    ("cluster", "user", "reason"),
    [
        ({"server": "http://api"}, {}, "isn't an https:// address"),
        ({"server": "https://api", "insecure-skip-tls-verify": True}, {}, "insecure-skip-tls-verify"),
        ({"server": "https://api", "certificate-authority-data": "?"}, {}, "isn't base64"),
        ({"server": "https://api", "certificate-authority": "none"}, {}, "none can't be read"),
        ({"server": "https://api", "certificate-authority": "token"}, {}, "authority that can't be read"),
        ({"server": "https://api"}, {"exec": {"command": "aws"}}, "credentials that a program prints"),
        ({"server": "https://api"}, {"client-certificate": "token", "client-key": "token"}, "don't fit"),
        ({"server": "https://api"}, None, "has no user 'we'"),
    ],
)
def test_a_kubeconfig_that_cant_be_used_says_why(
    tmp_path: Path, cluster: dict[str, Any], user: dict[str, Any] | None, reason: str
) -> None:
    (tmp_path / "token").write_text("x")
    with pytest.raises(errors.ConfigError, match=reason):
        Kubeconfig.read(kubeconfig(tmp_path, cluster, user))


@pytest.mark.parametrize("content", ["", "[]", "a: [", "{}", "\x00", "a: &a [*a]"])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(errors.ConfigError, match="kubeconfig"):
        Kubeconfig.read(tmp_path / "config")


def kubeconfig(folder: Path, cluster: dict[str, Any], user: dict[str, Any] | None) -> Path:
    document = {
        "clusters": [{"name": "it", "cluster": cluster}],
        "users": [] if user is None else [{"name": "we", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "it", "user": "we"}}],
        "current-context": "here",
    }
    (folder / "config").write_text(json.dumps(document))
    return folder / "config"


async def test_objects_are_written_with_the_revision_that_was_read(server: kube_api.KubeApi, api: Api) -> None:
    collection = "/api/v1/namespaces/x/secrets"
    made = await api.create(collection, {"metadata": {"name": "s"}, "data": {}})
    with pytest.raises(errors.Conflict, match="already exists"):
        await api.create(collection, {"metadata": {"name": "s"}, "data": {}})
    server.put(f"{collection}/s", data={"a": "Yg=="})
    with pytest.raises(errors.Conflict, match="modified"):
        await api.replace(f"{collection}/s", {**made, "data": {}})
    assert (await api.get(f"{collection}/s"))["data"] == {"a": "Yg=="}
    with pytest.raises(errors.NotFound):
        await api.get(f"{collection}/t")


async def test_refusals_are_told_in_the_servers_words(server: kube_api.KubeApi, tmp_path: Path) -> None:
    (tmp_path / "other").write_text("somebody-else")
    known = server.cluster()
    async with Api(Cluster(known.url, tmp_path / "other", known.ca)) as stranger:
        with pytest.raises(errors.Unauthorized, match="GET /api/v1/pods: Unauthorized"):
            await stranger.get(PODS)
    async with Api(Cluster(known.url, tmp_path / "none", known.ca)) as nobody:
        with pytest.raises(errors.ConfigError, match="automountServiceAccountToken"):
            await nobody.get(PODS)


async def test_a_server_of_another_authority_isnt_asked(server: kube_api.KubeApi, tmp_path: Path) -> None:
    """Nor does it get the token."""
    (tmp_path / "second").mkdir()
    async with kube_api.serving(tmp_path / "second") as other:
        mixed = Cluster(server.url, tmp_path / "token", other.cluster().ca)
        async with Api(mixed) as api:
            with pytest.raises(errors.Unavailable, match="certificate"):
                await api.get(PODS)
    assert server.requests == []


async def test_an_answer_that_isnt_json_is_an_outage(server: kube_api.KubeApi, api: Api, monkeypatch: Any) -> None:
    monkeypatch.setattr(kube_api.Handler, "read", lambda *_: kube_api.Response(b"<html>", 200))
    with pytest.raises(errors.Unavailable, match="isn't JSON"):
        await api.get(PODS)


def test_outside_of_a_pod_there_is_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(errors.ConfigError, match="runs in no pod"):
        in_cluster()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    assert in_cluster().url == "https://[fd00::1]:443"
