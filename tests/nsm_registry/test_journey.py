"""A network service from client to endpoint in real network namespaces, each part a process (issue 3, journey 5)."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from nsm_node import PARTS, Node, until
from opentelemetry import trace

from meshwright.api.collector.v1 import collector_pb2, collector_pb2_grpc
from meshwright.core import errors, identity
from meshwright.core.clock import SystemClock
from meshwright.core.grpc import Channel
from meshwright.core.identity import StaticIdentity
from meshwright.dataplane import telemetry as native
from meshwright.nsm import descriptors, mechanism, path, wire
from meshwright.nsm.client import Attachment, Client
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.endpoint import Endpoint
from meshwright.nsm.peer import Peer
from meshwright.nsm.registry_client import RegistryClient
from meshwright.nsm.wire import Connection, NetworkServiceEndpoint, NetworkServiceRequest
from pki import Pki

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(180)]

URL = "kernel://demo-vl/nsm-1"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node for the tests that leave it as they found it."""
    node = Node(tmp_path_factory.mktemp("node"), Pki())
    try:
        node.start()
        yield node
    finally:
        node.stop()


@pytest.fixture
def own_node(tmp_path: Path, pki: Pki) -> Iterator[Node]:
    """A node for a test that kills its parts."""
    node = Node(tmp_path, pki)
    try:
        node.start()
        yield node
    finally:
        node.stop()


async def connect(client: Client, enclave, **options) -> Attachment:
    with Descriptor(enclave.open()) as namespace:
        return await client.connect(URL, namespace=namespace, **options)


def endpoint_address(attachment: Attachment) -> str:
    return attachment.endpoint_addresses[0].partition("/")[0]


async def test_a_client_gets_its_network_service(node: Node) -> None:
    """Two namespaces, passed as descriptors, become neighbours; ping flows; on close nothing is left."""
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served) as vl, node.client() as client:
        attachment = await connect(client, inside)
        assert attachment.interface == "nsm-1"
        assert await inside.interfaces() == ["lo", "nsm-1"]
        assert len(await inside.ping(endpoint_address(attachment))) == 5
        names = [segment.name.partition("-")[0] for segment in attachment.connection.path.path_segments]
        assert names == ["nsm", "nsmgr", "forwarder", "nsmgr", "demo"]
        assert len(vl.open_connections) == 1
        before = attachment.connection.context
        await attachment.request()  # a refresh changes nothing
        assert attachment.connection.context == before
        await attachment.close()
        assert await inside.interfaces() == await served.interfaces() == ["lo"]
        assert vl.open_connections == []


async def test_no_descriptor_is_left_open(node: Node) -> None:
    """Clients come, refresh and go: manager and forwarder hold as many descriptors as before."""
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served), node.client() as client:

        async def once() -> None:
            attachment = await connect(client, inside)
            for _ in range(3):
                await attachment.request()
            await attachment.close()

        await once()
        before = {part: node.open_descriptors(part) for part in ("nsmgr", "forwarder")}
        for _ in range(8):
            await once()
        assert {part: node.open_descriptors(part) for part in before} == before


@pytest.mark.parametrize("parts", [["nsmgr"], ["forwarder"], ["nsmgr", "forwarder"], ["forwarder", "nsmgr"]])
async def test_a_killed_part_loses_nothing(own_node: Node, parts: list[str]) -> None:
    """Packets flow while it is away; once it is back, the connection refreshes and closes, and nothing is left."""
    node = own_node
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served) as vl, node.client() as client:
        attachment = await connect(client, inside)
        for part in parts:
            node.kill(part)
        assert len(await inside.ping(endpoint_address(attachment))) == 5
        node.start(*parts)
        await attachment.request()
        assert len(await inside.ping(endpoint_address(attachment))) == 5
        await attachment.close()
        assert await inside.interfaces() == await served.interfaces() == ["lo"]
        await until(lambda: vl.open_connections == [], "the endpoint forgot the connection")


@pytest.mark.parametrize("part", ["nsmgr", "forwarder"])
async def test_a_connection_closes_right_after_a_kill(own_node: Node, part: str) -> None:
    """No refresh in between: the Close itself brings what the restarted part needs."""
    node = own_node
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served), node.client() as client:
        attachment = await connect(client, inside)
        node.kill(part)
        node.start(part)
        await attachment.close()
        assert await inside.interfaces() == await served.interfaces() == ["lo"]


