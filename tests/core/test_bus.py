"""core.bus: one contract for NATS and for the bus in memory; NATS' outages and certificates besides."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import servers

from meshwright.core import errors
from meshwright.core.bus import Bus, Delivery, MemoryBus, NatsBus, server_config
from meshwright.core.bus.memory import matches


class Server(servers.Process):
    """A NATS server with the platform's configuration, certificates included."""

    def __init__(self, folder: Path, pki: servers.InfrastructurePki) -> None:
        port = servers.free_port()
        tls, config = pki.write(folder / "tls", "nats"), folder / "nats.conf"
        config.write_text(server_config(listen=f"127.0.0.1:{port}", tls=tls, store=folder / "store"))
        super().__init__([servers.nats_binary(), "-c", str(config)], port, folder / "log")
        self._folder, self._pki = folder, pki

    def bus(self, user: str) -> NatsBus:
        return NatsBus(self.address, self._pki.write(self._folder / user, user), name=user)


@pytest.fixture
def server(tmp_path: Path, infrastructure: servers.InfrastructurePki) -> Iterator[Server]:
    running = Server(tmp_path, infrastructure)
    running.start()
    yield running
    running.kill()


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    if request.param == "memory":
        yield MemoryBus()
    else:
        async with request.getfixturevalue("server").bus("mixer") as connected:
            yield connected


async def take(bus: Bus, count: int, **options: float) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(20), aclosing(bus.consume("S", "workers", "meshwright.mixer.s", **options)) as source:
        async for delivery in source:
            taken.append(delivery)
            if len(taken) == count:
                break
    return taken


async def test_listeners_hear_and_queues_share(bus: Bus) -> None:
    heard: dict[str, list[bytes]] = {"all": [], "one": [], "other": []}
    ready = asyncio.Event()

    async def listen(name: str, subject: str, queue: str | None) -> None:
        async for message in bus.subscribe(subject, queue):
            if message.data == b"ready?":
                if name == "all":
                    ready.set()
                continue
            heard[name].append(message.data)

    tasks = [
        asyncio.create_task(listen("all", "meshwright.mixer.>", None)),
        asyncio.create_task(listen("one", "meshwright.mixer.news", "q")),
        asyncio.create_task(listen("other", "meshwright.mixer.news", "q")),
    ]
    async with asyncio.timeout(20):
        while not ready.is_set():
            await bus.publish("meshwright.mixer.news", b"ready?")
            await asyncio.sleep(0.01)
        for number in range(20):
            await bus.publish("meshwright.mixer.news", str(number).encode())
        while len(heard["all"]) < 20 or len(heard["one"]) + len(heard["other"]) < 20:
            await asyncio.sleep(0.01)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(heard["one"] + heard["other"]) == sorted(heard["all"])


async def test_a_durable_message_is_given_until_it_is_acknowledged(bus: Bus) -> None:
    await bus.ensure_stream("S", ["meshwright.mixer.s"], max_bytes=100_000)
    await bus.publish_durable("meshwright.mixer.s", b"x", msg_id="1", headers={"traceparent": "00-a-b-01"})
    (first,) = await take(bus, 1)
    assert (first.data, first.count, first.headers["traceparent"]) == (b"x", 1, "00-a-b-01")
    await first.nak()
    (second,) = await take(bus, 1)
    assert (second.data, second.count) == (b"x", 2)
    await second.ack()
    await bus.publish_durable("meshwright.mixer.s", b"y", msg_id="2")
    (third,) = await take(bus, 1)
    assert (third.data, third.count) == (b"y", 1)
    await third.ack()


async def test_a_message_that_nobody_settles_comes_again(bus: Bus) -> None:
    await bus.ensure_stream("S", ["meshwright.mixer.s"], max_bytes=100_000)
    await bus.publish_durable("meshwright.mixer.s", b"x", msg_id="1")
    (lost,) = await take(bus, 1, ack_seconds=0.5)
    (again,) = await take(bus, 1, ack_seconds=0.5)
    assert (lost.count, again.count) == (1, 2)
    await again.ack()


