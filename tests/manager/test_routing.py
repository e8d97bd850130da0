"""What routes and policies say, as a caller sees it through a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ads import Manager, free_port, located, manager_of
from envoys import HELD, application, eventually, get, mixer, proxy
from meshes import SHOP
from speaking import CATALOG, ORIGIN, V2, Speaker, http, policy, speaking, to

from meshwright.manager.model.routing import (
    Backend,
    CallerMatch,
    Cors,
    Destination,
    DirectResponse,
    Fault,
    HeaderChanges,
    HttpMatch,
    HttpRoute,
    Mirror,
    Redirect,
    Retries,
    Rewrite,
    Routes,
    Text,
    TextMatch,
)
from meshwright.manager.model.traffic import Balancing, Hash, Limits, Settings, Tls, TlsMode, TrafficPolicy
from pki import Pki

PLAIN = Settings(tls=Tls(TlsMode.DISABLED))
"""The test's applications have no proxy."""


@dataclass
class Shop:
    """A caller with its proxy, and two versions of the catalog that say their names."""

    manager: Manager
    speaker: Speaker
    socket: Path
    heads: dict[str, list[bytes]]

    async def say(self, *words: Routes | TrafficPolicy, settings: Settings = PLAIN) -> None:
        """Let something hold, and wait until the proxy has it."""
        self.speaker.say(policy(settings), *words)
        self.manager.hub.publish(self.speaker.snapshot)
        await self.manager.settled("shop-0")

    async def ask(self, path: str = "/", method: str = "GET", *headers: str) -> str:
        """Return STATUS BODY of a request for the catalog."""
        status, body = await get(self.socket, "catalog", path, method, headers)
        return f"{status} {body}"

    async def head(self, path: str = "/", method: str = "GET", *headers: str) -> str:
        """Return the head of the answer."""
        reader, writer = await asyncio.open_unix_connection(str(self.socket))
        try:
            more = "".join(f"{header}\r\n" for header in headers)
            writer.write(f"{method} {path} HTTP/1.1\r\nhost: catalog\r\nconnection: close\r\n{more}\r\n".encode())
            answer = await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()
            await writer.wait_closed()
        return answer.partition(b"\r\n\r\n")[0].decode().lower()

    def got(self, name: str) -> str:
        """Return the last request that a version got."""
        return self.heads[name][-1].decode().lower()


@contextlib.asynccontextmanager
async def shop(pki: Pki, folder: Path) -> AsyncIterator[Shop]:
    (folder / "shop").mkdir()
    ports = free_port(), free_port()
    with speaking(located(SHOP, folder, *ports)) as speaker:
        async with (
            manager_of(pki, speaker) as made,
            application(ports[0], "v1") as first,
            application(ports[1], "v2") as second,
            proxy(folder / "p", "shop-0", pki.workload("shop"), manager=made.address),
        ):
            yield Shop(made, speaker, folder / "shop" / "mesh.sock", {"v1": first, "v2": second})


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for the 107 bytes of a socket's path."""
    return tmp_path_factory.mktemp("r")


def route(*backends: Backend, **more: Any) -> HttpRoute:
    return HttpRoute(ORIGIN, backends=backends, **more)


def path(kind: Text, value: str, **more: Any) -> HttpMatch:
    return HttpMatch(path=TextMatch(kind, value, **more))


TO_V1, TO_V2 = to(subset="v1"), to(subset="v2")
LABELLED = Backend(Destination(CATALOG, labels=V2.labels))
REST = route(TO_V2)


