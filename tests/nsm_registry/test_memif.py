"""Network services over memif through registry, manager and forwarder, with DPDK's net_memif at the other end."""

from __future__ import annotations

import ctypes
import os
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import memif_program
import pytest
from nsm_node import Node, until

from meshwright.core import errors
from meshwright.core.identity import StaticIdentity
from meshwright.nsm import wire
from meshwright.nsm.client import Attachment
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.endpoint import Endpoint
from meshwright.platform.demo.enclaves import Enclave
from pki import Pki

pytestmark = [
    pytest.mark.mesh,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not memif_program.IS_HERE, reason=f"{memif_program.PROGRAM} isn't there (Debian: dpdk-dev)"),
]

CLONE_NEWNET = 0x40000000


@pytest.fixture
def node(short_tmp: Path, pki: Pki) -> Iterator[Node]:
    node = Node(short_tmp, pki)
    try:
        node.start()
        yield node
    finally:
        node.stop()


def endpoint(node: Node, **what) -> Endpoint:
    return Endpoint(
        "memif-1",
        services=["fast"],
        prefix="172.16.2.0/24",
        payload="ETHERNET",
        listen=f"unix:{node.folder}/memif-1.sock",
        connect_to=f"unix:{node.folder}/nsmgr.sock",
        identity=StaticIdentity(node.pki.workload("nsm-endpoint")),
        **what,
    )


def metrics(node: Node) -> str:
    with socket.socket(socket.AF_UNIX) as admin:
        admin.connect(f"{node.folder}/forwarder-admin.sock")
        admin.sendall(b"GET /metrics HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
        with admin.makefile("rb") as answer:
            return answer.read().partition(b"\r\n\r\n")[2].decode()


def packets(node: Node, side: str, direction: str) -> int:
    pattern = (
        rf'meshwright_forwarder_packets_total{{connection="[^"]+",direction="{direction}",side="{side}"}} ([\d.e+]+)'
    )
    return sum(int(float(found)) for found in re.findall(pattern, metrics(node)))


def is_up(node: Node, side: str) -> bool:
    return bool(re.search(rf'meshwright_forwarder_memif_up{{connection="[^"]+",side="{side}"}} 1', metrics(node)))


def address_of(attachment: Attachment, which: str) -> str:
    addresses = attachment.endpoint_addresses if which == "endpoint" else attachment.addresses
    return addresses[0].partition("/")[0]


async def answers(enclave: Enclave, address: str) -> None:
    """Wait until pings come back: testpmd looks at its links for a while before it forwards."""

    async def pinged() -> bool:
        try:
            return len(await enclave.ping(address)) == 5
        except errors.Unavailable:
            return False

    await until(pinged, f"{address} answers")


def path_of(attachment: Attachment) -> str:
    """The socket that the client was given, named by the descriptor that came with the answer."""
    assert attachment.socket is not None
    return f"/proc/{os.getpid()}/fd/{attachment.socket.fileno()}"


async def test_from_a_kernel_interface_to_a_memif_endpoint(node: Node, tmp_path: Path) -> None:
    """A ping goes kernel, forwarder, memif and back; also after kill -9 of the forwarder; on close nothing is left."""
    served = tmp_path / "endpoint-memif.sock"
    async with (
        node.enclave() as inside,
        memif_program.running("server", served, "icmpecho", tmp_path / "testpmd.log"),
        endpoint(node, memif=served) as vl,
        node.client() as client,
    ):
        with Descriptor(inside.open()) as namespace:
            attachment = await client.connect("kernel://fast/nsm-1", namespace=namespace)
        assert await inside.interfaces() == ["lo", "nsm-1"]
        await until(lambda: is_up(node, "endpoint"), "the memif is connected")
        await answers(inside, address_of(attachment, "endpoint"))
        assert packets(node, "endpoint", "received") >= 5
        assert packets(node, "client", "sent") >= 5
        await attachment.request()  # a refresh changes nothing
        await answers(inside, address_of(attachment, "endpoint"))

        node.kill("forwarder")
        assert await inside.interfaces() == ["lo", "nsm-1"], "the interface stays, with its addresses"
        node.start("forwarder")
        await until(lambda: is_up(node, "endpoint"), "the memif is connected again")
        await answers(inside, address_of(attachment, "endpoint"))

        await attachment.close()
        assert await inside.interfaces() == ["lo"]
        await until(lambda: vl.open_connections == [], "the endpoint forgot the connection")
        assert "meshwright_forwarder_packets_total{" not in metrics(node)


async def test_from_a_memif_client_to_a_kernel_interface(node: Node, tmp_path: Path) -> None:
    """The client's program gets a socket by descriptor and answers pings; an idle forwarder uses no CPU."""
    async with node.enclave() as served:
        with Descriptor(served.open()) as namespace:
            async with endpoint(node, namespace=namespace), node.client() as client:
                attachment = await client.connect("memif://fast")
                log = tmp_path / "testpmd.log"
                async with memif_program.running("client", path_of(attachment), "icmpecho", log):
                    await until(lambda: is_up(node, "client"), "the memif is connected")
                    await answers(served, address_of(attachment, "client"))
                    assert packets(node, "client", "received") >= 5
                await until(lambda: not is_up(node, "client"), "the end of the client's program is seen")
                sockets = list((node.folder / "memif").iterdir())
                assert len(sockets) == 1
                await attachment.close()
                assert await served.interfaces() == ["lo"]
                assert not sockets[0].exists()


async def test_from_memif_to_memif(node: Node, tmp_path: Path) -> None:
    """Both sides are programs; what the client's sends arrives at the endpoint's."""
    served = tmp_path / "endpoint-memif.sock"
    async with (
        memif_program.running("server", served, "rxonly", tmp_path / "server.log"),
        endpoint(node, memif=served),
        node.client() as client,
    ):
        attachment = await client.connect("memif://fast")
        async with memif_program.running("client", path_of(attachment), "txonly", tmp_path / "client.log"):
            await until(lambda: packets(node, "endpoint", "sent") > 10_000, "packets pass")
            assert is_up(node, "client")
            assert is_up(node, "endpoint")
        await attachment.close()
        assert list((node.folder / "memif").iterdir()) == []


async def test_a_client_that_names_its_namespace_gets_a_socket_there(node: Node, tmp_path: Path) -> None:
    served = tmp_path / "endpoint-memif.sock"
    async with (
        node.enclave() as inside,
        memif_program.running("server", served, "icmpecho", tmp_path / "testpmd.log"),
        endpoint(node, memif=served),
        node.client() as client,
    ):
        with Descriptor(inside.open()) as namespace:
            attachment = await client.connect("memif://fast", namespace=namespace)
            assert attachment.socket is None
            with ThreadPoolExecutor(1) as own:  # a thread that may stay in that namespace
                hello = own.submit(hello_in, namespace, attachment.socket_name).result()
        assert len(hello) == 128
        assert hello[:2] == b"\x02\0"
        assert attachment.connection.payload == "ETHERNET"
        assert attachment.connection.state == wire.UP
        await attachment.close()


def hello_in(namespace: Descriptor, name: str) -> bytes:
    """Connect to a name in a namespace as a memif client does, and return what the server says first."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(10)
        client.connect(f"\0{name}")
        return client.recv(4096)
