"""A service of the demo: over TCP, where its sidecar's part is redirection, it serves, asks the next one, and stops."""

from __future__ import annotations

import asyncio
import json
import socket

import pytest

from meshwright.core import errors
from meshwright.core.settings import load
from meshwright.platform.demo import service
from meshwright.platform.demo.client import Answer, over_tcp


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def settings(*arguments: str) -> service.AppSettings:
    return load(service.AppSettings, arguments)


async def answered(port: int, path: str) -> Answer:
    """Ask until the service listens."""
    pool = over_tcp("127.0.0.1", port)
    async with asyncio.timeout(20):
        while True:
            try:
                return await pool.get("shop.demo", path)
            except errors.Unavailable:
                await asyncio.sleep(0.01)
            finally:
                pool.forget()


async def test_a_chain_by_tcp_answers_with_both_and_stops() -> None:
    """The first service's answer carries the second one's."""
    shop, stock = free_port(), free_port()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run(settings("--name=stock", f"--listen=127.0.0.1:{stock}"), stop))
        upstream = f"--upstream=127.0.0.1:{stock}"
        tasks.create_task(service.run(settings("--name=shop", f"--listen=127.0.0.1:{shop}", upstream), stop))
        await answered(stock, "/healthz")
        answer = await answered(shop, "/anything")
        stop.set()
    said = json.loads(answer.body)
    assert (answer.status, said["service"], said["upstream"]["service"]) == (200, "shop", "stock")


async def test_an_upstream_that_is_away_is_a_502_that_says_so() -> None:
    shop = free_port()
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        upstream = f"--upstream=127.0.0.1:{free_port()}"
        tasks.create_task(service.run(settings("--name=shop", f"--listen=127.0.0.1:{shop}", upstream), stop))
        answer = await answered(shop, "/anything")
        stop.set()
    assert answer.status == 502
    assert "error" in json.loads(answer.body)


async def test_an_upstream_by_tcp_needs_a_port() -> None:
    with pytest.raises(errors.ConfigError, match="host:port"):
        await service.run(settings("--name=shop", "--listen=127.0.0.1:0", "--upstream=stock"), asyncio.Event())


def test_spans_need_an_identity(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        settings("--name=shop", "--listen=127.0.0.1:0", "--otlp=127.0.0.1:4317")
    assert "--workload-api" in capsys.readouterr().err
