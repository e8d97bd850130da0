"""Channels to several addresses: whom they call, where they stand, and what they do when an address goes."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub, add_echo_to_server
from serve_rig import CLIENT_ID, SERVER_ID, code_of, native_channel, native_server
from serve_scripted import OK, GoAway, scripted, tcp_server

from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import ChannelOptions, NativeChannel, NativeServer
from pki import Pki

READY = grpc.ChannelConnectivity.READY
IDLE = grpc.ChannelConnectivity.IDLE
FAILED = grpc.ChannelConnectivity.TRANSIENT_FAILURE
ROUND_ROBIN = {"loadBalancingConfig": [{"round_robin": {}}]}


class Named(AsyncEcho):
    """Says who it is."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    async def unary(self, request: str, context: Any) -> str:
        return self.name if request == "who" else await super().unary(request, context)


@contextlib.asynccontextmanager
async def servers(count: int, identity: Any = None) -> AsyncIterator[tuple[list[NativeServer], list[str]]]:
    """Servers "0", "1", …, and their addresses."""
    async with contextlib.AsyncExitStack() as stack:
        found = [await stack.enter_async_context(native_server(Named(str(n)), identity=identity)) for n in range(count)]
        yield [server for server, _ in found], [address for _, address in found]


async def reached(channel: NativeChannel, state: grpc.ChannelConnectivity) -> None:
    async with asyncio.timeout(20):
        while (now := channel.get_state()) is not state:
            await channel.wait_for_state_change(now)


async def who(channel: NativeChannel, count: int = 20) -> Counter[str]:
    return Counter([await EchoStub(channel).unary("who", timeout=20, wait_for_ready=True) for _ in range(count)])


async def eventually(channel: NativeChannel, names: set[str]) -> None:
    """Call until just these have answered a round.

    A call that is on its way into a connection that dies fails with UNAVAILABLE: nobody knows whether it arrived.
    """
    answered: set[str] = set()
    async with asyncio.timeout(20):
        while answered != names:
            try:
                answered = set(await who(channel))
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE


@contextlib.contextmanager
def closed_port() -> Any:
    """An address that refuses connections: bound, but not listening."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


async def test_pick_first_stays_with_one() -> None:
    """By default all calls go to the first address that answers."""
    async with servers(2) as (_, addresses), native_channel(f"ipv4:{','.join(addresses)}") as channel:
        assert await who(channel) == {"0": 20}


async def test_pick_first_goes_on_to_the_next() -> None:
    """An address that refuses is passed over, one that dies is replaced."""
    async with servers(2) as (running, addresses):
        with closed_port() as nobody:
            async with native_channel(f"ipv4:{nobody},{','.join(addresses)}") as channel:
                assert await who(channel) == {"0": 20}
                await running[0].stop(0)
                await eventually(channel, {"1"})


async def test_an_address_that_says_nothing_is_not_waited_for() -> None:
    """The next address is tried while the one before it still keeps silent."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        async with servers(1) as (_, [address]):
            target = f"ipv4:127.0.0.1:{silent.getsockname()[1]},{address}"
            async with native_channel(target) as channel:
                assert await EchoStub(channel).unary("who", timeout=5) == "0"  # the handshake's limit is 10 s


async def test_all_addresses_fail() -> None:
    """Then the channel has failed, says why, and fails calls that don't wait; it tries on by itself."""
    with closed_port() as one, closed_port() as other:
        async with native_channel(f"ipv4:{one},{other}") as channel:
            code, details = await code_of(EchoStub(channel).unary("who", timeout=20))
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "refused" in details
            assert other in details
            assert channel.get_state() is FAILED


async def test_a_lost_connection_leaves_the_channel_idle() -> None:
    """pick_first connects again when the next call comes, not before."""
    async with scripted(OK, GoAway()) as server, native_channel(server.address) as channel:
        stub = EchoStub(channel)
        assert channel.get_state() is IDLE
        assert await stub.unary("a", timeout=20) == "done"
        assert channel.get_state() is READY
        assert await stub.unary("b", timeout=20) == "done"
        assert server.connections == 2


async def test_round_robin_spreads_calls() -> None:
    """Each address that answers gets its share."""
    async with (
        servers(3) as (_, addresses),
        native_channel(f"ipv4:{','.join(addresses)}", service_config=ROUND_ROBIN) as channel,
    ):
        await eventually(channel, {"0", "1", "2"})
        assert await who(channel, 30) == {"0": 10, "1": 10, "2": 10}


async def test_round_robin_over_a_death_and_a_return() -> None:
    """A dead address gets no calls, and calls again when it is back; no call fails for good."""
    async with (
        servers(2) as (running, addresses),
        native_channel(f"ipv4:{','.join(addresses)}", service_config=ROUND_ROBIN) as channel,
    ):
        await eventually(channel, {"0", "1"})
        await running[0].stop(0)
        await eventually(channel, {"1"})
        assert channel.get_state() is READY
        async with native_server(Named("back"), addresses[0]):
            await eventually(channel, {"back", "1"})
            await running[1].stop(0)
            await eventually(channel, {"back"})
        await reached(channel, FAILED)


