"""Injected pods without a cluster: real namespaces, real rules, real Envoys, and a real manager's discovery."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from envoys import Mixer, eventually, serving
from meshes import World
from prometheus_client.parser import text_string_to_metric_families
from sidecar_pods import APPLICATION, ECHO, Pod, application, call, kubelet, pods, redirect, sidecar, stranger, talk

from meshwright.api.envoy.service.accesslog.v3 import als_pb2_grpc
from meshwright.api.envoy.service.auth.v3 import external_auth_pb2_grpc
from meshwright.core.grpc import introspection
from meshwright.core.health import Health
from meshwright.manager.xds import names
from meshwright.manager.xds.hub import Hub
from meshwright.manager.xds.server import DiscoveryServer
from meshwright.manager.xds.snapshot import Snapshot
from pki import Pki

MESH = """
apiVersion: v1
kind: Service
metadata: {name: catalog}
spec:
  selector: {app: catalog}
  clusterIPs: [10.96.0.10, "fd00:96::10"]
  ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp-echo, port: 9000}]
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: shop-0, annotations: {meshwright.io/injected: redirect}}
spec: {address: 10.213.7.2, labels: {app: shop}, serviceAccount: shop}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: catalog-0, annotations: {meshwright.io/injected: redirect}}
spec: {address: 10.213.7.3, labels: {app: catalog}, serviceAccount: catalog}
"""

PROBES = ("--probe", "app/readyz=http://:8080/ready?deep=1", "--probe", "app/livez=tcp://:9000", "--probe",
          "app/startup=tcp://:9999")  # fmt: skip


class Mesh:
    """Two pods with their sidecars, and what the test changes."""

    def __init__(self, shop: Pod, catalog: Pod, hub: Hub, world: World, mixer: Mixer) -> None:
        self.shop, self.catalog, self.hub, self.world, self.mixer = shop, catalog, hub, world, mixer
        self.sidecars: dict[str, asyncio.subprocess.Process] = {}

    async def publish(self, parameters: names.Parameters | None = None, text: str = "") -> None:
        """Apply `text`, or new settings, and wait until both proxies have acknowledged."""
        snapshot = self.world.apply(text)
        if parameters:
            snapshot = Snapshot(self.world.mesh, parameters)
            snapshot.serial = (self.hub.latest.serial if self.hub.latest else 0) + 1
        self.hub.publish(snapshot)
        await self.settled()

    async def settled(self) -> None:
        """Wait until both proxies have acknowledged the newest revision."""
        revision = self.world.mesh.revision

        def both() -> bool:
            connections = self.hub.connections()
            return len(connections) == 2 and all(c.subscription.acknowledged_revision == revision for c in connections)

        await eventually(both, f"both proxies at revision {revision}: {self.complaints()}")

    def complaints(self) -> list[str]:
        """What proxies refused."""
        states = [state for c in self.hub.connections() for state in c.subscription.types.values()]
        return [state.error for state in states if state.error]


@contextlib.asynccontextmanager
async def mesh(pki: Pki, folder: Path, *, options: tuple[str, ...] = ()) -> AsyncIterator[Mesh]:
    folder.chmod(0o755)
    hub, world, mixer = Hub(), World(MESH), Mixer()
    hub.publish(world.snapshot)
    with pods("shop-0", "catalog-0") as (shop, catalog):
        async with contextlib.AsyncExitStack() as stack:
            manager = await stack.enter_async_context(
                serving(f"{shop.node}:0", pki.part("manager"), DiscoveryServer(hub, "mesh.local").add_to)
            )
            address = await stack.enter_async_context(
                serving(
                    f"{shop.node}:0",
                    pki.part("mixer"),
                    lambda server: external_auth_pb2_grpc.add_AuthorizationServicer_to_server(mixer, server),
                    lambda server: als_pb2_grpc.add_AccessLogServiceServicer_to_server(mixer, server),
                    lambda server: introspection.add_to_server(server, Health()),
                )
            )
            made = Mesh(shop, catalog, hub, world, mixer)
            for pod, account, excluded, asked in ((shop, "shop", options, ()), (catalog, "catalog", (), PROBES)):
                redirect(pod, *excluded)
                redirect(pod, *excluded)  # as after a restart of the node
                made.sidecars[pod.name] = await stack.enter_async_context(
                    sidecar(pod, folder / account, pki.workload(account), manager=manager, mixer=address, options=asked)
                )
            await stack.enter_async_context(application(catalog, APPLICATION, "catalog", "8080"))
            await stack.enter_async_context(application(catalog, ECHO, "9000"))
            await made.settled()
            yield made


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the proxy's user can enter, whose name leaves room for a socket's path."""
    folder = tmp_path_factory.mktemp("s")
    for parent in folder.parents[:2]:
        parent.chmod(0o755)
    return folder


