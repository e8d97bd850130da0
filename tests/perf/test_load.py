"""The load generator against servers of known behaviour."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from dataclasses import replace

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from load_servers import OK, plain, serving, stalling
from tests.pki import Pki

from meshwright.core.grpc import Server as GrpcServer
from meshwright.core.grpc.authorization import Authorization
from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.load import Load, Mesh, run


def test_the_schedule_is_kept_and_everything_is_counted() -> None:
    """So many requests as the rate says, each answered once; the warm-up isn't in the figures."""
    with serving() as server:
        found = run(Load(server.url, rate=200, connections=4, duration=1.5, warm_up=0.5))
    assert found.count + found.unsent == 300
    assert found.warm_up == 100
    assert found.statuses == {200: found.count}
    assert found.good == found.count > 200
    assert (found.failures, found.bytes) == ({}, 2 * found.count)
    assert abs(found.rate * found.elapsed - found.count) < 1
    assert sum(count for _, _, count in found.buckets) == found.count
    assert 0 < found.min <= found.percentiles[50.0] <= found.percentiles[99.0] <= found.max
    assert len(server.heads) == found.count + found.warm_up


def test_a_stall_is_seen_by_everybody_who_was_due_in_it() -> None:
    """A server that stalls for 0.8 s of 2 has made 80 of 200 requests wait, 40 of them for more than 0.4 s; a closed
    loop would have seen as many slow answers as it has connections."""
    with serving(stalling(0.8, after=0.5), one_at_a_time=True) as server:
        found = run(Load(server.url, rate=100, connections=4, duration=2))
    assert found.count + found.unsent == 200
    slow = sum(count for start, _, count in found.buckets if start > 0.4)
    assert slow + found.unsent >= 30  # what a busy machine had no time to send any more has waited too
    assert found.max >= 0.7


def test_a_closed_loop_asks_as_soon_as_it_has_its_answer() -> None:
    """Rate 0: as many as the server gives, one at a time on each connection."""
    with serving() as server:
        found = run(Load(server.url, connections=2, duration=0.5))
    assert found.count > 100
    assert found.good == found.count


def test_a_server_that_is_too_slow_leaves_requests_unsent() -> None:
    """What no connection had time for is counted, and the run ends although the backlog doesn't."""

    def slow(connection: socket.socket, number: int) -> bool:
        threading.Event().wait(0.2)
        connection.sendall(OK)
        return True

    began = time.monotonic()
    with serving(slow) as server:
        found = run(Load(server.url, rate=100, connections=1, duration=1))
        assert time.monotonic() - began < 5
    assert found.unsent > 80
    assert found.count + found.unsent == 100


def test_a_server_that_never_answers_costs_one_timeout() -> None:
    """Each request without an answer is counted by its name, and the run ends in bounded time."""
    quiet = threading.Event()

    def silent(connection: socket.socket, number: int) -> bool:
        quiet.wait(20)
        return False

    began = time.monotonic()
    with serving(silent) as server:
        found = run(Load(server.url, rate=20, connections=2, duration=0.5, timeout=0.4))
        assert time.monotonic() - began < 5
        quiet.set()
    assert set(found.failures) == {"timeout"}
    assert found.good == 0
    assert found.min >= 0.4


def test_connections_that_are_closed_are_opened_again() -> None:
    """A server that closes after each answer costs connections, not requests."""

    def once(connection: socket.socket, number: int) -> bool:
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n")
        return False

    with serving(once) as server:
        found = run(Load(server.url, rate=50, connections=2, duration=1))
    assert found.statuses == {200: 50 - found.unsent}
    assert found.reconnects >= found.count - 3