async def test_each_condition_takes_what_fulfils_it_and_leaves_the_rest(pki: Pki, short: Path) -> None:
    header, query = "x-user", "version"
    cases: list[tuple[HttpMatch, list[tuple[str, ...]], list[tuple[str, ...]]]] = [
        (path(Text.EXACT, "/a"), [("/a",), ("/a?x=1",)], [("/a/b",), ("/A",)]),
        (path(Text.EXACT, "/a", ignore_case=True), [("/A",)], [("/b",)]),
        (path(Text.PREFIX, "/a"), [("/ab",), ("/a/b",)], [("/b",)]),
        (path(Text.SEGMENTS, "/a/"), [("/a",), ("/a/b",)], [("/ab",)]),
        (path(Text.SEGMENTS, "/"), [("/",), ("/a/b",)], []),
        (path(Text.SUFFIX, ".png"), [("/x.png",)], [("/x.pngs",), ("/xpng",)]),
        (path(Text.REGEX, "/a[0-9]+"), [("/a12",)], [("/a",), ("/a1/b",)]),
        (path(Text.EXACT, "/a", negated=True), [("/b",), ("/a/b",)], [("/a",), ("/a?x=1",)]),
        (HttpMatch(methods=("PUT", "PATCH")), [("/", "PUT"), ("/", "PATCH")], [("/", "GET")]),
        (HttpMatch(methods=("PUT",)), [("/", "PUT")], [("/", "POST")]),
        (
            HttpMatch(headers=((header, TextMatch(Text.EXACT, "ann")),)),
            [("/", "GET", "X-User: ann")],
            [("/", "GET", "X-User: bob"), ("/",)],
        ),
        (
            HttpMatch(headers=((header, TextMatch(Text.PREFIX, "an", negated=True)),)),
            [("/", "GET", "X-User: bob"), ("/",)],
            [("/", "GET", "X-User: ann")],
        ),
        (HttpMatch(headers=((header, TextMatch(Text.PRESENT)),)), [("/", "GET", "X-User: x")], [("/",)]),
        (
            HttpMatch(headers=((header, TextMatch(Text.PRESENT, negated=True)),)),
            [("/",)],
            [("/", "GET", "X-User: x")],
        ),
        (HttpMatch(query=((query, TextMatch(Text.EXACT, "2")),)), [("/?version=2",)], [("/?version=3",), ("/",)]),
        (HttpMatch(query=((query, TextMatch(Text.PRESENT)),)), [("/?version",)], [("/?versions=2",)]),
        (
            HttpMatch(query=((query, TextMatch(Text.EXACT, "2", negated=True)),)),
            [("/?version=3",), ("/",), ("/?version",), ("/version=2",)],
            [("/?version=2",), ("/?a=b&version=2&c",)],
        ),
        (
            HttpMatch(query=((query, TextMatch(Text.SUFFIX, "2", negated=True)),)),
            [("/?version=1&a=2",), ("/?version",)],
            [("/?version=12&a",)],
        ),
        (
            HttpMatch(query=((query, TextMatch(Text.PRESENT, negated=True)),)),
            [("/?versions=1",)],
            [("/?version",), ("/?a&version=1",)],
        ),
        (HttpMatch(authority=TextMatch(Text.PREFIX, "CAT", ignore_case=True)), [("/",)], []),
        (HttpMatch(authority=TextMatch(Text.EXACT, "other")), [], [("/",)]),
        (HttpMatch(scheme=TextMatch(Text.EXACT, "https")), [], [("/",)]),
        (HttpMatch(port=80), [("/",)], []),
        (HttpMatch(port=81), [], [("/",)]),
        (HttpMatch(gateways=("default/edge",)), [], [("/",)]),
        (HttpMatch(gateways=("mesh",)), [("/",)], []),
        (HttpMatch(callers=CallerMatch(labels=(("app", "shop"),))), [("/",)], []),
        (HttpMatch(callers=CallerMatch(labels=(("app", "till"),))), [], [("/",)]),
        (HttpMatch(callers=CallerMatch(namespace="default", service_account="shop")), [("/",)], []),
        (HttpMatch(callers=CallerMatch(service="shop.default.svc.cluster.local")), [], [("/",)]),
    ]
    async with shop(pki, short) as made:
        for condition, fit, rest in cases:
            await made.say(http(route(TO_V1, matches=(condition,)), REST))
            for request in fit:
                assert await made.ask(*request) == "200 v1", (condition, request)
            for request in rest:
                assert await made.ask(*request) == "200 v2", (condition, request)


