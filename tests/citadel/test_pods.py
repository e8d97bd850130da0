"""Pods of the mesh have the identity of their service account, on their own node and nowhere else.

The API server is fake (see kube_api); the processes are real ones in groups and namespaces as a kubelet makes them.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pod_workload
import pytest
from citadels import DOMAIN, Citadel, agent, citadel
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import kube_api
from meshwright.api.citadel.v1 import agents_pb2, agents_pb2_grpc
from meshwright.citadel.kubernetes.pods import Pods, read
from meshwright.citadel.registrations.model import Registration, Selector
from meshwright.citadel.registrations.registry import Registry
from meshwright.core import errors, store
from meshwright.core.clock import ManualClock, SystemClock
from meshwright.core.grpc import Channel
from meshwright.core.health import Health
from meshwright.core.identity import part_id
from meshwright.core.kubernetes import Api

WEB = f"spiffe://{DOMAIN}/ns/shop/sa/web"
NODE = "node-1"


@pytest.fixture
async def server(short_tmp: Path) -> AsyncIterator[kube_api.KubeApi]:
    async with kube_api.serving(short_tmp) as running:
        yield running


@pytest.fixture
async def up(short_tmp: Path, server: kube_api.KubeApi) -> AsyncIterator[Citadel]:
    options = {"kubernetes": True, "kubernetes_api": server.url, "kubernetes_account": short_tmp}
    async with citadel(short_tmp, **options) as running:
        yield running


@pytest.fixture
async def socket(up: Citadel, short_tmp: Path) -> AsyncIterator[str]:
    async with agent(up, node=NODE) as target:
        short_tmp.chmod(0o755)  # as the hostPath is: the sidecar isn't root
        yield target


def uid(pod: dict[str, Any]) -> str:
    return str(pod["metadata"]["uid"])


async def told(pod: dict[str, Any] | None, socket: str, **options: Any) -> dict[str, Any]:
    """Run a workload in a pod until it was told something else than to come again."""
    if pod is None:
        return await asyncio.to_thread(pod_workload.run, None, socket, **options)
    with pod_workload.group(uid(pod)) as group:
        return await asyncio.to_thread(pod_workload.run, group, socket, **options)


@contextlib.asynccontextmanager
async def as_agent(up: Citadel, node: str = NODE) -> AsyncIterator[agents_pb2_grpc.AgentsStub]:
    """Speak to citadel as the agent of a node."""
    async with (
        up.identity(f"citadel-agent/node/{node}") as identity,
        Channel(up.address, identity, peer=part_id(DOMAIN, "citadel")) as channel,
    ):
        yield agents_pb2_grpc.AgentsStub(channel)


async def known(up: Citadel, *ids: str, node: str = NODE) -> None:
    """Wait until an agent of the node hears of exactly these identities."""
    async with as_agent(up, node) as stub:
        call = stub.WatchRegistrations(agents_pb2.WatchRegistrationsRequest())
        have: dict[str, str] = {}
        async with asyncio.timeout(10):
            while sorted(have.values()) != sorted(ids):
                update = await call.read()
                have = {} if update.reset else have
                have.update({each.id: each.spiffe_id for each in update.changed})
                for gone in update.removed:
                    have.pop(gone)
        call.cancel()


async def until_told(pod: dict[str, Any], socket: str, wanted: list[str], **options: Any) -> dict[str, Any]:
    """Ask as SPIRE's clients do, until there is an identity."""
    async with asyncio.timeout(40):
        while True:
            answer = await told(pod, socket, **options)
            if answer.get("ids") == wanted:
                return answer
            assert answer.get("refused") == "no identity issued", answer


async def test_a_pods_process_gets_the_identity_of_its_account(
    server: kube_api.KubeApi, up: Citadel, socket: str
) -> None:
    """Nothing was registered; a process of the same machine outside of the pod gets nothing."""
    web = server.pod("shop", "web-1", NODE, "web")
    await known(up, WEB)
    answer = await until_told(web, socket, [WEB])
    assert answer["uid"] == 0
    assert (await told(None, socket))["refused"] == "no identity issued"


