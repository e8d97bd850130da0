"""The sidecar's program without a pod: what it loads, what it refuses, and rules that the kernel's own tool takes."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from envoys import serving
from sidecar_pods import SIDECAR

from meshwright.core.grpc import introspection
from meshwright.core.health import Health
from meshwright.platform.sidecar import http, probes, redirect


def test_what_stays_in_every_pod_loads_little() -> None:
    """Each of these packages would cost every pod some of its memory and start."""
    script = "import sys, meshwright.platform.sidecar.run, meshwright.platform.sidecar.redirect; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    heavy = {"pydantic", "grpc", "google.protobuf", "cryptography", "structlog", "typer", "uvicorn", "rich"}
    assert not heavy & set(loaded.stdout.split())


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: nft looks at rules in a network namespace only")
def test_rules_replace_themselves_and_leave_out_what_is_excluded() -> None:
    """nft reads them all (without putting them into force), in the order in which they are meant."""
    text = redirect.rules(
        outbound_ports=[5432], outbound_ranges=["10.0.0.0/8", "fd00::/8"], inbound_ports=[9100], interfaces=["nsm-1"]
    )
    subprocess.run(["unshare", "--net", "nft", "--check", "-f", "-"], input=text, text=True, check=True, timeout=20)
    lines = [line.strip() for line in text.splitlines()]
    redirected = lines.index("meta l4proto tcp redirect to :15001")
    for excluded in ('oifname { "nsm-1" }', "tcp dport { 5432 }", "ip daddr { 10.0.0.0/8 }", "ip6 daddr { fd00::/8 }"):
        assert lines.index(f"{excluded} return") < redirected
    assert "tcp dport { 9100, 15001, 15006, 15020 } return" in lines


@pytest.mark.parametrize(
    "options",
    [
        ["redirect", "--exclude-outbound-ports=http"],
        ["redirect", "--exclude-inbound-ports=0"],
        ["redirect", "--exclude-outbound-ranges=ten"],
        ["run"],
        ["dance"],
    ],
)
def test_bad_arguments_are_refused(options: list[str]) -> None:
    done = subprocess.run([*SIDECAR, *options], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "meshwright-sidecar" in done.stderr


@pytest.mark.parametrize("text", ["app/livez", "app/livez=http://host/", "app/livez=ftp://:21/", "=tcp://:1"])
def test_a_probe_that_cannot_be_asked_is_refused(text: str) -> None:
    with pytest.raises((OSError, ValueError)):
        probes.parse(text, "127.0.0.1")


async def test_a_grpc_probe_asks_the_health_service() -> None:
    """As the kubelet's own does: serving is 200, anything else isn't."""
    health = Health("it")
    async with serving("127.0.0.1:0", None, lambda server: introspection.add_to_server(server, health)) as address:
        _, ask = probes.parse(f"app/startupz=grpc://:{address.rpartition(':')[2]}/", "127.0.0.1")
        health.set("it", ok=True)
        assert (await ask(http.Request("/"))).status == 200
        _, other = probes.parse(f"app/startupz=grpc://:{address.rpartition(':')[2]}/unknown", "127.0.0.1")
        assert (await other(http.Request("/"))).status == 503
    assert (await ask(http.Request("/"))).status == 503


@pytest.fixture
async def answers() -> AsyncIterator[Callable[[bytes], Awaitable[bytes]]]:
    """A server for probes that answers with the path; yields a function that sends bytes to it."""

    async def echo(request: http.Request) -> http.Answer:
        if request.path == "/fails":
            raise ConnectionRefusedError("nobody listens")
        return http.Answer(200, request.path.encode())

    port = 15020

    async def send(data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.read(), 20)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    async with http.serving(0, echo) as served:
        port = served
        yield send


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /a?b HTTP/1.1\r\nhost: x\r\n\r\n", b"200"),
        (b"HEAD /a HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /fails HTTP/1.1\r\n\r\n", b"503"),
        (b"POST /a HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense\r\n\r\n", b"405"),
        (b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n", b""),
    ],
)
async def test_whatever_arrives_is_answered_or_closed(
    answers: Callable[[bytes], Awaitable[bytes]], sent: bytes, status: bytes
) -> None:
    said = await answers(sent)
    assert said.split(b" ")[1:2] == ([status] if status else [])


@pytest.mark.parametrize(
    ("said", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", None),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\na\r\n", None),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nFFFFFFFF\r\n", None),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", None),
        (b"220 smtp.example\r\n\r\n", None),
        (b"", None),
    ],
)
async def test_an_answer_is_read_whole_or_not_at_all(said: bytes, body: bytes | None) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(said)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        where = http.Tcp("127.0.0.1", server.sockets[0].getsockname()[1])
        if body is None:
            with pytest.raises(http.MalformedError):
                await http.ask(where, "/")
        else:
            assert await http.ask(where, "/") == http.Answer(200, body)