def test_bad_answers_and_broken_ones_are_told_apart() -> None:
    """A 503 is an answer with a status; what isn't HTTP is a failure with a reason."""

    def mixed(connection: socket.socket, number: int) -> bool:
        bad = number % 2 == 1
        connection.sendall(b"nonsense\r\n\r\n" if bad else b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n")
        return not bad

    with serving(mixed) as server:
        found = run(Load(server.url, rate=100, connections=1, duration=0.5))
    assert found.statuses[503] > 0
    assert sum(found.failures.values()) > 0
    assert found.statuses[503] + sum(found.failures.values()) + found.unsent == 50
    assert found.good == 0


def test_headers_and_body_arrive() -> None:
    """What the plan says is what is sent."""
    with serving() as server:
        load = Load(server.url + "a?b=c", rate=10, duration=0.3, method="POST", headers=(("x-one", "1"),), body=b"")
        run(load)
    assert server.heads[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert b"\r\nx-one: 1" in server.heads[0]
    assert b"\r\nhost: 127.0.0.1:" in server.heads[0]
    assert b"\r\nuser-agent: meshwright/" in server.heads[0]


def test_progress_comes_and_can_end_the_run() -> None:
    """About ten times a second; a true answer ends the run early, an exception too, and it is raised."""
    seen: list[tuple[float, int, int]] = []

    def on_progress(*state: object) -> bool:
        seen.append(state)  # type: ignore[arg-type]
        return len(seen) >= 5

    with serving() as server:
        began = time.monotonic()
        found = run(Load(server.url, rate=100, connections=1, duration=60), on_progress)
        assert time.monotonic() - began < 10
        assert 0 < found.count < 1000
        assert [state[1] for state in seen] == sorted(state[1] for state in seen)

        def fails(*_: object) -> bool:
            raise KeyError("from the callback")

        with pytest.raises(KeyError, match="from the callback"):
            run(Load(server.url, rate=100, connections=1, duration=60), fails)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "nowhere"}, "url"),
        ({"url": "https://127.0.0.1/"}, "url"),
        ({"connections": 0}, "connections"),
        ({"rate": -1.0}, "rate"),
        ({"duration": 0.0}, "duration"),
        ({"streams": 2}, "streams"),
        ({"headers": (("a b", "c"),)}, "headers"),
        ({"method": "not a method"}, "method"),
    ],
)
def test_what_cannot_be_is_refused_by_field(change: dict[str, object], field: str) -> None:
    """A ValueError begins with the field."""
    with pytest.raises(ValueError, match=rf"^{field}: "):
        run(replace(Load("http://127.0.0.1:1/"), **change))  # type: ignore[arg-type]


def test_a_server_that_is_not_there_is_said_before_anything_is_measured() -> None:
    """ConnectionError names the address and the reason."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{port}: Connection refused"):
        run(Load(f"http://127.0.0.1:{port}/"))


async def test_grpc_over_the_meshs_mutual_tls() -> None:
    """Calls to a server of ours, as a workload; a server that is somebody else is refused."""
    pki = Pki()

    async def echo(request: StringValue, context: object) -> StringValue:
        return request

    handler = grpc.unary_unary_rpc_method_handler(
        echo, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString
    )
    rules = Authorization([("/test.Echo/", ["spiffe://mesh.local/*"])])
    server = GrpcServer("127.0.0.1:0", StaticIdentity(pki.workload("shop")), authorize=rules)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Unary": handler}),))
    await server.start()
    [address] = server.addresses
    try:
        client = StaticIdentity(pki.workload("load"))
        load = Load(
            f"grpcs://{address}/test.Echo/Unary",
            rate=200,
            connections=2,
            streams=4,
            duration=0.5,
            body=StringValue(value="hello").SerializeToString(),
            mesh=Mesh(client, "spiffe://mesh.local/ns/default/sa/shop"),
        )
        found = await asyncio.to_thread(run, load)
        assert found.statuses == {0: 100 - found.unsent}
        assert found.good == found.count > 0
        missing = replace(load, url=load.url.replace("Unary", "Other"))
        assert set((await asyncio.to_thread(run, missing)).statuses) == {12}
        with pytest.raises(ConnectionError, match="ns/default/sa/shop"):
            await asyncio.to_thread(run, replace(load, mesh=Mesh(client, "spiffe://mesh.local/ns/default/sa/other")))
    finally:
        await server.stop(0)


def test_threads_share_one_schedule() -> None:
    """The number of threads doesn't change how many requests are due."""
    with serving(plain) as server:
        found = run(Load(server.url, rate=300, connections=6, threads=3, duration=0.5))
    assert found.count + found.unsent == 150