async def test_a_sidecar_in_namespaces_of_its_own_is_seen_by_the_host(
    server: kube_api.KubeApi, up: Citadel, socket: str
) -> None:
    """Another user (1337), process 1 of its own process namespace: the kernel tells the agent in the host's terms."""
    web = server.pod("shop", "web-1", NODE, "web")
    await known(up, WEB)
    answer = await until_told(web, socket, [WEB], namespaces=True)
    assert (answer["pid"], answer["uid"]) == (1, pod_workload.SIDECAR)


async def test_a_user_namespace_makes_nobody_root(server: kube_api.KubeApi, up: Citadel, socket: str) -> None:
    """Root in its own eyes is whom the host knows, for registrations by user too."""
    web = server.pod("shop", "web-1", NODE, "web")
    for user in (0, pod_workload.SIDECAR):
        of_pod = [("k8s:ns", "shop"), ("unix:uid", str(user))]
        await up.register(f"spiffe://{DOMAIN}/user-{user}", selectors=of_pod)
    await known(up, WEB, f"spiffe://{DOMAIN}/user-0", f"spiffe://{DOMAIN}/user-1337")
    wanted = [f"spiffe://{DOMAIN}/user-1337", WEB]
    answer = await until_told(web, socket, wanted, namespaces=True, user_namespace=True)
    assert (answer["pid"], answer["uid"]) == (1, 0)


async def test_pods_of_the_mesh_only(server: kube_api.KubeApi, up: Citadel) -> None:
    """Not those without the label, not yet scheduled, already ended, of the platform itself, or mirrors of files."""
    server.pod("shop", "web-1", NODE, "web")
    server.pod("shop", "unlabelled", NODE, "a", labels={})
    server.pod("shop", "unscheduled", "", "b")
    server.pod("meshwright-system", "intruder", NODE, "manager")
    server.put(
        "/api/v1/namespaces/shop/pods/mirror",
        metadata={
            "labels": {"meshwright.io/mesh": "enabled"},
            "annotations": {"kubernetes.io/config.mirror": "x"},
        },
        spec={"nodeName": NODE, "serviceAccountName": "c"},
    )
    job = server.pod("shop", "job", NODE, "job")
    await known(up, WEB, f"spiffe://{DOMAIN}/ns/shop/sa/job")
    server.put("/api/v1/namespaces/shop/pods/job", metadata=job["metadata"], status={"phase": "Succeeded"})
    await known(up, WEB)
    server.remove("/api/v1/namespaces/shop/pods/web-1")
    await known(up)


async def test_an_agent_gets_nothing_of_another_node(server: kube_api.KubeApi, up: Citadel) -> None:
    """Whatever it asks for: a pod of another node, or a registration that no pod of its node fits."""
    mine, other = server.pod("shop", "web-1", NODE, "web"), server.pod("shop", "bank", "node-2", "bank")
    template = await up.register(f"spiffe://{DOMAIN}/admin", selectors=[("k8s:sa", "admin")], node=NODE)
    await known(up, WEB)
    await known(up, f"spiffe://{DOMAIN}/ns/shop/sa/bank", node="node-2")
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    key = ec.generate_private_key(ec.SECP256R1())
    csr = request.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
    async with as_agent(up) as stub:

        async def sign(registration_id: str) -> Any:
            message = agents_pb2.SignWorkloadRequest(registration_id=registration_id, csr=csr)
            return await stub.SignWorkload(message, timeout=10)

        await sign(f"pod.{uid(mine)}")
        for foreign in (f"pod.{uid(other)}", template, f"pod.{uid(mine)}.{template}"):
            with pytest.raises(grpc.RpcError) as caught:
                await sign(foreign)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND, foreign