async def test_the_same_id_is_stored_once(bus: Bus) -> None:
    await bus.ensure_stream("S", ["meshwright.mixer.s"], max_bytes=100_000)
    for data in (b"x", b"x"):
        await bus.publish_durable("meshwright.mixer.s", data, msg_id="1")
    await bus.publish_durable("meshwright.mixer.s", b"last", msg_id="2")
    assert [delivery.data for delivery in await take(bus, 2)] == [b"x", b"last"]


async def test_a_full_stream_refuses_the_new_and_keeps_the_old(bus: Bus) -> None:
    await bus.ensure_stream("S", ["meshwright.mixer.s"], max_bytes=10_000)
    await bus.publish_durable("meshwright.mixer.s", b"first", msg_id="first")
    with pytest.raises(errors.Exhausted, match="full"):
        for number in range(20):
            await bus.publish_durable("meshwright.mixer.s", b"x" * 1000, msg_id=str(number))
    (first,) = await take(bus, 1)
    assert first.data == b"first"


async def test_without_a_stream_nothing_is_promised(bus: Bus) -> None:
    with pytest.raises(errors.NotFound, match="no stream takes"):
        await bus.publish_durable("meshwright.mixer.nowhere", b"x", msg_id="1")


async def test_too_large_a_message_is_refused(bus: Bus) -> None:
    with pytest.raises(errors.ConfigError, match="at most"):
        await bus.publish("meshwright.mixer.x", b"x" * (1024 * 1024 + 1))


async def test_stored_messages_survive_a_killed_server(server: Server) -> None:
    async with server.bus("mixer") as bus:
        await bus.ensure_stream("S", ["meshwright.mixer.s"], max_bytes=100_000)
        await bus.publish_durable("meshwright.mixer.s", b"before", msg_id="1")
        server.kill()
        async with asyncio.timeout(20):
            while bus.is_connected:
                await asyncio.sleep(0.01)
        with pytest.raises(errors.Unavailable, match="is away"):
            await bus.publish_durable("meshwright.mixer.s", b"between", msg_id="2")
        server.start()
        async with asyncio.timeout(20):
            while not bus.is_connected:
                await asyncio.sleep(0.01)
        await bus.publish_durable("meshwright.mixer.s", b"after", msg_id="3")
        assert [delivery.data for delivery in await take(bus, 2)] == [b"before", b"after"]


async def test_a_server_that_comes_late_is_waited_for(
    tmp_path: Path, infrastructure: servers.InfrastructurePki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshwright.core.bus.api.DEADLINE_SECONDS", 0.1)
    late = Server(tmp_path, infrastructure)
    async with late.bus("mixer") as bus:
        with pytest.raises(errors.Unavailable):
            await bus.publish("meshwright.mixer.x", b"x")
        late.start()
        async with asyncio.timeout(20):
            while not bus.is_connected:
                await asyncio.sleep(0.01)
        await bus.publish("meshwright.mixer.x", b"x")
    late.kill()


async def test_a_service_publishes_only_below_its_own_prefix(server: Server) -> None:
    async with server.bus("citadel") as bus:
        with pytest.raises(errors.MeshwrightError):
            await bus.ensure_stream("S", ["meshwright.mixer.s"], max_bytes=1000)


def test_plain_text_and_foreign_certificates_are_refused(server: Server, tmp_path: Path) -> None:
    """Asked of the socket itself: the server says nothing in plain text and wants a certificate of its CA."""
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, timeout=10) as raw:
        raw.sendall(b"CONNECT {}\r\nPING\r\n")
        answer = raw.recv(4096)
        assert not answer or answer[0] == 0x15  # a TLS alert
    foreign = servers.InfrastructurePki().write(tmp_path / "foreign", "mixer")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.load_cert_chain(foreign / "cert.pem", foreign / "key.pem")
    with (
        socket.create_connection(address, timeout=5) as raw,
        context.wrap_socket(raw, do_handshake_on_connect=False) as wrapped,
        pytest.raises(OSError),  # an alert, or a reset, whichever comes first
    ):
        wrapped.do_handshake()
        if not wrapped.recv(1):
            raise ConnectionResetError


@pytest.mark.parametrize(
    ("pattern", "subject", "fits"),
    [
        ("a.b", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a", "a.b", False),
        (">", "a.b", True),
    ],
)
def test_subject_patterns(pattern: str, subject: str, fits: bool) -> None:
    assert matches(pattern, subject) is fits
