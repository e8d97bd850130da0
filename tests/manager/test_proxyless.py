"""gRPC's own xDS client in the mesh: it resolves a service's name through our manager and calls its workloads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections import Counter
from typing import Any

from envoys import eventually, serving
from meshes import World
from test_xds_alone import backend

from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DiscoveryResponse
from meshwright.manager.xds import names, types
from meshwright.manager.xds.hub import Hub
from meshwright.manager.xds.proxyless import ProxylessView
from meshwright.manager.xds.server import DiscoveryServer

NODE = "grpc~127.0.0.1~till-0.shop~shop.svc.cluster.local"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: %s, namespace: shop}
spec: {selector: {app: catalog%s}, ports: [{name: grpc, port: 80}]}
---
"""
ENTRY = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: catalog-%s, namespace: shop}
spec: {address: 127.0.0.1, ports: {grpc: %d}, labels: {app: catalog, version: %s}, serviceAccount: catalog}
---
"""
TILL = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: till-0, namespace: shop}
spec: {address: 127.0.0.1, labels: {app: till}, serviceAccount: till}
"""
SPLIT = """
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: catalog, namespace: shop}
spec:
  service: catalog
  backends: [{service: catalog-v1, weight: %d}, {service: catalog-v2, weight: %d}]
"""
ASK = """
import sys, grpc
with grpc.insecure_channel("xds:///catalog.shop:80") as channel:
    call = channel.unary_unary("/test.Echo/Name")
    for line in sys.stdin:
        print(*(call(b"", timeout=60, wait_for_ready=True).decode() for _ in range(int(line))), flush=True)
"""


def mesh(one: int = 1, two: int = 2) -> str:
    services = "".join(
        SERVICE % (f"catalog{name}", label)
        for name, label in (("", ""), ("-v1", ", version: v1"), ("-v2", ", version: v2"))
    )
    return services + ENTRY % ("v1", one, "v1") + ENTRY % ("v2", two, "v2") + TILL


async def test_grpcs_client_calls_a_service_of_the_mesh_by_weights() -> None:
    async with contextlib.AsyncExitStack() as stack:
        one, two = [await stack.enter_async_context(backend(name)) for name in ("one", "two")]
        world, hub = World(mesh(one, two)), Hub()
        hub.publish(world.apply(SPLIT % (90, 10)))
        address = await stack.enter_async_context(
            serving("127.0.0.1:0", None, DiscoveryServer(hub, "mesh.local").add_to)
        )
        configuration = {
            "xds_servers": [{"server_uri": address, "channel_creds": [{"type": "insecure"}]}],
            "node": {"id": NODE},
        }
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ASK),
            env={"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(configuration), "PATH": ""},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None

        async def ask(count: int) -> Counter[str]:
            process.stdin.write(b"%d\n" % count)
            async with asyncio.timeout(120):
                return Counter((await process.stdout.readline()).decode().split())

        def acknowledged() -> bool:
            return all(one.subscription.acknowledged_revision == world.mesh.revision for one in hub.connections())

        try:
            found = await ask(300)
            assert found["one"] + found["two"] == 300
            assert 210 <= found["one"] < 300, "nine of ten"
            hub.publish(world.apply(SPLIT % (0, 1)))
            await eventually(acknowledged, "the client took the new weights")

            async def moved() -> bool:
                return await ask(20) == {"two": 20}

            await eventually(moved, "all calls go to the second")
            errors = {state.error for one in hub.connections() for state in one.subscription.types.values()}
            assert errors == {""}
        finally:
            process.stdin.close()
            await process.wait()


def view(world: World, provider: str = "") -> ProxylessView:
    found = world.snapshot.everything("shop", "till-0")
    assert found is not None
    return ProxylessView(found, provider)


def message(resource: Any, into: Any) -> Any:
    into.MergeFromString(DiscoveryResponse.FromString(resource.body).resources[0].value)
    return into


def test_a_split_changes_one_route_configuration_and_no_other() -> None:
    world = World(mesh())
    before = view(world)
    world.apply(SPLIT % (1, 1))
    after = view(world)
    name = "catalog.shop.svc.cluster.local:80"
    assert before.find(types.ROUTE, name) != after.find(types.ROUTE, name)
    other = name.replace("catalog", "catalog-v1")
    assert before.find(types.ROUTE, other) == after.find(types.ROUTE, other)
    for domain in ("catalog:80", "catalog.shop:80", "catalog.shop", name):
        assert before.find(types.LISTENER, domain) is after.find(types.LISTENER, domain)
    assert after.find(types.LISTENER, "nobody:80") is None


def test_transport_security_is_for_who_has_certificates() -> None:
    """It is checked whom the client speaks to (gRFC A29); another provider's name would be refused."""
    world = World(mesh(), names.Parameters(outbound_plaintext=False))
    name = "outbound|80||catalog.shop.svc.cluster.local"
    plain, secure = (message(view(world, one).find(types.CLUSTER, name), Cluster()) for one in ("", "mesh"))
    assert not plain.HasField("transport_socket")
    tls = UpstreamTlsContext.FromString(secure.transport_socket.typed_config.value).common_tls_context
    assert tls.tls_certificate_provider_instance.instance_name == "mesh"
    validation = tls.combined_validation_context.default_validation_context
    assert validation.ca_certificate_provider_instance.instance_name == "mesh"
    assert [one.exact for one in validation.match_subject_alt_names] == ["spiffe://mesh.local/ns/shop/sa/catalog"]