async def test_a_node_goes_on_without_the_registry(own_node: Node) -> None:
    """New connections of this node's services are made while it is away, and after it came back empty."""
    node = own_node
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served), node.client() as client:
        attachment = await connect(client, inside)
        await attachment.close()
        node.kill("nsm-registry")
        attachment = await connect(client, inside)
        await attachment.request()
        await attachment.close()
        node.start("nsm-registry")
        async with peer(node, "nsm-client") as manager:

            async def found() -> bool:
                wanted = NetworkServiceEndpoint(network_service_names=["demo-vl"])
                return bool(await RegistryClient(manager).find_endpoints(wanted))

            await until(found, "the endpoint registered with the new registry")
        attachment = await connect(client, inside)
        await attachment.close()
        assert await inside.interfaces() == await served.interfaces() == ["lo"]


async def test_a_client_that_vanishes_is_cleaned_up(node: Node) -> None:
    """Its token's end is the connection's end, at every hop."""
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served) as vl:
        client = Client(
            "short",
            connect_to=f"unix:{node.folder}/nsmgr.sock",
            identity=StaticIdentity(node.pki.workload("nsm-client")),
            lifetime=timedelta(seconds=3),
        )
        async with client:
            await connect(client, inside)
        assert await inside.interfaces() == ["lo", "nsm-1"]

        async def gone() -> bool:
            return await inside.interfaces() == await served.interfaces() == ["lo"]

        await until(gone, "the interfaces are removed")
        await until(lambda: vl.open_connections == [], "the endpoint forgot the connection")


async def test_a_client_that_stays_is_refreshed(node: Node) -> None:
    """Longer than its first token lives, without anybody asking."""
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served):
        client = Client(
            "short",
            connect_to=f"unix:{node.folder}/nsmgr.sock",
            identity=StaticIdentity(node.pki.workload("nsm-client")),
            lifetime=timedelta(seconds=3),
        )
        async with client:
            attachment = await connect(client, inside)
            first = attachment.connection.path.path_segments[0].expires.ToDatetime()
            await until(
                lambda: (attachment.connection.path.path_segments[0].expires.ToDatetime() - first).total_seconds() > 3,
                "refreshed beyond the first token",
            )
            assert len(await inside.ping(endpoint_address(attachment))) == 5
            await attachment.close()


async def test_what_can_not_be_connected_says_why_and_leaves_nothing(node: Node) -> None:
    """An unknown service, an interface name that is taken, a namespace that wasn't passed."""
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served) as vl, node.client() as client:
        with Descriptor(inside.open()) as namespace:
            with pytest.raises(errors.NotFound, match="nobody registered the network service 'nothing'"):
                await client.connect("kernel://nothing", namespace=namespace)
            with pytest.raises(errors.MeshwrightError, match="make the pair lo"):
                await client.connect("kernel://demo-vl/lo", namespace=namespace)
        with Descriptor(served.open()) as namespace, pytest.raises(errors.ConfigError, match="same network namespace"):
            await client.connect(URL, namespace=namespace)
        assert await inside.interfaces() == await served.interfaces() == ["lo"]
        assert vl.open_connections == []


def peer(node: Node, service_account: str) -> Peer:
    return Peer(
        "nsmgr",
        f"unix:{node.folder}/nsmgr.sock",
        StaticIdentity(node.pki.workload(service_account)),
        expected=identity.part_id("mesh.local", "nsmgr"),
        lifetime=timedelta(minutes=1),
        clock=SystemClock(),
    )


async def test_only_the_forwarder_gets_namespaces(node: Node) -> None:
    """Nobody else registers as one, and nobody reaches an endpoint past it by naming hops that weren't."""
    async with node.enclave() as served, node.endpoint(served) as vl, peer(node, "thief") as thief:
        with descriptors.socket_file(f"{node.folder}/nsmgr.sock") as file:
            wanted = NetworkServiceEndpoint(name="f", network_service_names=["forwarder"], url=file.inode.url)
            with pytest.raises(errors.Forbidden, match="may not register as forwarder"):
                await RegistryClient(thief).register_endpoint(wanted, descriptors=(file,))
        connection = Connection(network_service="demo-vl", network_service_endpoint_name="demo-vl-1")
        path.start(connection, "client", "c")
        for part in ("nsmgr", "forwarder"):
            connection.path.path_segments.append(wire.PathSegment(name=node.named(part), id="x"))
        connection.path.index, connection.id = 2, "x"
        request = NetworkServiceRequest(connection=connection, mechanism_preferences=[mechanism.kernel()])
        with pytest.raises(errors.Forbidden):
            await thief.request(request, timeout=5, descriptors=[])
        assert vl.open_connections == []


async def test_another_member_neither_takes_over_nor_closes(node: Node) -> None:
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served), node.client() as client:
        attachment = await connect(client, inside)
        async with peer(node, "thief") as thief:
            with pytest.raises(errors.Forbidden, match="belongs to"):
                await thief.close(attachment.connection, timeout=5, descriptors=[])
        assert len(await inside.ping(endpoint_address(attachment))) == 5
        await attachment.close()