async def test_round_robin_with_a_dead_address() -> None:
    """One address that refuses doesn't keep the others from being used."""
    with closed_port() as nobody:
        async with servers(1) as (_, [address]):
            config = '{"loadBalancingPolicy": "round_robin"}'
            async with native_channel(f"ipv4:{nobody},{address}", service_config=config) as channel:
                assert await EchoStub(channel).unary("who", timeout=20) == "0"


@pytest.mark.parametrize("policy", ["pick_first", "round_robin"])
async def test_waiting_for_one_of_several(policy: str) -> None:
    """A call that waits for ready goes once any address is there."""
    with closed_port() as one, socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        other = f"127.0.0.1:{bound.getsockname()[1]}"
        config = {"loadBalancingConfig": [{policy: {}}]}
        async with native_channel(f"ipv4:{one},{other}", service_config=config) as channel:
            call = EchoStub(channel).unary("who", timeout=30, wait_for_ready=True)
            await reached(channel, FAILED)
            bound.close()
            async with native_server(Named("late"), other):
                assert await call == "late"
                await asyncio.wait_for(channel.channel_ready(), 10)
                assert channel.get_state() is READY


async def test_names_are_looked_up() -> None:
    """dns:/// and a bare name; a name that nobody has fails with the name in the reason."""
    async with servers(1) as (_, [address]):
        port = address.rsplit(":", 1)[1]
        for target in (f"localhost:{port}", f"dns:///localhost:{port}", f"dns:localhost:{port}"):
            async with native_channel(target) as channel:
                assert await EchoStub(channel).unary("who", timeout=20) == "0"
    nobody = f"{'x' * 64}:80"  # no label of a name is so long, so that no server is asked
    async with native_channel(nobody) as channel:
        code, details = await code_of(EchoStub(channel).unary("who", timeout=30))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert f"cannot look {nobody} up" in details


async def test_six(echo: AsyncEcho) -> None:
    """IPv6 addresses, where the machine has them."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    async with native_server(Named("six"), "[::1]:0") as (_, address), native_channel(f"ipv6:{address}") as channel:
        assert await EchoStub(channel).unary("who", timeout=20) == "six"


ABSTRACT = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
import grpc
from serve_echo import AsyncEcho, add_echo_to_server
async def main():
    server = grpc.aio.server()
    add_echo_to_server(AsyncEcho(), server)
    server.add_insecure_port(sys.argv[1])
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()
asyncio.run(main())
"""


async def test_unix_names(tmp_path: Path) -> None:
    """unix:path, unix:///path, and an abstract name, which has no file."""
    async with native_server(Named("unix"), f"unix:{tmp_path}/a.sock"):
        for target in (f"unix:{tmp_path}/a.sock", f"unix://{tmp_path}/a.sock"):
            async with native_channel(target) as channel:
                assert await EchoStub(channel).unary("who", timeout=20) == "unix"
    target = f"unix-abstract:meshwright-test-{tmp_path.name}-{id(tmp_path)}"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ABSTRACT, target, str(Path(__file__).parent), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await asyncio.wait_for(process.stdout.readline(), 30) == b"ready\n"
        async with native_channel(target) as channel:
            assert await EchoStub(channel).unary("hello", timeout=20) == "hello"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("localhost", "the port is missing"),
        ("dns://8.8.8.8/localhost:80", "DNS server of one's own isn't supported"),
        ("ipv4:localhost:80", "expected addresses with their ports"),
        ("ipv6:127.0.0.1:80", "of the other family"),
        ("unix:", "the path is empty"),
    ],
)
async def test_targets_that_are_none(target: str, reason: str) -> None:
    """A target that can't be read is refused when the channel is made."""
    with pytest.raises(ValueError, match=reason):
        NativeChannel(target, None)


@pytest.mark.parametrize("policy", ["pick_first", "round_robin"])
async def test_identity_over_all_addresses(
    policy: str, pki: Pki, server_identity: StaticIdentity, client_identity: StaticIdentity
) -> None:
    """Every address must be the expected peer; a rotation moves every connection, and no call is lost."""
    stranger = StaticIdentity(pki.identity("spiffe://mesh.local/ns/test/sa/stranger"))
    config = {"loadBalancingConfig": [{policy: {}}]}
    async with (
        servers(2, server_identity) as (running, addresses),
        native_server(Named("stranger"), identity=stranger) as (_, other),
        native_channel(
            f"ipv4:{other},{','.join(addresses)}", client_identity, peer=SERVER_ID, service_config=config
        ) as channel,
    ):
        names = {"0"} if policy == "pick_first" else {"0", "1"}
        await eventually(channel, names)
        assert channel.peer_id() == SERVER_ID
        stub = EchoStub(channel)
        streams = [stub.chat(timeout=30) for _ in range(4)]
        for stream in streams:
            await stream.write("before")
            assert await stream.read() == "BEFORE"
        before = sum(server.stats()["connections_accepted"] for server in running)
        client_identity.replace(pki.identity(CLIENT_ID))
        async with asyncio.timeout(20):
            while sum(server.stats()["connections_accepted"] for server in running) < before + len(names):
                assert set(await who(channel, 4)) <= {"0", "1"}
        await eventually(channel, names)
        for stream in streams:
            await stream.write("after")
            assert await stream.read() == "AFTER"
            await stream.done_writing()
            assert await stream.read() is grpc.aio.EOF
            assert await stream.code() is grpc.StatusCode.OK


