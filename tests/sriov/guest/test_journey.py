"""A network service by a virtual function, each part a process with an identity of its own, mixer's policy included."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest
import yaml
from cards import NEAR, TOKEN, Far, bind_free, drivers, interfaces
from nsm_node import PARTS, Node, until
from station import replies, wants_dpdk

from meshwright.core import errors
from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.agent.connect_function import hardware_address
from meshwright.nsm import mechanism
from meshwright.nsm.client import Attachment, Client
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.endpoint import Endpoint
from meshwright.platform.demo.enclaves import Enclave
from pki import Pki

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(300)]

VLAN = 100
URL = f"kernel://ward/nsm-1?sriovToken={TOKEN}"
MEMIF = f"memif://ward?sriovToken={TOKEN}"
FUNCTIONS = f"""
physicalFunctions:
  {NEAR}:
    serviceDomains: [ward.example]
    capabilities: [1G, 10G]
    virtualFunctions: 4
"""
SYSTEM = "meshwright-system"
RULES = [
    {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "handler",
        "metadata": {"name": "no-hardware", "namespace": SYSTEM},
        "spec": {
            "compiledAdapter": "denier",
            "params": {"status": {"code": 7, "message": "only nurses have a card's function"}},
        },
    },
    {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "instance",
        "metadata": {"name": "nothing", "namespace": SYSTEM},
        "spec": {"compiledTemplate": "checknothing", "params": {}},
    },
    {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "rule",
        "metadata": {"name": "no-hardware", "namespace": SYSTEM},
        "spec": {
            "match": f'context.protocol == "nsm" && networkservice.labels["sriovToken"] == "{TOKEN}" '
            '&& source.principal != "spiffe://mesh.local/ns/default/sa/nurse"',
            "actions": [{"handler": "no-hardware", "instances": ["nothing"]}],
        },
    },
]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Mixer, registry, manager, and a forwarder that has the near card; each an emulated process."""
    folder = tmp_path_factory.mktemp("node")
    node = Node(folder, Pki(), seconds=240.0)
    (folder / "functions.yaml").write_text(FUNCTIONS)
    (folder / "rules").mkdir()
    (folder / "rules" / "rules.yaml").write_text(yaml.safe_dump_all(RULES))
    node.arguments = {
        "mixer": ("--config", str(folder / "rules")),
        "nsmgr": ("--mixer", f"127.0.0.1:{node.ports['mixer']}", "--on-policy-outage", "deny"),
        "forwarder": ("--sriov", str(folder / "functions.yaml"), "--dpdk-memory", "48"),
    }
    try:
        node.start("mixer", *PARTS)
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="module")
def far() -> Iterator[Far]:
    """The network beyond the card."""
    far = Far()
    yield far
    far.end()


@pytest.fixture
async def ward(node: Node) -> AsyncIterator[Endpoint]:
    """An endpoint that is on the wire, on a VLAN."""
    async with Endpoint(
        "ward-1",
        services=["ward"],
        prefix="172.16.9.0/24",
        listen=f"unix:{node.folder}/ward-1.sock",
        connect_to=f"unix:{node.folder}/nsmgr.sock",
        identity=StaticIdentity(node.pki.workload("ward")),
        payload="ETHERNET",
        vlan=VLAN,
    ) as endpoint:
        yield endpoint


async def connect(client: Client, enclave: Enclave, url: str = URL) -> Attachment:
    with Descriptor(enclave.open()) as namespace:
        return await client.connect(url, namespace=namespace, timeout=30.0)


async def by_memif(client: Client) -> Attachment:
    return await client.connect(MEMIF, timeout=60.0)


async def ping(far: Far, enclave: Enclave, attachment: Attachment) -> None:
    """Reach the endpoint's address on its VLAN, and nothing but it."""
    far.serve(VLAN, attachment.endpoint_addresses, attachment.addresses)
    address = attachment.endpoint_addresses[0].partition("/")[0]

    async def reached() -> bool:
        with contextlib.suppress(errors.Unavailable):
            return len(await enclave.ping(address)) == 5
        return False

    await until(reached, f"{address} to answer")


async def ping_by_memif(far: Far, attachment: Attachment) -> None:
    """The same from the other side of the client's socket, with the hardware address that the card imposes."""
    far.serve(VLAN, attachment.endpoint_addresses, attachment.addresses)
    assert attachment.socket is not None
    socket = f"/proc/{os.getpid()}/fd/{attachment.socket.fileno()}"
    mac = attachment.connection.context.ethernet_context.src_mac
    own, other = (found[0].partition("/")[0] for found in (attachment.addresses, attachment.endpoint_addresses))
    assert await asyncio.to_thread(replies, socket, mac, own, other) == 5


def nothing_is_given() -> bool:
    """No function has a driver, and no interface lies about."""
    return drivers() == {} and interfaces() == []


