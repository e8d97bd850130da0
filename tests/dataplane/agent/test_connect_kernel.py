"""The forwarder's element in real network namespaces, without the wire around it."""

from __future__ import annotations

import asyncio
import ctypes
import os
import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from meshwright.core import errors
from meshwright.core.clock import SystemClock
from meshwright.dataplane.agent.connect_kernel import ConnectKernel
from meshwright.dataplane.forwarder import Forwarder
from meshwright.nsm import mechanism, path
from meshwright.nsm.chain import Caller, Chain, Exchange, Operation, Proceed
from meshwright.nsm.connections import Connections
from meshwright.nsm.descriptors import Descriptor, Inode
from meshwright.nsm.elements.begin import Begin
from meshwright.nsm.elements.paths import UpdatePath
from meshwright.nsm.elements.take import take_descriptors
from meshwright.nsm.elements.token import Tokens
from meshwright.nsm.ipam import PointToPoint
from meshwright.nsm.wire import Connection, NetworkServiceRequest

CLONE_NEWNET = 0x40000000


def new_namespace() -> Descriptor:
    """A network namespace that lives as long as its descriptor; skips where this user may not make one."""
    made: list[Descriptor | int] = []

    def make() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(CLONE_NEWNET):
            made.append(ctypes.get_errno())
        else:
            made.append(Descriptor(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    if isinstance(made[0], int):
        pytest.skip(f"no network namespace for this user: {os.strerror(made[0])}")
    return made[0]


def interfaces(namespace: Descriptor) -> list[str]:
    """The names of the interfaces in a namespace."""
    seen: list[str] = []

    def look() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0
        with open("/proc/thread-self/net/dev") as table:
            seen.extend(line.partition(":")[0].strip() for line in table.readlines()[2:])

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    return sorted(name for name in seen if name != "lo")


class Hop:
    """A forwarder's chain that ends in an endpoint."""

    def __init__(self, endpoint: Descriptor) -> None:
        self.endpoint = endpoint
        self.addresses = PointToPoint("172.16.0.0/24")
        self.connections = Connections()
        self.fails = False
        self.build()

    def build(self) -> None:
        self.chain = Chain(
            UpdatePath("forwarder", self.connections),
            Tokens(None, lifetime=timedelta(minutes=1)),
            Begin(self.connections),
            take_descriptors,
            ConnectKernel(Forwarder()),
            self.answer,
        )

    async def answer(self, request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        """Stand for the endpoint: its namespace and addresses."""
        state = exchange.state
        if exchange.closing:
            self.addresses.release(state.id)
            return request.connection
        answer = Connection()
        answer.CopyFrom(request.connection)
        self.addresses.assign(state.id, answer)
        name = mechanism.interface_name(request.mechanism_preferences[0], "vl", state.id)
        answer.mechanism.CopyFrom(mechanism.kernel(self.endpoint.inode, name))
        exchange.answer.append(state.held.keep(self.endpoint.duplicate()))
        state.downstream = answer
        return answer

    def exchange(self, operation: Operation, namespace: Descriptor | None) -> Exchange:
        async def receive(inode: Inode, timeout: float) -> Descriptor:
            if namespace is None or namespace.inode != inode:
                raise errors.ConfigError("not sent")
            return namespace.duplicate()

        clock = SystemClock()
        return Exchange(operation, clock, clock.monotonic() + 10, caller=Caller(), receive=receive)

    async def request(self, namespace: Descriptor, connection: Connection | None = None) -> tuple[Connection, Exchange]:
        connection = connection or new_connection()
        exchange = self.exchange(Operation.REQUEST, namespace)
        wish = mechanism.kernel(namespace.inode, "nsm-1")
        request = NetworkServiceRequest(connection=connection, mechanism_preferences=[wish])
        request.connection.ClearField("mechanism")
        return await self.chain(request, exchange), exchange

    async def close(self, connection: Connection, namespace: Descriptor | None) -> None:
        sent = Connection()
        sent.CopyFrom(connection)
        await self.chain(NetworkServiceRequest(connection=sent), self.exchange(Operation.CLOSE, namespace))


def new_connection() -> Connection:
    connection = Connection(network_service="vl")
    path.start(connection, "client", "client-0")
    return connection


@pytest.fixture
def namespaces() -> Iterator[list[Descriptor]]:
    made = [new_namespace() for _ in range(3)]
    yield made
    for namespace in made:
        namespace.close()


async def test_the_client_never_gets_the_endpoint_s_namespace(namespaces: list[Descriptor]) -> None:
    """It is answered with its own mechanism and with both ends' hardware addresses; on Close nothing is left."""
    client, endpoint, _ = namespaces
    hop = Hop(endpoint)
    answer, exchange = await hop.request(client)
    assert exchange.answer == []
    assert Inode.parse(answer.mechanism.parameters["inodeURL"]) == client.inode
    assert answer.context.ethernet_context.src_mac != answer.context.ethernet_context.dst_mac
    assert interfaces(client) == ["nsm-1"]
    assert len(interfaces(endpoint)) == 1
    await hop.close(answer, client)
    assert interfaces(client) == interfaces(endpoint) == []
    assert len(hop.connections) == 0


async def test_a_client_that_moved_is_connected_in_its_new_namespace(namespaces: list[Descriptor]) -> None:
    """It restarted with the same name elsewhere: the old interface is gone, the new one is there."""
    client, endpoint, elsewhere = namespaces
    hop = Hop(endpoint)
    await hop.request(client)
    answer, _ = await hop.request(elsewhere)
    assert interfaces(client) == []
    assert interfaces(elsewhere) == ["nsm-1"]
    await hop.close(answer, elsewhere)
    assert interfaces(elsewhere) == interfaces(endpoint) == []


async def test_client_and_endpoint_in_one_namespace_are_refused(namespaces: list[Descriptor]) -> None:
    hop = Hop(namespaces[0])
    with pytest.raises(errors.ConfigError, match="same network namespace"):
        await hop.request(namespaces[0])
    assert interfaces(namespaces[0]) == []
    assert len(hop.connections) == 0


async def test_after_a_kill_a_close_finds_the_interfaces_by_their_mark(namespaces: list[Descriptor]) -> None:
    """What was held is lost with the process; the client's namespace comes with its Close."""
    client, endpoint, _ = namespaces
    hop = Hop(endpoint)
    answer, _ = await hop.request(client)
    for state in hop.connections:
        state.held.close()
    hop.build()
    await hop.close(answer, client)
    assert interfaces(client) == interfaces(endpoint) == []


async def test_a_name_that_is_taken_is_said_and_undone(namespaces: list[Descriptor]) -> None:
    client, endpoint, _ = namespaces
    hop, other = Hop(endpoint), Hop(endpoint)
    answer, _ = await hop.request(client)
    with pytest.raises(errors.Unavailable, match="make the pair nsm-1"):
        await other.request(client)
    assert len(interfaces(endpoint)) == 1
    await hop.close(answer, client)


async def test_many_at_once(namespaces: list[Descriptor]) -> None:
    """Different connections are built side by side."""
    endpoint = namespaces[1]
    hop = Hop(endpoint)
    clients = [new_namespace() for _ in range(8)]

    async def one(number: int) -> Connection:
        connection = new_connection()
        connection.id = connection.path.path_segments[0].id = f"client-{number}"
        return (await hop.request(clients[number], connection))[0]

    answers = await asyncio.gather(*(one(number) for number in range(8)))
    assert len(interfaces(endpoint)) == 8
    await asyncio.gather(*(hop.close(answer, client) for answer, client in zip(answers, clients, strict=True)))
    assert interfaces(endpoint) == []
    for client in clients:
        client.close()