async def test_monitor_shows_a_client_its_own(node: Node) -> None:
    """The client sees its connection come and go, as often as it passes the manager; another member sees nothing."""
    async with (
        node.enclave() as inside,
        node.enclave() as served,
        node.endpoint(served),
        node.client() as client,
        peer(node, "nsm-client") as mine,
        peer(node, "other") as others,
        mine.session() as my_session,
        others.session() as other_session,
    ):
        attachment = await connect(client, inside)
        streams = [
            wire.MonitorConnectionStub(session.channel).MonitorConnections(wire.MonitorScopeSelector())
            for session in (my_session, other_session)
        ]
        assert len((await streams[0].read()).connections) == 2
        assert len((await streams[1].read()).connections) == 0
        await attachment.close()
        assert [(await streams[0].read()).type for _ in range(2)] == [wire.DELETE, wire.DELETE]
        for stream in streams:
            stream.cancel()


RULES = [
    {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "handler",
        "metadata": {"name": "only-nsm-client", "namespace": "meshwright-system"},
        "spec": {
            "compiledAdapter": "denier",
            "params": {"status": {"code": 7, "message": "demo-vl is for nsm-client only"}},
        },
    },
    {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "instance",
        "metadata": {"name": "nothing", "namespace": "meshwright-system"},
        "spec": {"compiledTemplate": "checknothing", "params": {}},
    },
    {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "rule",
        "metadata": {"name": "only-nsm-client", "namespace": "meshwright-system"},
        "spec": {
            "match": 'context.protocol == "nsm" && destination.service.name == "demo-vl" '
            '&& source.principal != "spiffe://mesh.local/ns/default/sa/nsm-client"',
            "actions": [{"handler": "only-nsm-client", "instances": ["nothing"]}],
        },
    },
]


def with_policy(node: Node, outage: str) -> None:
    """Tell the node's mixer its rules, and its manager the mixer."""
    rules = node.folder / "rules"
    rules.mkdir()
    (rules / "rules.yaml").write_text(yaml.safe_dump_all(RULES))
    node.arguments["mixer"] = ("--config", str(rules))
    node.arguments["nsmgr"] = ("--mixer", f"127.0.0.1:{node.ports['mixer']}", "--on-policy-outage", outage)


async def test_policy_decides_who_may_have_it(tmp_path: Path, pki: Pki) -> None:
    """The real mixer on a folder of rules: one client gets the service, the other only the rule's reason."""
    node = Node(tmp_path, pki)
    with_policy(node, "deny")
    try:
        node.start("mixer", *PARTS)
        async with (
            node.enclave() as inside,
            node.enclave() as served,
            node.endpoint(served) as vl,
            node.client() as client,
            node.client("nsm-other") as other,
        ):
            with pytest.raises(errors.Forbidden, match="demo-vl is for nsm-client only"):
                await connect(other, inside)
            assert await inside.interfaces() == await served.interfaces() == ["lo"]
            assert vl.open_connections == []
            attachment = await connect(client, inside)
            node.kill("mixer")
            with pytest.raises(errors.Unavailable, match="--on-policy-outage"):
                await attachment.request()
            assert len(await inside.ping(endpoint_address(attachment))) == 5
            await attachment.close()
            assert await inside.interfaces() == ["lo"]
    finally:
        node.stop()


async def test_without_mixer_the_setting_decides(tmp_path: Path, pki: Pki) -> None:
    node = Node(tmp_path, pki)
    with_policy(node, "allow")
    try:
        node.start("mixer", *PARTS)
        async with node.enclave() as inside, node.enclave() as served, node.endpoint(served), node.client() as client:
            node.kill("mixer")
            attachment = await connect(client, inside)
            await attachment.close()
    finally:
        node.stop()


@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) isn't installed")
async def test_without_any_rights_it_says_what_it_needs(tmp_path: Path, pki: Pki) -> None:
    """Not ready, with the reason and the remedy; nothing is registered."""
    node = Node(tmp_path, pki, without_rights=("forwarder",))
    node.arguments["forwarder"] = ("--user-namespace", "never")
    try:
        node.start("nsm-registry", "nsmgr", wait_for=("nsm-registry", "nsmgr"))
        node.start("forwarder", wait_for=())
        await until(lambda: (tmp_path / "forwarder-admin.sock").exists(), "the forwarder answers")
        health = node.health("forwarder")
        assert not health["ready"]
        assert "CAP_NET_ADMIN" in health["parts"]["rights"]["reason"]
        async with peer(node, "nsm-client") as manager:
            assert not await RegistryClient(manager).find_endpoints(NetworkServiceEndpoint())
    finally:
        node.stop()


