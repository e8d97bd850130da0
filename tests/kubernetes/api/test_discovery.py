"""The manager over a real API server: services and pods reach proxies, custom resources come into force and say so.

Out of scope: real pods and Envoys (the cluster's tests beside this folder), the mapping of single objects
(tests/manager/test_landscape.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from api_server import ApiServer
from cluster_objects import endpoint, pod, service, slice_
from managers import client, objects, running
from proxies import Proxy, eventually, following

from meshwright.core import store
from meshwright.core.store import MemoryStore
from meshwright.manager.election import KEY
from meshwright.manager.errors import Refused
from pki import Pki

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.timeout(1800),  # the first one may build Kubernetes
]

SERVICE = "{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 1}]}}"
CANARY = {
    "apiVersion": "split.smi-spec.io/v1alpha4",
    "kind": "TrafficSplit",
    "metadata": {"name": "canary"},
    "spec": {
        "service": "catalog",
        "backends": [{"service": "catalog-v1", "weight": 90}, {"service": "catalog-v2", "weight": 10}],
    },
}


def split(name: str, namespace: str, *weights: int, root: str = "catalog") -> dict[str, Any]:
    backends = [{"service": f"catalog-v{n}", "weight": weight} for n, weight in enumerate(weights, start=1)]
    return {
        **CANARY,
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"service": root, "backends": backends},
    }


class Shop:
    """A namespace with a service in two versions, its callers' pod, and a manager that follows it all."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self.server, self.namespace = server, namespace

    async def make(self) -> None:
        at = {"namespace": self.namespace}
        ports = [{"name": "http", "port": 80, "targetPort": "web"}]
        free = {"clusterIP": None, "clusterIPs": None}  # the API server gives them
        await self.server.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}},
            service("catalog", {"app": "catalog"}, ports, **at, **free),
            service("catalog-v1", {"version": "v1"}, ports, **at, **free),
            service("catalog-v2", {"version": "v2"}, ports, **at, **free),
            pod("web-0", "10.1.0.9", {"app": "web"}, account="web", **at),
            pod("catalog-v1-0", "10.1.0.1", {"app": "catalog", "version": "v1"}, **at),
            pod("catalog-v2-0", "10.1.0.2", {"app": "catalog", "version": "v2"}, injected=False, **at),
            slice_("catalog-v1-a", "catalog-v1", [endpoint("10.1.0.1", "catalog-v1-0", "north")], **at),
            slice_("catalog-v2-a", "catalog-v2", [endpoint("10.1.0.2", "catalog-v2-0")], **at),
        )

    def name(self, service: str) -> str:
        return f"{service}.{self.namespace}"

    async def conditions(self, name: str, kind: str = "trafficsplit") -> dict[str, tuple[str, str, str]]:
        found = await self.server.get("-n", self.namespace, kind, name)
        generation = found["metadata"]["generation"]
        return {
            each["type"]: (each["status"], each["reason"], each["message"])
            for each in found.get("status", {}).get("conditions", ())
            if each["observedGeneration"] == generation
        }

    async def until(self, name: str, condition: str, *wanted: str, kind: str = "trafficsplit") -> str:
        """Wait until a condition has a status and reason; return its message."""

        async def there() -> bool:
            return (await self.conditions(name, kind)).get(condition, ())[:2] == wanted

        await eventually(there, f"{condition} of {name} is {wanted}")
        return (await self.conditions(name, kind))[condition][2]


