"""Citadel on a real API server: tokens that it reviews, pods followed through its death, Secrets under its rules."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import api_server
import citadels
import pytest
import pytest_asyncio

from meshwright.api.citadel.v1 import agents_pb2, agents_pb2_grpc
from meshwright.citadel.infrastructure import certificates, cluster
from meshwright.citadel.infrastructure.certificates import Wanted
from meshwright.core import errors
from meshwright.core.citadel_identity import CitadelIdentity
from meshwright.core.first_certificate import KubernetesLogin
from meshwright.core.grpc import Channel
from meshwright.core.identity import LOGIN_CLIENT, LOGIN_SERVER, part_id
from meshwright.core.kubernetes import Api, Cluster

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(300)]
SYSTEM, NODE = "meshwright-system", "node-1"
DOMAIN = citadels.DOMAIN


def pod(
    namespace: str, name: str, account: str, *, labels: dict[str, str] | None = None, node: str = NODE
) -> dict[str, object]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {"serviceAccountName": account, "nodeName": node, "containers": [{"name": "x", "image": "x"}]},
    }


def account(namespace: str, name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def write_pair(folder: Path, ca: certificates.Pair, wanted: Wanted) -> None:
    pair = certificates.issue(ca, wanted, datetime.now(UTC))
    folder.mkdir()
    for name, data in (("cert", pair.certificate_pem), ("key", pair.key_pem), ("ca", ca.certificate_pem)):
        (folder / f"{name}.pem").write_bytes(data)


@dataclass
class Mesh:
    """A citadel that asks the API server."""

    folder: Path
    server: api_server.ApiServer
    citadel: citadels.Citadel
    login: str

    async def token(self, name: str, *words: str, audience: str = "meshwright-citadel") -> Path:
        text = await self.server.kubectl("create", "token", "-n", SYSTEM, name, f"--audience={audience}", *words)
        path = self.folder / f"{uuid.uuid4()}.token"
        path.write_text(text)
        return path

    def identity(self, part: str, token: Path) -> CitadelIdentity:
        first = KubernetesLogin(self.login, self.folder / "client", token)
        return CitadelIdentity(part_id(DOMAIN, part), first=first, address=self.citadel.address, patience=0.0)


@pytest_asyncio.fixture(loop_scope="module")
async def mesh(server: api_server.ApiServer, tmp_path: Path) -> AsyncIterator[Mesh]:
    nodes = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}
    accounts = [account(SYSTEM, f"meshwright-{name}") for name in ("node", "manager", "bootstrap")]
    await server.apply(nodes, namespace, *accounts, account("shop", "web"))
    ca, login = certificates.new_ca(datetime.now(UTC)), f"127.0.0.1:{citadels.free_port()}"
    write_pair(tmp_path / "login", ca, Wanted("login", ("127.0.0.1",), uri=LOGIN_SERVER))
    write_pair(tmp_path / "client", ca, Wanted("login", uri=LOGIN_CLIENT))
    options = {
        "kubernetes": True,
        "kubernetes_api": server.url,
        "kubernetes_account": server.folder,
        "login_listen": login,
        "login_tls": tmp_path / "login",
    }
    async with citadels.citadel(tmp_path, **options) as running:
        yield Mesh(tmp_path, server, running, login)


@contextlib.asynccontextmanager
async def known(mesh: Mesh) -> AsyncIterator[Known]:
    """Follow what an agent of the node is told."""
    async with (
        mesh.citadel.identity(f"citadel-agent/node/{NODE}") as identity,
        Channel(mesh.citadel.address, identity, peer=part_id(DOMAIN, "citadel")) as channel,
    ):
        call = agents_pb2_grpc.AgentsStub(channel).WatchRegistrations(agents_pb2.WatchRegistrationsRequest())
        yield Known(call)
        call.cancel()


class Known:
    """The identities of a node, as they change."""

    def __init__(self, call: object) -> None:
        self._call, self._have = call, dict[str, str]()

    async def until(self, *accounts: str) -> None:
        wanted = sorted(f"spiffe://{DOMAIN}/ns/shop/sa/{name}" for name in accounts)
        async with asyncio.timeout(60):
            while sorted(self._have.values()) != wanted:
                update = await self._call.read()  # type: ignore[attr-defined]
                self._have = {} if update.reset else self._have
                self._have.update({each.id: each.spiffe_id for each in update.changed})
                for gone in update.removed:
                    self._have.pop(gone)


async def test_tokens_are_what_the_api_server_says(mesh: Mesh) -> None:
    """For our audience only, of a pod that exists, and with the node on which it runs."""
    server = mesh.server
    await server.apply(pod(SYSTEM, "node-pod", "meshwright-node"), pod(SYSTEM, "manager-pod", "meshwright-manager"))
    bound = ("--bound-object-kind=Pod", "--bound-object-name=node-pod")
    agent = f"citadel-agent/node/{NODE}"
    token = await mesh.token("meshwright-node", *bound)
    async with mesh.identity(agent, token) as identity:
        assert identity.current().spiffe_id == part_id(DOMAIN, agent)
    with pytest.raises(errors.ConfigError, match="node-2"):
        async with mesh.identity("citadel-agent/node/node-2", token):
            pass
    for wrong, reason in (
        (await mesh.token("meshwright-node", *bound, audience="https://kubernetes.default.svc"), "doesn't take this"),
        (await mesh.token("meshwright-node"), "bound to no pod"),
    ):
        with pytest.raises(errors.Unauthorized, match=reason):
            async with mesh.identity(agent, wrong):
                pass
    token = await mesh.token("meshwright-node", *bound)
    await server.kubectl("delete", "pod", "-n", SYSTEM, "node-pod", "--force", "--grace-period=0")

    async def refused() -> bool:
        try:
            async with mesh.identity(agent, token):
                return False
        except errors.Unauthorized:
            return True

    async with asyncio.timeout(60):  # the API server keeps what it has reviewed for some seconds
        while not await refused():
            await asyncio.sleep(0.5)


async def test_pods_are_followed_through_the_api_servers_death(mesh: Mesh) -> None:
    """Killed and started again: what it had is served on meanwhile, what changed afterwards is heard."""
    member = {"meshwright.io/mesh": "enabled"}
    server = mesh.server
    await server.apply(pod("shop", "web-1", "web", labels=member), pod("shop", "other", "web"))
    await server.apply(pod("shop", "elsewhere", "web", labels=member, node="node-2"))
    async with known(mesh) as agent:
        await agent.until("web")
        await server.kill()
        async with known(mesh) as another:
            await another.until("web")
        await server.start()
        await server.apply(pod("shop", "web-2", "web", labels=member))
        await agent.until("web", "web")
        await server.kubectl("delete", "pod", "-n", "shop", "web-1", "web-2", "--force", "--grace-period=0")
        await agent.until()


async def test_bootstrap_needs_no_more_rights_than_its_roles(mesh: Mesh) -> None:
    """Create, get and update of Secrets in its namespace; a second run finds all of it."""
    server = mesh.server
    await server.kubectl("create", "role", "-n", SYSTEM, "bootstrap", "--verb=create,get,update", "--resource=secrets")
    await server.kubectl(
        "create", "rolebinding", "-n", SYSTEM, "bootstrap", "--role=bootstrap",
        f"--serviceaccount={SYSTEM}:meshwright-bootstrap",
    )  # fmt: skip
    (mesh.folder / "job").write_text(await server.kubectl("create", "token", "-n", SYSTEM, "meshwright-bootstrap"))
    async with Api(Cluster(server.url, mesh.folder / "job", server.folder / "ca.crt")) as api:
        now = datetime.now(UTC)
        assert len(await cluster.run(api, cluster.Plan(SYSTEM), now)) == 11
        assert await cluster.run(api, cluster.Plan(SYSTEM), now) == []
        renewed = await cluster.run(api, cluster.Plan(SYSTEM, etcd_names=("etcd.example",)), now)
        assert renewed == ["certificate renewed: Secret meshwright-etcd-tls"]
        with pytest.raises(errors.Forbidden, match=r"secrets.*is forbidden.*give this service account the right"):
            await cluster.run(api, cluster.Plan("shop"), now)
    secret = await server.get("secret", "-n", SYSTEM, "meshwright-etcd-tls")
    assert secret["type"] == "kubernetes.io/tls"
