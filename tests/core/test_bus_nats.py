"""What only the bus on NATS can show: outages in health, a lost JetStream store, and who may hear what."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
import servers

from meshwright.core import health
from meshwright.core.bus import NatsBus, server_config

SUBJECT = "meshwright.mixer.s"


class Nats(servers.Process):
    """A NATS server with the platform's configuration."""

    def __init__(self, folder: Path, pki: servers.InfrastructurePki) -> None:
        port = servers.free_port()
        self.folder, self.pki, self.store = folder, pki, folder / "store"
        tls, config = pki.write(folder / "tls", "nats"), folder / "nats.conf"
        config.write_text(server_config(listen=f"127.0.0.1:{port}", tls=tls, store=self.store))
        super().__init__([servers.nats_binary(), "-c", str(config)], port, folder / "log")

    def bus(self, user: str, *, name: str = "", conditions: health.Health | None = None) -> NatsBus:
        tls = self.pki.write(self.folder / user, user)
        return NatsBus(self.address, tls, name=name or user, health=conditions)


@pytest.fixture
def server(tmp_path: Path, infrastructure: servers.InfrastructurePki) -> Iterator[Nats]:
    running = Nats(tmp_path, infrastructure)
    running.start()
    yield running
    running.kill()


async def until(conditions: health.Health, state: health.State) -> None:
    async with asyncio.timeout(20):
        async for _ in conditions.changes():
            if conditions.state() is state:
                return


async def test_outage_is_told_and_over_when_the_server_is_back(server: Nats) -> None:
    conditions = health.Health("bus")
    async with server.bus("mixer", conditions=conditions):
        await until(conditions, health.State.OK)
        server.kill()
        await until(conditions, health.State.DEGRADED)
        assert conditions.ready()
        await asyncio.to_thread(server.start)
        await until(conditions, health.State.OK)


async def test_lost_store_costs_what_was_in_it_and_nothing_more(server: Nats) -> None:
    """The server comes back with an empty disk: publisher and consumer make the stream again and go on."""
    async with server.bus("mixer") as bus:
        await bus.ensure_stream("S", [SUBJECT], max_bytes=100_000)
        async with aclosing(bus.consume("S", "workers", SUBJECT)) as deliveries:
            await bus.publish_durable(SUBJECT, b"1", msg_id="1")
            async with asyncio.timeout(30):
                first = await anext(deliveries)
                assert first.data == b"1"
                await first.ack()
                pending = asyncio.ensure_future(anext(deliveries))
                server.kill()
                shutil.rmtree(server.store)
                while bus.is_connected:
                    await asyncio.sleep(0.01)
                await asyncio.to_thread(server.start)
                while not bus.is_connected:
                    await asyncio.sleep(0.01)
                await bus.publish_durable(SUBJECT, b"2", msg_id="2")
                assert (await pending).data == b"2"


async def test_replies_and_deliveries_are_heard_by_their_user_only(server: Nats) -> None:
    """A service that asks for another's inbox is refused by the server."""
    async with server.bus("mixer") as mixer, server.bus("manager") as manager:
        await mixer.ensure_stream("S", [SUBJECT], max_bytes=100_000)
        heard: list[bytes] = []

        async def eavesdrop() -> None:
            async for message in manager.subscribe("_INBOX_mixer.>"):
                heard.append(message.data)

        listening = asyncio.create_task(eavesdrop())
        async with asyncio.timeout(20):
            while "permissions violation" not in manager._last_error.lower():
                await asyncio.sleep(0.01)
        await mixer.publish_durable(SUBJECT, b"secret", msg_id="1")
        async with asyncio.timeout(20), aclosing(mixer.consume("S", "workers", SUBJECT)) as deliveries:
            assert (await anext(deliveries)).data == b"secret"
        assert heard == []
        listening.cancel()
