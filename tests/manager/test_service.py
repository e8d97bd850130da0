"""The configuration API over gRPC with mutual TLS, and the manager around it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from envoys import eventually, serving
from managers import client, objects, running
from meshes import SHOP, SPLIT

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.api.envoy.config.core.v3.base_pb2 import Node
from meshwright.api.envoy.service.discovery.v3 import ads_pb2_grpc
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryRequest, DiscoveryResponse
from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.core.grpc import Channel
from meshwright.core.identity import StaticIdentity, X509Identity, part_id
from meshwright.manager.errors import Refused
from meshwright.manager.xds import types
from meshwright.manager.xds.platform import node_id
from pki import Pki

pytestmark = pytest.mark.usefixtures("grpc_front")

RULE = "apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {name: r}\nspec: {match: 'true'}\n"


async def test_a_request_is_one_revision_and_what_did_not_change_costs_none(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        first = await admin.apply(objects(SHOP))
        assert (first.revision, {action for _, action in first.results}) == (1, {"created"})
        again = await admin.apply(objects(SHOP))
        assert (again.revision, {action for _, action in again.results}) == (1, {"unchanged"})
        changed = await admin.apply(objects(SHOP.replace("policy-outage: allow", "policy-outage: deny")))
        assert changed.revision == 2
        assert [action for _, action in changed.results].count("changed") == 1
        found, revision = await admin.list("Service")
        assert (revision, [entry.name for entry in found]) == (2, ["catalog", "catalog-v1", "catalog-v2"])


async def test_a_request_with_a_fault_changes_nothing_and_names_the_document(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        with pytest.raises(Refused) as refused:
            await admin.apply(objects(SHOP + "---" + SPLIT.replace("90", "-1"), "shop.yaml"))
        told = str(refused.value)
        assert told.startswith("shop.yaml#9: TrafficSplit default/catalog: spec.backends[0].weight: ")
        assert "can't be negative" in told
        assert await admin.list() == ([], 0)


async def test_a_dry_run_judges_and_changes_nothing(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        outcome = await admin.apply(objects(SPLIT), dry_run=True)
        assert outcome.results[0][1] == "created"
        assert "doesn't exist" in outcome.warnings[0].message
        assert outcome.warnings[0].source == "file.yaml#1"
        assert await admin.list() == ([], 0)


async def test_deleting(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))
        gone = await admin.delete([Key("", "Service", "", "catalog-v2")])
        assert (gone.revision, gone.results[0][1]) == (2, "deleted")
        with pytest.raises(Refused, match="doesn't exist"):
            await admin.delete([Key("", "Service", "", "catalog-v2")])
        found, _ = await admin.list("service", "catalog-v2")
        assert found == []


async def test_a_list_longer_than_a_page_comes_whole(pki: Pki, tmp_path: Path) -> None:
    note = "x" * 200_000
    text = "---\n".join(
        f"{{apiVersion: v1, kind: Namespace, metadata: {{name: n{i}, annotations: {{note: {note}}}}}}}\n"
        for i in range(30)
    )
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(text))
        found, _ = await admin.list("Namespace")
        assert sorted(entry.name for entry in found) == sorted(f"n{i}" for i in range(30))


@pytest.mark.parametrize("part", ["mixer", "citadel", "forwarder"])
async def test_only_the_administrator_changes_configuration(pki: Pki, tmp_path: Path, part: str) -> None:
    async with running(pki, tmp_path) as address, client(pki, address, part) as other:
        with pytest.raises(errors.Forbidden, match="may not call"):
            await other.apply(objects(SHOP))
        if part == "forwarder":
            with pytest.raises(errors.Forbidden):
                await other.list()
        else:
            assert await other.list() == ([], 0)


async def test_a_foreign_authority_gets_no_answer(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(Pki(), address) as stranger:
        with pytest.raises(errors.Unavailable):
            await stranger.list()


class Validation(config_pb2_grpc.ValidationServicer):
    """A mixer that finds what the test says."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.refuse = ""

    async def Validate(self, request: Any, context: Any) -> Any:
        self.requests.append(request)
        response = config_pb2.ValidateResponse()
        if self.refuse:
            response.violations.add(key=request.changed[0].key, field="spec.match", message=self.refuse)
        return response


@contextlib.asynccontextmanager
async def validation(pki: Pki) -> AsyncIterator[tuple[Validation, str]]:
    made = Validation()

    def register(server: Any) -> None:
        config_pb2_grpc.add_ValidationServicer_to_server(made, server)

    async with serving("127.0.0.1:0", pki.part("mixer"), register) as address:
        yield made, address


async def test_rules_are_judged_by_mixer_in_their_context(pki: Pki, tmp_path: Path) -> None:
    async with (
        validation(pki) as (mixer, at),
        running(pki, tmp_path, mixer=f"127.0.0.1:1,{at}") as address,
        client(pki, address) as admin,
    ):
        await admin.apply(objects(RULE))
        await admin.apply(objects(RULE.replace("name: r}", "name: second}") + "---" + SHOP))
        last = mixer.requests[-1]
        assert [found.key.name for found in last.changed] == ["second"]
        assert [found.key.name for found in last.context] == ["r"]
        mixer.refuse = "unknown attribute"
        with pytest.raises(Refused, match=r"file.yaml#1: rule default/r: spec.match: unknown attribute"):
            await admin.apply(objects(RULE.replace("true", "x")))
        mixer.refuse = ""
        await admin.delete([Key("", "rule", "", "second")])
        assert [key.name for key in mixer.requests[-1].deleted] == ["second"]


