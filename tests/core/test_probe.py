"""`meshwright-probe` as a kubelet runs it: a process of its own, whose status counts."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meshwright.core.admin import Admin
from meshwright.core.health import Health


async def probe(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", "-m", "meshwright.core.probe", *arguments,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


@pytest.fixture
async def part(tmp_path: Path) -> AsyncIterator[tuple[str, Health]]:
    health = Health("listener")
    async with Admin(f"unix:{tmp_path}/health.sock", health) as admin:
        assert admin.address
        yield admin.address, health


async def test_a_part_that_is_ready_passes(part):
    address, health = part
    health.set("listener", True)
    assert await probe(address, "/readyz") == (0, "")


async def test_a_part_that_has_failed_is_alive_but_not_ready_and_says_why(part):
    address, health = part
    health.set("listener", False, "the port is taken")
    assert await probe(address, "/healthz") == (0, "")
    status, said = await probe(address, "/readyz")
    assert status == 1
    assert "answers 503" in said
    assert "the port is taken" in said


async def test_nobody_there_fails(tmp_path):
    status, said = await probe(f"unix:{tmp_path}/nobody.sock", "/readyz")
    assert status == 1
    assert "No such file" in said


async def test_a_server_that_speaks_something_else_fails():
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")  # closed with a request unread, the connection would be reset
        writer.write(b"220 mail\r\n")
        writer.close()

    server = await asyncio.start_server(greet, "127.0.0.1")
    async with server:
        status, said = await probe(f"127.0.0.1:{server.sockets[0].getsockname()[1]}", "/readyz")
    assert (status, "isn't HTTP" in said) == (1, True)


@pytest.mark.parametrize("address", ["10.0.0.7:80", "localhost:80", "127.0.0.1:http"])
async def test_only_this_machine_is_asked_in_plain_text(address):
    status, said = await probe(address, "/readyz")
    assert (status, "not an address of this machine" in said) == (1, True)


async def test_wrong_arguments_are_told():
    status, said = await probe("unix:/run/health.sock")
    assert (status, said.startswith("usage:")) == (64, True)