async def test_a_registration_for_pods_comes_before_what_every_pod_has(
    server: kube_api.KubeApi, up: Citadel, socket: str
) -> None:
    """By labels, for pods of today and of tomorrow, until it is removed; a `unix:` selector holds beside them."""
    canary = f"spiffe://{DOMAIN}/canary"
    labels = {"meshwright.io/mesh": "enabled", "app.kubernetes.io/version": "v2"}
    await up.register(
        canary,
        selectors=[
            ("k8s:ns", "shop"),
            ("k8s:sa", "web"),
            ("k8s:pod-label", "app.kubernetes.io/version:v2"),
            ("unix:uid", "0"),
        ],
    )
    registered = await up.register(f"{canary}-any", selectors=[("k8s:pod-name", "web-2")])
    server.pod("shop", "web-1", NODE, "web")
    second = server.pod("shop", "web-2", NODE, "web", labels=labels)
    await known(up, WEB, WEB, canary, f"{canary}-any")
    await until_told(second, socket, [canary, f"{canary}-any", WEB])
    answer = await told(second, socket, namespaces=True)  # not user 0
    assert answer["ids"] == [f"{canary}-any", WEB]
    await up.unregister(registered)
    await known(up, WEB, WEB, canary)


async def test_ids_of_pods_cant_be_registered(up: Citadel) -> None:
    from meshwright.api.citadel.v1 import admin_pb2, registration_pb2

    registration = registration_pb2.Registration(
        id="pod.x", spiffe_id=WEB, selectors=[registration_pb2.Selector(type="unix:uid", value="0")]
    )
    with pytest.raises(grpc.RpcError, match="those of pods"):
        await up.admin.Register(admin_pb2.RegisterRequest(registration=registration))


async def test_with_the_api_server_away_identities_serve_on(server: kube_api.KubeApi, up: Citadel, socket: str) -> None:
    """Also of an agent that starts anew meanwhile: citadel tells it what it knew last."""
    web = server.pod("shop", "web-1", NODE, "web")
    await known(up, WEB)
    await until_told(web, socket, [WEB])
    server.down = True
    server.break_watches()
    await until_told(web, socket, [WEB])
    async with as_agent(up) as stub:
        call = stub.WatchRegistrations(agents_pb2.WatchRegistrationsRequest())
        assert [each.spiffe_id for each in (await call.read()).changed] == [WEB]
        call.cancel()


async def test_nobody_is_told_half_of_what_there_is(server: kube_api.KubeApi, short_tmp: Path) -> None:
    """A set without the pods would cost agents the keys of all their pods."""
    server.down = True
    api = await _opened(server)
    registry = Registry(store.MemoryStore())
    made = Pods(api, registry, DOMAIN, 60.0, SystemClock())
    health = Health()
    tasks = [asyncio.create_task(registry.run(health)), asyncio.create_task(made.run(health))]
    try:
        async with asyncio.timeout(10):
            async for conditions in health.changes():
                if "pods" in conditions and "registrations" in conditions:
                    break
        waiting = asyncio.create_task(registry.whole())
        await asyncio.sleep(0)
        assert not waiting.done()
        server.down = False
        await asyncio.wait_for(waiting, 30)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await api.__aexit__(None, None, None)


async def test_after_a_long_silence_nothing_more_is_signed(server: kube_api.KubeApi) -> None:
    """What is registered otherwise is signed for."""
    clock = ManualClock()
    registry = Registry(store.MemoryStore())
    api = await _opened(server)
    made = Pods(api, registry, DOMAIN, 60.0, clock)
    of_pod = Registration("pod.x", WEB, (Selector("k8s:pod-uid", "x"),))
    registry.check_fresh(of_pod)
    await clock.advance(timedelta(seconds=61).total_seconds())
    with pytest.raises(errors.Unavailable, match=r"last heard of 61 s ago.*--pods-max-silence-seconds is 60"):
        registry.check_fresh(of_pod)
    registry.check_fresh(Registration("web", WEB, (Selector("unix:uid", "0"),)))
    made._hear()
    registry.check_fresh(of_pod)
    await api.__aexit__(None, None, None)


@pytest.mark.parametrize(
    "item",
    [
        {},
        {"metadata": None, "spec": None},
        {"metadata": {"uid": "x"}, "spec": {"nodeName": NODE}},
        {"metadata": {"uid": "a" * 36}, "spec": {}},
    ],
)
def test_what_is_no_running_pod_isnt_taken_for_one(item: dict[str, Any]) -> None:
    assert read(item) is None


async def _opened(server: kube_api.KubeApi) -> Api:
    return await Api(server.cluster()).__aenter__()