@pytest.fixture
async def shop(server: ApiServer, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    made = Shop(server, f"shop-{abs(hash(request.node.name)) % 10**6}")
    await made.make()
    yield made
    # No controller empties a namespace here: what a test made must not reach the next one's manager.
    await server.kubectl("delete", "-n", made.namespace, "trafficsplits,rules,handlers,instances", "--all")
    await server.kubectl("delete", "-n", made.namespace, "services,endpointslices", "--all")
    await server.kubectl("delete", "-n", made.namespace, "pods", "--all", "--force", "--grace-period=0")


@contextlib.asynccontextmanager
async def journey(shop: Shop, pki: Pki, folder: Path, **settings: Any) -> AsyncIterator[tuple[str, Proxy]]:
    """Run a manager and the proxy of web-0."""
    async with (
        running(pki, folder, kubernetes="on", kubeconfig=shop.server.kubeconfig, **settings) as manager,
        following(pki.workload("web", shop.namespace), manager, shop.namespace, "web-0") as proxy,
    ):
        yield manager, proxy


async def test_services_and_pods_of_the_cluster_are_what_proxies_get(shop: Shop, pki: Pki, tmp_path: Path) -> None:
    async with journey(shop, pki, tmp_path) as (_, proxy):
        first = {("10.1.0.1", 8080, "north", False)}
        await eventually(lambda: proxy.endpoints(shop.name("catalog-v1")) == first, "endpoints of v1")
        plain = {("10.1.0.2", 8080, "", True)}
        await eventually(lambda: proxy.endpoints(shop.name("catalog-v2")) == plain, "a pod without a proxy is marked")

        at = {"namespace": shop.namespace}
        await eventually(lambda: proxy.weights(shop.name("catalog")), "routes")
        before = proxy.responses
        await shop.server.apply(
            pod("catalog-v1-1", "10.1.0.3", {"app": "catalog", "version": "v1"}, **at),
            slice_("catalog-v1-b", "catalog-v1", [endpoint("10.1.0.3", "catalog-v1-1")], **at),
        )
        both = first | {("10.1.0.3", 8080, "", False)}
        await eventually(lambda: proxy.endpoints(shop.name("catalog-v1")) == both, "a new pod")
        assert proxy.responses - before <= 2, "a new endpoint costs its service's endpoints, not everything"
        assert list(proxy.last.values()).count([f"outbound|80||{shop.name('catalog-v1')}.svc.cluster.local"]) == 1

        await shop.server.kubectl("delete", "-n", shop.namespace, "endpointslice", "catalog-v1-a")
        rest = both - first
        await eventually(lambda: proxy.endpoints(shop.name("catalog-v1")) == rest, "a slice that is gone")


async def test_a_pod_without_a_proxy_can_be_left_out(shop: Shop, pki: Pki, tmp_path: Path) -> None:
    async with journey(shop, pki, tmp_path, outbound_plaintext=False) as (_, proxy):
        await eventually(lambda: proxy.endpoints(shop.name("catalog-v1")), "endpoints of v1")
        assert proxy.endpoints(shop.name("catalog-v2")) == set()
        at = {"namespace": shop.namespace}
        await shop.server.apply(
            service("elsewhere", None, [{"name": "http", "port": 80}], **at, clusterIP=None, clusterIPs=None),
            slice_("elsewhere-a", "elsewhere", [endpoint("192.0.2.9")], **at),
        )
        outside = {("192.0.2.9", 8080, "", True)}
        await eventually(lambda: proxy.endpoints(shop.name("elsewhere")) == outside, "an address that is no pod's")


async def test_a_split_changes_what_proxies_get_and_its_status_says_so(shop: Shop, pki: Pki, tmp_path: Path) -> None:
    async with journey(shop, pki, tmp_path) as (manager, proxy):
        await eventually(lambda: proxy.weights(shop.name("catalog")) == {"catalog": 100}, "routes without a split")
        await shop.server.apply(split("canary", shop.namespace, 90, 10))
        wanted = {"catalog-v1": 90, "catalog-v2": 10}
        await eventually(lambda: proxy.weights(shop.name("catalog")) == wanted, "the split's weights")
        assert await shop.until("canary", "Accepted", "True", "Accepted")
        assert await shop.until("canary", "ResolvedRefs", "True", "ResolvedRefs")
        message = await shop.until("canary", "Programmed", "True", "Programmed")
        assert message == "acknowledged by 1 of 1 proxies"

        await shop.server.apply(split("canary", shop.namespace, 50, 50, 10))
        message = await shop.until("canary", "ResolvedRefs", "False", "RefNotFound")
        assert "service catalog-v3 doesn't exist" in message
        await eventually(lambda: len(proxy.weights(shop.name("catalog"))) == 3, "the newer weights")
        await shop.until("canary", "Programmed", "True", "Programmed")

        async with client(pki, manager) as admin:
            with pytest.raises(Refused, match="kubectl apply"):
                await admin.apply(
                    objects("{apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 1}]}}")
                )
            [stored], _ = await admin.list("TrafficSplit")
            with pytest.raises(Refused, match="kubectl delete"):
                await admin.delete([stored.key])

        await shop.server.kubectl("delete", "-n", shop.namespace, "trafficsplit", "canary")
        await eventually(lambda: proxy.weights(shop.name("catalog")) == {"catalog": 100}, "no split")


async def test_a_bad_object_is_left_out_by_itself_and_told(shop: Shop, pki: Pki, tmp_path: Path) -> None:
    async with journey(shop, pki, tmp_path) as (_, proxy):
        # The definitions' schemas refuse most of what is wrong; a name in another namespace they can't judge.
        await shop.server.apply(split("stray", shop.namespace, 1, root="catalog.other"))
        await shop.server.apply(split("good", shop.namespace, 1, 3))
        message = await shop.until("stray", "Accepted", "False", "Invalid")
        assert message.startswith("spec.service: 'catalog.other' isn't a service of namespace")
        await shop.until("good", "Accepted", "True", "Accepted")
        wanted = {"catalog-v1": 1, "catalog-v2": 3}
        await eventually(lambda: proxy.weights(shop.name("catalog")) == wanted, "the good one is in force")
        assert "ResolvedRefs" not in await shop.conditions("stray")

        await shop.server.kubectl("delete", "-n", shop.namespace, "trafficsplit", "good")
        await shop.server.apply(split("stray", shop.namespace, 1, root="catalog"))
        await shop.until("stray", "Programmed", "True", "Programmed")
        assert proxy.weights(shop.name("catalog")) == {"catalog-v1": 100}
        await shop.server.apply(split("stray", shop.namespace, 1, root="catalog.other"))
        await shop.until("stray", "Accepted", "False", "Invalid")
        assert "Programmed" not in await shop.conditions("stray")
        await eventually(lambda: proxy.weights(shop.name("catalog")) == {"catalog": 100}, "it is out of force")


async def test_of_two_splits_of_one_service_the_older_one_wins(shop: Shop, pki: Pki, tmp_path: Path) -> None:
    async with journey(shop, pki, tmp_path) as (_, proxy):
        await shop.server.apply(split("zebra", shop.namespace, 1, 1))
        await shop.until("zebra", "Accepted", "True", "Accepted")
        found = await shop.server.get("-n", shop.namespace, "trafficsplit", "zebra")
        created = found["metadata"]["creationTimestamp"]

        def later() -> bool:  # of two in the same second the first by name would be the older one
            return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") > created

        await eventually(later, "the next second")
        await shop.server.apply(split("ant", shop.namespace, 7, 3))
        message = await shop.until("ant", "Accepted", "False", "Conflicted")
        assert message == "spec.service: service catalog is already split by zebra, which is older"
        assert proxy.weights(shop.name("catalog")) == {"catalog-v1": 1, "catalog-v2": 1}
        await shop.server.kubectl("delete", "-n", shop.namespace, "trafficsplit", "zebra")
        await shop.until("ant", "Accepted", "True", "Accepted")
        await eventually(lambda: proxy.weights(shop.name("catalog")) == {"catalog-v1": 7, "catalog-v2": 3}, "its turn")


async def test_rules_wait_for_mixer_and_say_so(shop: Shop, pki: Pki, tmp_path: Path) -> None:
    async with journey(shop, pki, tmp_path) as _:
        handler = {
            "apiVersion": "config.istio.io/v1alpha2",
            "kind": "handler",
            "metadata": {"name": "deny", "namespace": shop.namespace},
            "spec": {"compiledAdapter": "denier", "params": {}},
        }
        await shop.server.apply(handler, split("canary", shop.namespace, 1, 1))
        message = await shop.until("deny", "Accepted", "Unknown", "Pending", kind="handler")
        assert "mixer, which owns these kinds, can't be asked" in message
        await shop.until("canary", "Accepted", "True", "Accepted")


async def test_what_happened_while_the_api_server_was_dead_is_made_up_for(shop: Shop, pki: Pki, tmp_path: Path) -> None:
    """Its watches die with it; meanwhile proxies keep all they have, and the manager stays ready."""
    at = {"namespace": shop.namespace}
    async with journey(shop, pki, tmp_path) as (_, proxy):
        await shop.server.apply(split("canary", shop.namespace, 1, 1))
        await shop.until("canary", "Programmed", "True", "Programmed")
        await eventually(lambda: proxy.endpoints(shop.name("catalog-v1")), "endpoints")
        before = proxy.endpoints(shop.name("catalog-v1"))
        for number in range(2):
            await shop.server.kill()
            assert proxy.endpoints(shop.name("catalog-v1")) == before
            assert proxy.weights(shop.name("catalog")) == {"catalog-v1": 1, "catalog-v2": 1 + number}
            await shop.server.start()
            await shop.server.apply(
                split("canary", shop.namespace, 1, 2 + number),
                slice_("catalog-v2-a", "catalog-v2", [endpoint(f"192.0.2.{number + 1}")], **at),
            )
            wanted = {"catalog-v1": 1, "catalog-v2": 2 + number}
            await eventually(lambda wanted=wanted: proxy.weights(shop.name("catalog")) == wanted, "its weights", 40)
            address = {(f"192.0.2.{number + 1}", 8080, "", True)}
            await eventually(
                lambda address=address: proxy.endpoints(shop.name("catalog-v2")) == address, "its endpoints", 40
            )


async def test_all_replicas_serve_and_when_the_elected_one_ends_another_writes(
    shop: Shop, pki: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = MemoryStore()  # they meet in one store, as over etcd
    monkeypatch.setattr(store, "connect", lambda _: contextlib.nullcontext(shared))
    settings: dict[str, Any] = {"kubernetes": "on", "kubeconfig": shop.server.kubeconfig}
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(contextlib.AsyncExitStack())
        await first.enter_async_context(running(pki, tmp_path, **settings))
        await eventually(lambda: shared.get(KEY), "the first is elected")
        second = await stack.enter_async_context(running(pki, tmp_path, **settings))
        proxy = await stack.enter_async_context(
            following(pki.workload("web", shop.namespace), second, shop.namespace, "web-0")
        )
        await shop.server.apply(split("canary", shop.namespace, 1, 3))
        await shop.until("canary", "Accepted", "True", "Accepted")
        wanted = {"catalog-v1": 1, "catalog-v2": 3}
        await eventually(lambda: proxy.weights(shop.name("catalog")) == wanted, "what the first wrote, by the second")

        await first.aclose()
        await shop.server.apply(split("canary", shop.namespace, 1, 4))
        wanted = {"catalog-v1": 1, "catalog-v2": 4}
        await eventually(lambda: proxy.weights(shop.name("catalog")) == wanted, "what the second wrote")
        await shop.until("canary", "Programmed", "True", "Programmed")