async def test_a_call_by_a_services_address_passes_both_proxies_policy_and_report(pki: Pki, short: Path) -> None:
    """IPv4 and IPv6, whatever host is named; the application sees who called, and mixer decides."""
    async with mesh(pki, short) as made:
        for host, header in (("10.96.0.10", "catalog"), ("10.96.0.10", "any.example"), ("fd00:96::10", "")):
            status, body = await call(made.shop, host, 80, "/items", header)
            assert status == 200, (body, made.complaints())
            assert body.startswith("catalog /items from ::ffff:127.0.0.6 ")
            assert "URI=spiffe://mesh.local/ns/default/sa/shop" in body
        check = made.mixer.checks[0]
        assert check.source.principal == "spiffe://mesh.local/ns/default/sa/shop"
        assert check.context_extensions["destination.service.host"] == "catalog.default.svc.cluster.local"
        assert check.context_extensions["destination.workload.name"] == "catalog-0"
        await eventually(lambda: len(made.mixer.entries) == 3, "three reports")
        for code in (403, 429):
            made.mixer.status = code
            assert await call(made.shop, "10.96.0.10", 80, "/", "catalog") == (code, "denied by a rule")


async def test_plain_text_is_kept_out_and_probes_come_in(pki: Pki, short: Path) -> None:
    """Only mutual TLS reaches a service's port; of the rest only what the pod's own probes name."""
    async with mesh(pki, short) as made:
        assert (await kubelet(made.catalog, "/", 8080))[0] == 0
        assert (await call(made.shop, made.catalog.address, 8080))[0] == 0
        assert (await kubelet(made.catalog, "/secret", 15006))[0] == 0
        assert (await kubelet(made.catalog, "/", 15001))[0] == 0
        status, body = await kubelet(made.catalog, "/probe/app/readyz")
        assert (status, body.split(" from ")[0]) == (200, "catalog /ready?deep=1")
        assert not made.mixer.checks, "a probe is no request of the mesh"
        assert (await kubelet(made.catalog, "/probe/app/livez"))[0] == 200
        assert (await kubelet(made.catalog, "/probe/app/startup"))[0] == 503
        assert (await kubelet(made.catalog, "/probe/app/other"))[0] == 404
        families = list(text_string_to_metric_families((await kubelet(made.catalog, "/metrics"))[1]))
        assert any(family.name.startswith("envoy_cluster") for family in families)
        await made.publish(names.Parameters(inbound_plaintext=True))
        status, body = await kubelet(made.catalog, "/open", 8080)
        assert (status, "by nobody" in body) == (200, True)


async def test_tcp_and_unknown_destinations(pki: Pki, short: Path) -> None:
    """Bytes of any protocol reach a service by mutual TLS, other addresses as they are unless the mesh forbids it."""
    async with mesh(pki, short) as made, application(made.catalog, ECHO, "7000"):
        assert await talk(made.shop, "10.96.0.10", 9000) == "hello from 127.0.0.6: ABC"
        async with stranger(made.shop.node) as port:
            assert await talk(made.shop, made.shop.node, port) == f"hello from {made.shop.kubelet}: ABC"
            await made.publish(names.Parameters(outbound_unknown=False))
            assert await talk(made.shop, made.shop.node, port) == ""


async def test_a_pod_calls_itself(pki: Pki, short: Path) -> None:
    """By its service through both sides of its proxy, by its own address without."""
    async with mesh(pki, short) as made:
        status, body = await call(made.catalog, "10.96.0.10", 80)
        assert (status, "URI=spiffe://mesh.local/ns/default/sa/catalog" in body) == (200, True)
        status, body = await call(made.catalog, made.catalog.address, 8080)
        assert (status, "by nobody" in body) == (200, True)
        assert (await call(made.catalog, "127.0.0.1", 8080))[0] == 200