async def test_requests_are_answered_changed_and_sent_elsewhere(pki: Pki, short: Path) -> None:
    async with shop(pki, short) as made:
        shelf = (path(Text.SEGMENTS, "/shelf"),)
        await made.say(http(route(redirect=Redirect(308, authority="new.example", port=81, prefix="/"), matches=shelf)))
        head = await made.head("/shelf/1?x=y")
        assert "308 permanent redirect" in head
        assert "location: http://new.example:81/1?x=y" in head
        assert await made.ask("/other") == "404 "

        await made.say(http(HttpRoute(ORIGIN, response=DirectResponse(418, "short and stout", "text/tea"))))
        assert await made.ask() == "418 short and stout"
        assert "content-type: text/tea" in await made.head()

        for rewrite, expected in (
            (Rewrite(prefix="/"), "get /1?x=y http"),
            (Rewrite(prefix="/rack"), "get /rack/1?x=y http"),
            (Rewrite(path="/all\\1"), "get /all\\1?x=y http"),
            (Rewrite(regex=("/([a-z]+)/([0-9])", "/\\2/\\1")), "get /1/shelf?x=y http"),
            (Rewrite(authority="inside.example"), "host: inside.example"),
        ):
            await made.say(http(route(TO_V1, rewrite=rewrite, matches=shelf)))
            assert await made.ask("/shelf/1?x=y") == "200 v1"
            assert expected in made.got("v1"), rewrite
        await made.say(http(route(TO_V1, rewrite=Rewrite(prefix="/"), matches=shelf)))
        await made.ask("/shelf")
        assert "get / http" in made.got("v1")

        changes = HeaderChanges((("x-a", "50%"), ("host", "h.example")), (("x-b", "two"),), ("x-c",))
        back = HeaderChanges(set=(("x-back", "1"),))
        backend = Backend(Destination(CATALOG, subset="v1"), 1, HeaderChanges(set=(("x-of", "v1"),)), back)
        await made.say(
            http(route(backend, request_headers=changes, response_headers=HeaderChanges(add=(("x-r", "r"),))))
        )
        head = await made.head("/", "GET", "x-a: old", "x-b: one", "x-c: gone")
        assert "x-back: 1" in head
        assert "x-r: r" in head
        got = made.got("v1")
        for expected in ("x-a: 50%", "host: h.example", "x-b: one", "x-b: two", "x-of: v1"):
            assert expected in got
        assert "x-c" not in got
        assert "x-a: old" not in got


async def test_what_leads_nowhere_is_refused_and_never_taken_by_another_route(pki: Pki, short: Path) -> None:
    gone = "gone.default.svc.cluster.local"
    async with shop(pki, short) as made:
        for first, status in (
            (route(to(gone)), "500"),
            (route(Backend(Destination(gone), missing=True)), "503"),
            (route(Backend(Destination(CATALOG), fault="may not be referred to")), "500"),
            (route(to(port=81)), "500"),
            (route(to(weight=0)), "500"),
            (route(), "500"),
            (route(to(subset="v3")), "500"),
        ):
            await made.say(http(first, REST))
            assert (await made.ask())[:3] == status, first
        await made.say(http(route(to("catalog-v1.default.svc.cluster.local", port_name="http"), to(gone, 0))))
        assert (await made.ask())[:3] == "503"  # the test's application has no proxy, which this host asks for


