"""A real Envoy takes its configuration from a real manager by ADS over mutual TLS."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest
from ads import free_port, located, manager
from envoys import application, eventually, get, mixer, proxy
from meshes import SHOP, SPLIT

from meshwright.api.envoy.config.route.v3.route_components_pb2 import VirtualHost
from meshwright.api.envoy.config.route.v3.route_pb2 import RouteConfiguration
from meshwright.manager.xds import names, types, wire
from meshwright.manager.xds.caller import Caller
from meshwright.manager.xds.snapshot import Snapshot
from pki import Pki


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name leaves room for the 107 bytes of a socket's path."""
    return tmp_path_factory.mktemp("e")


@pytest.mark.parametrize("increments", [False, True], ids=["world", "increments"])
async def test_a_proxy_acknowledges_a_revision_and_a_split_pushes_only_routes(
    pki: Pki, short: Path, increments: bool
) -> None:
    (short / "shop").mkdir()
    async with (
        manager(pki, located(SHOP, short)) as manager_,
        proxy(short / "p", "shop-0", pki.workload("shop"), manager=manager_.address, increments=increments),
    ):
        await manager_.settled("shop-0")
        manager_.apply(SPLIT)
        await manager_.settled("shop-0")
        versions = {types.short(kind): state.sent_version for kind, state in manager_.states("shop-0").items()}
        assert versions == {
            "Cluster": "1",
            "ClusterLoadAssignment": "1",
            "Listener": "1",
            "RouteConfiguration": "2",
        }
        status, body = await get(short / "shop" / "mesh.sock", "nobody")
        assert status == 404
        assert "no service of the mesh" in body