async def test_a_sidecar_drains_and_ends_clean(pki: Pki, short: Path) -> None:
    """SIGTERM: a request under way is answered, then it and its Envoy end with status 0."""
    async with mesh(pki, short) as made:
        folder = short / "signs"
        folder.mkdir()
        folder.chmod(0o777)
        asked = asyncio.create_task(call(made.shop, "10.96.0.10", 80, f"/until{folder}"))
        await eventually((folder / "asked").exists, "the request at the application")
        running = made.sidecars["catalog-0"]
        running.terminate()

        async def draining() -> bool:
            return (await kubelet(made.catalog, "/readyz"))[0] == 503

        await eventually(draining, "draining")
        (folder / "go").touch()
        assert (await asked)[0] == 200
        assert await asyncio.wait_for(running.wait(), 15) == 0
        assert (await kubelet(made.catalog, "/healthz"))[0] == 0
        assert (await call(made.shop, "10.96.0.10", 80))[0] == 503


async def test_excluded_connections_pass_by_the_proxy(pki: Pki, short: Path) -> None:
    """Ports and ranges that a pod excludes are the application's own business."""
    options = ("--exclude-outbound-ranges", "10.214.0.0/16", "--exclude-inbound-ports", "7000")
    async with mesh(pki, short, options=options) as made, stranger(made.shop.node) as port:
        await made.publish(names.Parameters(outbound_unknown=False))
        assert await talk(made.shop, made.shop.node, port) == f"hello from {made.shop.kubelet}: ABC"
        async with application(made.shop, APPLICATION, "shop", "7000"):
            assert (await kubelet(made.shop, "/", 7000))[0] == 200


TARGET = """
apiVersion: access.smi-spec.io/v1alpha4
kind: TrafficTarget
metadata: {name: catalog}
spec:
  destination: {kind: ServiceAccount, name: catalog}
  sources: [{kind: IdentityBinding, name: callers}]
  rules: [{kind: TCPRoute, name: ports}]
---
apiVersion: access.smi-spec.io/v1alpha4
kind: IdentityBinding
metadata: {name: callers}
spec: {schemes: {podLabelSelector: {matchLabels: {app: LABEL}}}}
---
apiVersion: specs.smi-spec.io/v1alpha4
kind: TCPRoute
metadata: {name: ports}
spec: {matches: {ports: [PORT]}}
"""


async def test_grants_let_connections_in_by_port_and_caller(pki: Pki, short: Path) -> None:
    """A request that none covers is answered with 403, a connection that isn't HTTP is closed."""
    async with mesh(pki, short) as made:

        async def answers() -> tuple[str, int]:
            spoken = await talk(made.shop, "10.96.0.10", 9000)
            return spoken.partition(":")[0], (await call(made.shop, "10.96.0.10", 80, "/", "catalog"))[0]

        async def become(label: str, port: int, expected: tuple[str, int]) -> None:
            await made.publish(text=TARGET.replace("LABEL", label).replace("PORT", str(port)))

            async def as_expected() -> bool:
                return await answers() == expected

            await eventually(as_expected, f"{expected} for {label} at {port}")

        greeting = "hello from 127.0.0.6"
        assert await answers() == (greeting, 200)
        await become("shop", 9000, (greeting, 403))
        await become("shop", 8080, ("", 200))
        await become("nobody", 9000, ("", 403))


async def test_connections_are_split_as_requests_are(pki: Pki, short: Path) -> None:
    """A root service of TCP, whose backend answers at the port of the same number."""
    feed = """
apiVersion: v1
kind: Service
metadata: {name: feed}
spec: {clusterIPs: [10.96.0.11], ports: [{name: tcp-feed, port: 9000}]}
"""
    split = """
apiVersion: split.smi-spec.io/v1alpha1
kind: TrafficSplit
metadata: {name: feed}
spec: {service: feed, backends: [{service: catalog, weight: 500m}]}
"""
    async with mesh(pki, short) as made:
        await made.publish(text=feed)
        assert await talk(made.shop, "10.96.0.11", 9000) == ""
        await made.publish(text=split)

        async def answered() -> bool:
            return await talk(made.shop, "10.96.0.11", 9000) == "hello from 127.0.0.6: ABC"

        await eventually(answered, "an answer of the backend")