async def test_without_mutual_tls_on_one_machine(tmp_path: Path, pki: Pki) -> None:
    """Every part alone with --insecure-loopback: no identities, no tokens, the same service."""
    node = Node(tmp_path, pki, plain=True)
    try:
        node.start()
        async with node.enclave() as inside, node.enclave() as served, node.endpoint(served), node.client() as client:
            attachment = await connect(client, inside)
            await attachment.request()
            assert len(await inside.ping(endpoint_address(attachment))) == 5
            await attachment.close()
            assert await inside.interfaces() == await served.interfaces() == ["lo"]
    finally:
        node.stop()


async def test_identities_rotate_under_a_connection(own_node: Node) -> None:
    """New certificates for every hop, client and endpoint included: refresh and close go on with the new ones."""
    node = own_node
    sources = [StaticIdentity(node.pki.workload(name)) for name in ("nsm-client", "nsm-endpoint")]
    client = Client("rotating", connect_to=f"unix:{node.folder}/nsmgr.sock", identity=sources[0])
    async with node.enclave() as inside, node.enclave() as served, client:
        with Descriptor(served.open()) as namespace:
            endpoint = Endpoint(
                "demo-vl-1",
                services=["demo-vl"],
                prefix="172.16.1.0/24",
                listen=f"unix:{node.folder}/demo-vl-1.sock",
                connect_to=f"unix:{node.folder}/nsmgr.sock",
                identity=sources[1],
                namespace=namespace,
            )
            async with endpoint:
                attachment = await connect(client, inside)
                for source, name in zip(sources, ("nsm-client", "nsm-endpoint"), strict=True):
                    source.replace(node.pki.workload(name))
                for part in ("nsm-registry", "nsmgr", "forwarder"):
                    node.pki.write(node.pki.part(part), node.folder / "pki" / part)
                for _ in range(20):  # while the parts take up their new files, in whatever order
                    await attachment.request()
                    await asyncio.sleep(0.1)
                await attachment.close()
                assert await inside.interfaces() == await served.interfaces() == ["lo"]


async def test_a_forwarder_that_came_back_gets_its_connections(own_node: Node) -> None:
    """The manager hands them over with the namespaces it kept, before any client asks."""
    node = own_node
    async with node.enclave() as inside, node.enclave() as served, node.endpoint(served), node.client() as client:
        attachment = await connect(client, inside)
        node.kill("forwarder")
        node.start("forwarder")
        await until(lambda: '"connections": 1, "failed": 0' in node.log("nsmgr"), "the manager's resync")
        await attachment.close()
        assert await inside.interfaces() == await served.interfaces() == ["lo"]


async def test_a_connection_is_one_trace(tmp_path: Path, pki: Pki) -> None:
    """From the client's span through manager, policy, registry and forwarder, each hop's elements and Rust's part."""
    node = Node(tmp_path, pki)
    with_policy(node, "deny")
    for part in ("mixer", *PARTS):
        node.arguments[part] = (*node.arguments.get(part, ()), "--otlp", f"127.0.0.1:{node.ports['collector']}")
    identifier = 0x0AF7651916CD43DD8448EB211C80319C
    sampled = trace.TraceFlags(trace.TraceFlags.SAMPLED)
    context = trace.SpanContext(identifier, 0xB7AD6B7169203331, is_remote=False, trace_flags=sampled)
    parent = trace.NonRecordingSpan(context)
    admin = StaticIdentity(pki.part("admin"))
    collector_id = identity.part_id("mesh.local", "collector")
    native.drain(0.0, 100_000)
    try:
        node.start("collector", "mixer", *PARTS)
        async with (
            node.enclave() as inside,
            node.enclave() as served,
            node.endpoint(served),
            node.client() as client,
            Channel(f"127.0.0.1:{node.ports['collector']}", admin, peer=collector_id) as channel,
        ):
            with trace.use_span(parent):
                attachment = await connect(client, inside)
            query = collector_pb2_grpc.CollectorQueryStub(channel)
            found: list[collector_pb2.Span] = []
            here = {f"{context.span_id:016x}"}  # spans of the client, this process, which sends them nowhere

            async def complete() -> bool:
                asked = collector_pb2.FindTracesRequest(trace_id=f"{identifier:032x}")
                found[:] = [span for kept in (await query.FindTraces(asked)).traces for span in kept.spans]
                services = {span.service for span in found}
                parts = {f"meshwright-{part}" for part in ("mixer", *PARTS)}
                here.update(span.span_id.hex() for span in native.drain(0.0, 100_000))
                known = {span.span_id for span in found} | here
                return parts <= services and all(span.parent_span_id in known for span in found)

            try:
                await until(complete, "all parts' spans")
            except AssertionError:
                pytest.fail("\n".join(sorted(f"{span.service}: {span.name}" for span in found)))
            assert any(span.name.endswith("ConnectFunction") for span in found)
            await attachment.close()
    finally:
        node.stop()