async def test_idle_after_a_time_without_calls() -> None:
    """Without calls the connections are closed, and the next call makes them again; a call under way keeps them."""
    async with (
        servers(1) as (running, [address]),
        native_channel(address, options=ChannelOptions(idle_seconds=0.2)) as channel,
    ):
        stream = EchoStub(channel).chat(timeout=30)
        await stream.write("a")
        assert await stream.read() == "A"
        done = asyncio.create_task(channel.wait_for_state_change(READY))
        await asyncio.wait([done], timeout=0.6)
        assert not done.done()
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        await reached(channel, IDLE)
        async with asyncio.timeout(20):
            while running[0].stats()["connections_open"]:
                await asyncio.sleep(0)
        assert await who(channel, 1) == {"0": 1}


async def test_waiting_on_an_idle_channel() -> None:
    """A channel that was idle for longer than its limit connects for whoever waits without a call."""
    async with (
        servers(1) as (running, [address]),
        native_channel(address, options=ChannelOptions(idle_seconds=0.3)) as channel,
    ):
        assert await who(channel, 1) == {"0": 1}
        await reached(channel, IDLE)
        before = running[0].stats()["connections_accepted"]
        await asyncio.wait_for(channel.channel_ready(), 10)
        assert running[0].stats()["connections_accepted"] == before + 1
        await reached(channel, IDLE)


async def test_keep_alive_finds_a_dead_server() -> None:
    """A server that no longer answers pings is given up; the call on it fails with UNAVAILABLE."""
    options = ChannelOptions(keep_alive_seconds=0.2, keep_alive_timeout_seconds=0.2)

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")  # its settings, and nothing more
        while await reader.read(65536):
            pass

    async with tcp_server(swallow) as address, native_channel(address, options=options) as channel:
        code, details = await code_of(EchoStub(channel).unary("who", timeout=20))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert "keep-alive" in details


@pytest.mark.parametrize("without_calls", [True, False])
async def test_keep_alive_without_calls(without_calls: bool) -> None:
    """Pings go out without calls only where that is asked for."""
    options = ChannelOptions(keep_alive_seconds=0.05, keep_alive_without_calls=without_calls)
    async with scripted() as server, native_channel(server.address, options=options) as channel:
        assert await EchoStub(channel).unary("a", timeout=20) == "done"
        pings = server.pings
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(20 if without_calls else 0.5):
                while server.pings < pings + 3:
                    await asyncio.sleep(0.01)
        assert (server.pings >= pings + 3) is without_calls


async def test_options_are_checked() -> None:
    """A time that would mean no pause at all is refused by name."""
    for name in ("keep_alive_seconds", "idle_seconds", "first_back_off_seconds", "longest_back_off_seconds"):
        with pytest.raises(ValueError, match=name):
            NativeChannel("localhost:80", None, options=ChannelOptions(**{name: 0.0}))


async def test_a_close_with_grace_lets_calls_end(echo: AsyncEcho) -> None:
    """close(grace) takes no new calls, lets those under way end, and cancels those that don't."""
    async with native_server(echo) as (_, address):
        channel = NativeChannel(address, None)
        stub = EchoStub(channel)
        stream = stub.chat(timeout=30)
        await stream.write("a")
        assert await stream.read() == "A"
        closing = asyncio.create_task(channel.close(20))
        await channel.wait_for_state_change(READY)
        code, _ = await code_of(stub.unary("late", timeout=10))
        assert code is grpc.StatusCode.CANCELLED
        await stream.write("b")
        assert await stream.read() == "B"
        await stream.done_writing()
        assert await stream.read() is grpc.aio.EOF
        await asyncio.wait_for(closing, 10)

        channel = NativeChannel(address, None)
        call = EchoStub(channel).unary("wait", timeout=30)
        await asyncio.wait_for(echo.started.wait(), 10)
        await channel.close(0.1)
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()
        await asyncio.wait_for(echo.cancelled.wait(), 10)


async def test_grpcios_own_server(echo: AsyncEcho) -> None:
    """round_robin over servers of grpcio."""
    async with contextlib.AsyncExitStack() as stack:
        addresses = []
        for name in "ab":
            server = grpc.aio.server()
            add_echo_to_server(Named(name), server)
            addresses.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
            await server.start()
            stack.push_async_callback(server.stop, 0)
        async with native_channel(f"ipv4:{','.join(addresses)}", service_config=ROUND_ROBIN) as channel:
            await eventually(channel, {"a", "b"})