async def test_an_allowed_client_is_on_the_wire(node: Node, far: Far, ward: Endpoint) -> None:
    """Token, policy, a function on the endpoint's VLAN, traffic; a refresh changes nothing; close."""
    async with node.enclave() as inside, node.client("nurse") as client:
        attachment = await connect(client, inside)
        assert await inside.interfaces() == ["lo", "nsm-1"]
        (given,) = drivers().items()
        assert given == (attachment.connection.mechanism.parameters[mechanism.PCI_ADDRESS], "igbvf")
        forwarder = attachment.connection.path.path_segments[2]
        assert attachment.connection.context.ethernet_context.src_mac == hardware_address(forwarder.id)
        await ping(far, inside, attachment)
        before = attachment.connection.context
        await attachment.request()
        assert attachment.connection.context == before
        await ping(far, inside, attachment)
        await attachment.close()
        assert await inside.interfaces() == ["lo"]
        assert nothing_is_given()
        assert ward.open_connections == []


@wants_dpdk
async def test_an_allowed_memif_client_is_on_the_wire(node: Node, far: Far, ward: Endpoint) -> None:
    """The forwarder drives the function; closed, it is free again, and the next client can have it."""
    async with node.client("nurse") as client:
        attachment = await by_memif(client)
        driven = {attachment.connection.mechanism.parameters[mechanism.PCI_ADDRESS]: "vfio-pci"}
        assert drivers() == driven
        await attachment.request()
        await ping_by_memif(far, attachment)
        assert drivers() == driven
        await attachment.close()
        assert nothing_is_given()
        again = await by_memif(client)
        assert drivers() == driven
        await again.close()
    async with node.client("visitor") as client:
        with pytest.raises(errors.Forbidden, match="only nurses have a card's function"):
            await by_memif(client)
    assert nothing_is_given()
    assert ward.open_connections == []


@wants_dpdk
async def test_a_killed_forwarder_drives_its_function_again(node: Node, far: Far, ward: Endpoint) -> None:
    """kill -9 while it is open: the next process has the same function for the connection, and can give it back."""
    async with node.client("nurse") as client:
        attachment = await by_memif(client)
        driven = drivers()
        node.kill("forwarder")
        assert list(driven.values()) == ["vfio-pci"]
        node.start("forwarder")

        async def refreshed() -> bool:
            with contextlib.suppress(errors.Unavailable):
                await attachment.request(timeout=60.0)
                return True
            return False

        await until(refreshed, "the connection to be taken up")
        assert drivers() == driven
        await ping_by_memif(far, attachment)
        await attachment.close()
        assert nothing_is_given()


async def test_a_denied_client_gets_no_function(node: Node, ward: Endpoint) -> None:
    """The mixer's rule is about who asks for a card's function."""
    async with node.enclave() as inside, node.client("visitor") as client:
        with pytest.raises(errors.Forbidden, match="only nurses have a card's function"):
            await connect(client, inside)
        assert await inside.interfaces() == ["lo"]
    assert nothing_is_given()
    assert ward.open_connections == []


@pytest.mark.parametrize("url", [pytest.param(URL, id="kernel"), pytest.param(MEMIF, id="memif", marks=wants_dpdk)])
async def test_an_expired_connection_gives_its_function_back(node: Node, ward: Endpoint, url: str) -> None:
    """The client is gone without a word: when its token is over, so is the function's lending."""
    async with node.enclave() as inside:
        short = Client(
            "short",
            connect_to=f"unix:{node.folder}/nsmgr.sock",
            identity=StaticIdentity(node.pki.workload("nurse")),
            lifetime=timedelta(seconds=10),
        )
        async with short:
            await connect(short, inside, url)
            assert len(drivers()) == 1
        await until(nothing_is_given, "the token's end")
        assert await inside.interfaces() == ["lo"]


async def test_a_deleted_namespace_gives_its_function_back(node: Node, ward: Endpoint) -> None:
    """Nobody holds the client's namespace: the function falls into the machine's, under the client's name for it."""
    async with node.enclave() as inside, node.client("nurse") as client:
        await connect(client, inside)
        node.kill("forwarder")
        node.kill("nsmgr")
    await until(lambda: interfaces() == ["nsm-1"], "the interface to come back")
    node.start("nsmgr", "forwarder")
    await until(nothing_is_given, "the forwarder to see it")


async def test_a_killed_forwarder_finds_whose_is_what(node: Node, far: Far, ward: Endpoint) -> None:
    """Packets flow on meanwhile; then the function is still that connection's, and what nobody has is taken back."""
    async with node.enclave() as inside, node.enclave() as second, node.client("nurse") as client:
        attachment = await connect(client, inside)
        node.kill("forwarder")
        stray = bind_free()
        await ping(far, inside, attachment)
        node.start("forwarder")
        assert stray not in drivers()
        await until(lambda: '"connections": 1, "failed": 0' in node.log("nsmgr"), "the manager's resync")
        other = await connect(client, second)
        assert len(drivers()) == 2
        await ping(far, inside, attachment)
        await ping(far, second, other)
        await attachment.close()
        await other.close()
        assert await inside.interfaces() == await second.interfaces() == ["lo"]
        assert nothing_is_given()