async def test_without_mixer_rules_are_only_taken_unvalidated(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path, mixer="127.0.0.1:1") as address, client(pki, address) as admin:
        with pytest.raises(errors.Unavailable, match="mixer, which owns these kinds, can't be asked"):
            await admin.apply(objects(RULE + "---" + SHOP))
        assert await admin.list() == ([], 0)
        outcome = await admin.apply(objects(RULE), accept_unvalidated=True)
        assert "was not validated" in outcome.warnings[0].message


async def test_a_folder_is_served_and_followed(pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    (folder / "shop.yaml").write_text(SHOP)
    async with running(pki, tmp_path, config=folder) as address, client(pki, address) as admin:
        found, first = await admin.list("Service")
        assert len(found) == 3
        with pytest.raises(errors.ConfigError, match="serves a folder"):
            await admin.apply(objects(SPLIT))
        (folder / "broken.yaml").write_text(SPLIT.replace("90", "-1"))
        (folder / "more.yaml").write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: more}\n")
        (folder / "broken.yaml").unlink()

        async def followed() -> bool:
            listed, revision = await admin.list("Namespace")
            return bool(listed) and revision > first

        await eventually(followed, "the new file")


async def test_a_folder_with_a_fault_is_refused_at_the_start(pki: Pki, tmp_path: Path) -> None:
    folder = tmp_path / "mesh"
    folder.mkdir()
    (folder / "split.yaml").write_text(SPLIT.replace("90", "-1"))
    with pytest.raises(ExceptionGroup) as failed:
        async with running(pki, tmp_path, config=folder):
            pass
    [error] = failed.value.exceptions
    assert "split.yaml#1" in str(error)
    assert "can't be negative" in str(error)


async def ask(
    identity: X509Identity, address: str, node: str
) -> tuple[grpc.StatusCode | None, str | DiscoveryResponse]:
    """Open a stream as a proxy does; returns its end, or the first response."""
    channel = Channel(address, StaticIdentity(identity), peer=part_id("mesh.local", "manager"))
    async with channel:
        call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
        await call.write(DiscoveryRequest(node=Node(id=node), type_url=types.CLUSTER))
        try:
            response = await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code(), str(error.details())
        call.cancel()
        return None, response


async def test_a_proxy_gets_only_its_own_configuration(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))
        status, response = await ask(pki.workload("shop"), address, node_id("default", "shop-0"))
        assert status is None
        assert isinstance(response, DiscoveryResponse)
        assert len(response.resources) == 3
        for identity, node, reason in (
            (pki.workload("catalog"), node_id("default", "shop-0"), "isn't the identity of workload shop-0"),
            (pki.workload("shop", "other"), node_id("default", "shop-0"), "isn't the identity of workload shop-0"),
            (pki.workload("shop", "other"), node_id("default", "not-yet"), "isn't the identity of workload not-yet"),
            (pki.part("admin"), node_id("default", "shop-0"), "isn't the identity of workload shop-0"),
        ):
            assert await ask(identity, address, node) == (grpc.StatusCode.PERMISSION_DENIED, _Contains(reason))
        status, text = await ask(pki.workload("shop"), address, "shop")
        assert (status, text) == (grpc.StatusCode.INVALID_ARGUMENT, _Contains("use sidecar~ADDRESS~"))


async def test_status_shows_connected_proxies_and_wait_names_who_is_behind(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))
        assert (await admin.wait(1, timeout=5)).proxies == ()
        identity = StaticIdentity(pki.workload("shop"))
        async with Channel(address, identity, peer=part_id("mesh.local", "manager")) as channel:
            call = ads_pb2_grpc.AggregatedDiscoveryServiceStub(channel).StreamAggregatedResources()
            await call.write(DiscoveryRequest(node=Node(id=node_id("default", "shop-0")), type_url=types.CLUSTER))
            response = await call.read()
            [proxy] = (await admin.status()).proxies
            assert (proxy.workload, proxy.acknowledged_revision) == ("shop-0.default", 0)
            with pytest.raises(errors.DeadlineExceeded, match=r"shop-0.default is at 0"):
                await admin.wait(1, timeout=0.2)
            refusal = DiscoveryRequest(type_url=types.CLUSTER, response_nonce=response.nonce)
            refusal.error_detail.message = "no such thing"
            await call.write(refusal)

            async def told() -> bool:
                return (await admin.status()).proxies[0].error == "Cluster: no such thing"

            await eventually(told, "the refusal in the status")
            with pytest.raises(errors.DeadlineExceeded, match=r"shop-0.default is at 0 \(Cluster: no such thing\)"):
                await admin.wait(1, timeout=0.2)
            service = Key("v1", "Service", "default", "catalog")
            words = r"Service default/catalog \(Refused: .* refused outbound\|80\|\|catalog\..*: no such thing"
            with pytest.raises(errors.DeadlineExceeded, match=words):
                await admin.wait_for([service], "Programmed", timeout=0.2)
            await admin.wait_for([service], "Accepted", timeout=0.2)
            call.cancel()


class _Contains(str):
    """Equal to any text that holds it."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in other

    __hash__ = str.__hash__