async def test_faults_are_injected_and_requests_may_ask_for_them(pki: Pki, short: Path) -> None:
    async with shop(pki, short) as made:
        await made.say(http(route(TO_V1, fault=Fault(abort_percent=100, http_status=418))))
        assert (await made.ask())[:3] == "418"
        await made.say(http(route(TO_V1, fault=Fault(abort_percent=0, http_status=418))))
        assert await made.ask() == "200 v1"
        await made.say(http(route(TO_V1, fault=Fault(abort_header="x-break", delay_header="x-wait"))))
        assert await made.ask() == "200 v1"
        assert (await made.ask("/", "GET", "x-break: 429"))[:3] == "429"
        delayed = Fault(delay_percent=100, delay_seconds=30)
        await made.say(http(route(TO_V1, fault=delayed, timeout_seconds=0.2)))
        before = len(made.heads["v1"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await made.ask()
        assert len(made.heads["v1"]) == before


async def test_a_request_has_its_time_and_its_attempts(pki: Pki, short: Path) -> None:
    async with shop(pki, short) as made:
        await made.say(http(route(TO_V2, timeout_seconds=0.2)))
        assert (await made.ask(HELD))[:3] == "504"
        await made.say(http(route(TO_V2, timeout_seconds=0, timeout_header="x-deadline")))
        assert (await made.ask(HELD, "GET", "x-deadline: 200"))[:3] == "504"
        failing = Retries(3, on=("gateway-error", "404"), backoff_seconds=0.01, another_host=False)
        await made.say(http(route(TO_V2, attempt_seconds=0.05, timeout_seconds=20, retries=failing)))
        before = len(made.heads["v2"])
        assert (await made.ask(HELD, "POST"))[:3] == "504"
        assert len(made.heads["v2"]) == before + 4
        before = len(made.heads["v2"])
        await made.say(http(route(TO_V2, timeout_seconds=0.2, retries=Retries(0))))
        assert (await made.ask(HELD))[:3] == "504"
        assert len(made.heads["v2"]) == before + 1


async def test_copies_go_to_mirrors_and_their_answers_to_nobody(pki: Pki, short: Path) -> None:
    async with shop(pki, short) as made:
        mirrors = (Mirror(Destination(CATALOG, subset="v2")), Mirror(Destination("gone.default.svc.cluster.local")))
        await made.say(http(route(TO_V1, mirrors=mirrors)))
        assert await made.ask("/copied") == "200 v1"
        await eventually(lambda: any(b"/copied" in head for head in made.heads["v2"]), "the copy")
        await made.say(http(route(TO_V1, mirrors=(Mirror(Destination(CATALOG, subset="v2"), 0),))))
        assert await made.ask("/uncopied") == "200 v1"
        assert not any(b"/uncopied" in head for head in made.heads["v2"])


async def test_pages_of_other_origins_may_call_what_a_route_lets_them(pki: Pki, short: Path) -> None:
    cors = Cors((TextMatch(Text.EXACT, "https://a.example"),), ("PUT",), ("x-a",), ("x-b",), 60, credentials=True)
    asked = ("Origin: https://a.example", "Access-Control-Request-Method: PUT")
    async with shop(pki, short) as made:
        await made.say(http(route(TO_V1, cors=cors, matches=(HttpMatch(methods=("PUT",)),)), REST))
        head = await made.head("/", "OPTIONS", *asked)
        for expected in (
            "200 ok",
            "access-control-allow-origin: https://a.example",
            "access-control-allow-methods: put",
            "access-control-allow-headers: x-a",
            "access-control-max-age: 60",
            "access-control-allow-credentials: true",
        ):
            assert expected in head
        assert "access-control-expose-headers: x-b" in await made.head("/", "PUT", asked[0])
        assert "access-control" not in await made.head("/", "PUT", "Origin: https://b.example")
        assert await made.ask("/", "OPTIONS") == "200 v2"


async def test_shares_and_labels_choose_workloads(pki: Pki, short: Path) -> None:
    async with shop(pki, short) as made:
        await made.say(http(route(to(subset="v1", weight=50), to(subset="v2", weight=50))))
        found: set[str] = set()
        await eventually(lambda: _all(made, found), "answers of both versions")
        await made.say(http(route(LABELLED)))
        assert {await made.ask() for _ in range(8)} == {"200 v2"}
        await made.say(http(route(to())))
        found.clear()
        await eventually(lambda: _all(made, found), "answers of both versions")


async def _all(made: Shop, found: set[str]) -> bool:
    found.add(await made.ask())
    return found == {"200 v1", "200 v2"}


@pytest.mark.parametrize("table", [0, 101])
async def test_one_key_always_reaches_the_same_workload(pki: Pki, short: Path, table: int) -> None:
    hashing = Settings(Balancing.HASH, Hash(header="x-user", table=table), tls=Tls(TlsMode.DISABLED))
    async with shop(pki, short) as made:
        await made.say(http(route(to())), settings=hashing)
        for user in ("ann", "bob", "eve"):
            assert len({await made.ask("/", "GET", f"x-user: {user}") for _ in range(6)}) == 1
        users = [f"x-user: {number}" for number in range(32)]
        assert len({await made.ask("/", "GET", user) for user in users}) == 2


async def test_more_than_a_limit_is_refused(pki: Pki, short: Path) -> None:
    limited = Settings(limits=Limits(connections=1, pending=1, requests=1), tls=Tls(TlsMode.DISABLED))
    async with shop(pki, short) as made:
        await made.say(http(route(TO_V2, timeout_seconds=20, retries=Retries(0))), settings=limited)
        waiting = [asyncio.create_task(made.ask(HELD)) for _ in range(4)]
        done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=20)
        assert {(await each)[:3] for each in done} == {"503"}
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_callers_own_rule_holds_for_its_namespace_alone(pki: Pki, short: Path) -> None:
    async with shop(pki, short) as made:
        await made.say(http(route(TO_V1)))
        made.speaker.say(http(route(TO_V2), exported=frozenset(["depot"])), namespace="depot")
        made.manager.hub.publish(made.speaker.snapshot)
        await made.manager.settled("shop-0")
        assert await made.ask() == "200 v1"
        made.speaker.say(http(route(TO_V2)), namespace="default")
        made.manager.hub.publish(made.speaker.snapshot)
        await made.manager.settled("shop-0")
        assert (await made.ask())[:3] == "500"  # the subset went with the policy


class Upgrade(asyncio.Protocol):
    """An application that switches protocols when asked to, and then sends everything back."""

    def connection_made(self, transport: Any) -> None:
        self._transport, self._switched = transport, False

    def data_received(self, data: bytes) -> None:
        if self._switched:
            self._transport.write(data)
        elif b"upgrade: websocket" in data.lower():
            self._switched = True
            self._transport.write(
                b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n"
            )
        else:
            self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


async def test_upgrades_pass_both_proxies_unless_a_route_forbids_them(pki: Pki, short: Path) -> None:
    (short / "shop").mkdir()
    (short / "catalog-v1").mkdir()
    loop = asyncio.get_running_loop()
    serving = await loop.create_unix_server(Upgrade, str(short / "catalog-v1" / "app.sock"))
    with speaking(located(SHOP, short, free_port(), free_port())) as speaker:
        async with (
            serving,
            mixer(pki) as (_, mixers),
            manager_of(pki, speaker) as made,
            proxy(short / "p", "shop-0", pki.workload("shop"), manager=made.address),
            proxy(short / "c", "catalog-v1-0", pki.workload("catalog"), manager=made.address, mixers=(mixers,)),
        ):
            for allowed, answered in ((True, b"101"), (False, b"403")):
                speaker.say(http(route(TO_V1, websocket=allowed)), policy())
                made.hub.publish(speaker.snapshot)
                await made.settled("shop-0", "catalog-v1-0")
                reader, writer = await asyncio.open_unix_connection(str(short / "shop" / "mesh.sock"))
                upgrade = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: x\r\n"
                writer.write(f"GET / HTTP/1.1\r\nhost: catalog\r\n{upgrade}\r\n".encode())
                async with asyncio.timeout(20):
                    head = await reader.readuntil(b"\r\n\r\n")
                    assert head.split(b" ")[1] == answered
                    if allowed:
                        writer.write(b"both ways")
                        assert await reader.readexactly(9) == b"both ways"
                writer.close()
                await writer.wait_closed()