class Broken(Snapshot):
    """A snapshot whose routes no proxy accepts: two virtual hosts answer to one name."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.routes_mark = object()

    def outbound_routes(self, name: str, who: Caller, hosts: tuple[str, ...]) -> wire.Resource:
        twice = [VirtualHost(name=text, domains=["same"]) for text in ("a", "b")]
        return wire.resource(name, RouteConfiguration(name=name, virtual_hosts=twice))


async def test_a_refused_resource_is_told_with_the_proxys_reason_and_changes_nothing(pki: Pki, short: Path) -> None:
    (short / "shop").mkdir()
    async with (
        manager(pki, located(SHOP, short)) as manager_,
        proxy(short / "p", "shop-0", pki.workload("shop"), manager=manager_.address),
    ):
        await manager_.settled("shop-0")
        world = manager_.world
        world.apply(SPLIT)
        manager_.hub.publish(Broken(world.mesh, names.Parameters(), world.snapshot))
        state = manager_.states("shop-0")[types.ROUTE]
        await eventually(lambda: "same" in state.error, "the refusal")
        assert (state.sent_version, state.acknowledged_version) == ("2", "1")
        assert manager_.acknowledged("shop-0") == 1
        manager_.apply("{apiVersion: v1, kind: Namespace, metadata: {name: other}}")
        await manager_.settled("shop-0")
        assert state.error == ""


async def test_a_request_goes_through_both_proxies_policy_and_report(pki: Pki, short: Path) -> None:
    (short / "shop").mkdir()
    (short / "catalog-v1").mkdir()
    mesh = located(SHOP, short, free_port(), free_port()) + "---" + SPLIT.replace("weight: 10", "weight: 0")
    async with (
        manager(pki, mesh) as manager_,
        mixer(pki) as (mixer_, mixer_address),
        application(short / "catalog-v1" / "app.sock", "catalog v1") as heads,
        proxy(short / "s", "shop-0", pki.workload("shop"), manager=manager_.address, mixers=(mixer_address,)),
        proxy(short / "c", "catalog-v1-0", pki.workload("catalog"), manager=manager_.address, mixers=(mixer_address,)),
    ):
        await manager_.settled("shop-0", "catalog-v1-0")
        for host in ("catalog", "catalog:80", "catalog.default", "catalog.default.svc.cluster.local:80"):
            assert await get(short / "shop" / "mesh.sock", host, "/items") == (200, "catalog v1")
        check = mixer_.checks[0]
        assert check.source.principal == "spiffe://mesh.local/ns/default/sa/shop"
        assert dict(check.context_extensions) == {
            "context.reporter.kind": "inbound",
            "destination.service.host": "catalog.default.svc.cluster.local",
            "destination.service.name": "catalog",
            "destination.service.namespace": "default",
            "destination.workload.name": "catalog-v1-0",
            "destination.workload.namespace": "default",
        }
        assert b"URI=spiffe://mesh.local/ns/default/sa/shop" in heads[0]
        await eventually(lambda: len(mixer_.entries) == 4, "four reports")
        entry = mixer_.entries[0]
        assert dict(entry.common_properties.custom_tags) == dict(check.context_extensions)
        assert entry.request.path == "/items"
        assert "traceparent" in entry.request.request_headers

        mixer_.status = 403
        assert await get(short / "shop" / "mesh.sock", "catalog") == (403, "denied by a rule")


async def test_without_a_mixer_the_called_service_decides(pki: Pki, short: Path) -> None:
    (short / "shop").mkdir()
    (short / "catalog-v1").mkdir()
    allowing = located(SHOP, short, free_port(), free_port()).replace(
        "{name: catalog-v1}\nspec:\n  selector",
        "{name: catalog-v1, annotations: {meshwright.io/on-policy-outage: allow}}\nspec:\n  selector",
    )
    async with (
        manager(pki, allowing) as manager_,
        application(short / "catalog-v1" / "app.sock", "catalog v1"),
        proxy(short / "s", "shop-0", pki.workload("shop"), manager=manager_.address),
        proxy(short / "c", "catalog-v1-0", pki.workload("catalog"), manager=manager_.address),
    ):
        await manager_.settled("shop-0", "catalog-v1-0")
        assert await get(short / "shop" / "mesh.sock", "catalog-v1") == (200, "catalog v1")
        manager_.apply(allowing.replace("policy-outage: allow", "policy-outage: deny"))
        await manager_.settled("shop-0", "catalog-v1-0")

        async def refused() -> bool:
            status, _ = await get(short / "shop" / "mesh.sock", "catalog-v1")
            return status == 503

        # A connection that was open before lives on for seconds with the rules of before.
        await eventually(refused, "refusal for want of a mixer", timeout=8)


async def test_an_applications_restart_fails_no_request(pki: Pki, short: Path) -> None:
    (short / "shop").mkdir()
    (short / "catalog-v1").mkdir()
    socket = short / "catalog-v1" / "app.sock"
    async with (
        manager(pki, located(SHOP, short, free_port(), free_port())) as manager_,
        mixer(pki) as (_, mixer_address),
        proxy(short / "s", "shop-0", pki.workload("shop"), manager=manager_.address, mixers=(mixer_address,)),
        proxy(short / "c", "catalog-v1-0", pki.workload("catalog"), manager=manager_.address, mixers=(mixer_address,)),
    ):
        await manager_.settled("shop-0", "catalog-v1-0")
        async with application(socket, "before"):
            assert await get(short / "shop" / "mesh.sock", "catalog-v1") == (200, "before")
        waiting = [
            asyncio.create_task(get(short / "shop" / "mesh.sock", "catalog-v1", method=method))
            for method in ("GET", "POST")
        ]
        await eventually(lambda: retried(short / "s" / "admin.sock"), "a retry")
        async with application(socket, "after"):
            assert await asyncio.gather(*waiting) == [(200, "after"), (200, "after")]


async def retried(admin: Path) -> bool:
    _, text = await get(admin, "admin", "/stats?filter=catalog-v1.*upstream_rq_retry$")
    return sum(int(line.rpartition(" ")[2]) for line in text.splitlines() if ": " in line) >= 2


async def test_a_mixer_replica_that_dies_fails_no_request_while_another_lives(pki: Pki, short: Path) -> None:
    (short / "shop").mkdir()
    (short / "catalog-v1").mkdir()
    shop = short / "shop" / "mesh.sock"
    async with (
        manager(pki, located(SHOP, short, free_port(), free_port())) as manager_,
        mixer(pki) as (living, living_address),
        application(short / "catalog-v1" / "app.sock", "catalog v1"),
        contextlib.AsyncExitStack() as stack,
    ):
        mortal, mortal_address = await stack.enter_async_context(mixer(pki))
        mixers = (living_address, mortal_address)
        for workload, account in (("shop-0", "shop"), ("catalog-v1-0", "catalog")):
            identity = pki.workload(account)
            await stack.enter_async_context(
                proxy(short / account, workload, identity, manager=manager_.address, mixers=mixers)
            )
        await manager_.settled("shop-0", "catalog-v1-0")

        async def both_asked() -> bool:
            assert (await get(shop, "catalog-v1"))[0] == 200
            return bool(living.checks and mortal.checks)

        await eventually(both_asked, "both replicas are asked")
        mortal.dies = True
        asked = len(living.checks)
        answers = [await get(shop, "catalog-v1") for _ in range(40)]
        assert {status for status, _ in answers} == {200}
        assert len(living.checks) >= asked + 40


async def test_a_manager_that_comes_back_empty_takes_nothing_from_proxies(pki: Pki, short: Path) -> None:
    (short / "shop").mkdir()
    (short / "catalog-v1").mkdir()
    shop = short / "shop" / "mesh.sock"
    mesh = located(SHOP, short, free_port(), free_port())
    port = free_port()
    async with (
        mixer(pki) as (_, mixer_address),
        application(short / "catalog-v1" / "app.sock", "catalog v1"),
        contextlib.AsyncExitStack() as stack,
    ):
        async with manager(pki, mesh, port) as first:
            for workload, account in (("shop-0", "shop"), ("catalog-v1-0", "catalog")):
                identity = pki.workload(account)
                await stack.enter_async_context(
                    proxy(short / account, workload, identity, manager=first.address, mixers=(mixer_address,))
                )
            await first.settled("shop-0", "catalog-v1-0")
        assert (await get(shop, "catalog-v1"))[0] == 200
        async with manager(pki, "", port) as second:
            await eventually(lambda: len(second.hub.connections()) == 2, "both proxies are back")
            assert (await get(shop, "catalog-v1"))[0] == 200
            second.apply(mesh + "---" + SPLIT)
            await second.settled("shop-0", "catalog-v1-0")
            assert (await get(shop, "catalog-v1"))[0] == 200
