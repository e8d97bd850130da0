"""Compressed messages in both directions, with grpcio on the other side; what is no such message is refused."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub, SyncEcho, add_echo_to_server
from serve_raw import RawCalls, framed, frames
from serve_rig import native_channel, native_server

from meshwright.dataplane.grpc import Limits

GZIP, DEFLATE = grpc.Compression.Gzip, grpc.Compression.Deflate
LONG = "long enough to gain " * 1000


@pytest.mark.parametrize("compression", [GZIP, DEFLATE])
@pytest.mark.parametrize("servicer", [AsyncEcho, SyncEcho])
async def test_compressed_requests_of_grpcio_are_read(servicer: type, compression: grpc.Compression) -> None:
    """grpcio's compressed messages arrive, of single requests and of streams."""
    async with native_server(servicer()) as (_, address), grpc.aio.insecure_channel(address) as channel:
        stub = EchoStub(channel)
        assert await stub.unary(LONG, compression=compression, timeout=10) == LONG
        assert await stub.upload(iter([LONG, "short"]), compression=compression, timeout=10) == f"{LONG}+short"


@pytest.mark.parametrize("compression", [GZIP, DEFLATE])
async def test_our_channel_compresses(compression: grpc.Compression) -> None:
    """Our channel's compressed messages are read by grpcio, and ours reads grpcio's compressed answers."""
    server = grpc.aio.server(compression=compression)
    add_echo_to_server(AsyncEcho(), server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with native_channel(address, compression=compression) as channel:
            stub = EchoStub(channel)
            assert await stub.unary(LONG, timeout=10) == LONG
            assert await stub.upload(iter([LONG, "b"]), timeout=10) == f"{LONG}+b"
            assert await stub.upload(iter([LONG, "b"]), timeout=10, compression=GZIP) == f"{LONG}+b"
            assert [answer async for answer in stub.chat(iter([LONG]), timeout=10)] == [LONG.upper()]
    finally:
        await server.stop(0)


class Chooses(AsyncEcho):
    """Compresses as the request says."""

    async def unary(self, request: str, context: Any) -> str:
        if request == "late":
            await context.send_initial_metadata([])
        if request != "default":
            context.set_compression(grpc.Compression.NoCompression if request == "none" else GZIP)
        return LONG

    async def download(self, request: str, context: Any) -> AsyncIterator[str]:
        context.set_compression(GZIP)
        yield LONG
        context.disable_next_message_compression()
        yield LONG
        yield LONG


@pytest.fixture
async def raw_server() -> AsyncIterator[RawCalls]:
    limits = Limits(message_size=1 << 20)
    async with native_server(Chooses(), compression=DEFLATE, limits=limits) as (_, address):
        host, _, port = address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        yield RawCalls(reader, writer)
        writer.close()


ACCEPT = ("grpc-accept-encoding", "identity, gzip,deflate")


@pytest.mark.parametrize(
    ("request_text", "accept", "encoding"),
    [
        ("default", [ACCEPT], "deflate"),
        ("gzip", [ACCEPT], "gzip"),
        ("none", [ACCEPT], None),
        ("default", [("grpc-accept-encoding", "identity")], None),
        ("gzip", [], None),
        ("late", [ACCEPT], None),
    ],
)
async def test_the_answers_encoding(
    raw_server: RawCalls, request_text: str, accept: list[tuple[str, str]], encoding: str | None
) -> None:
    """The handler's choice, else the server's, and never what the caller doesn't take."""
    initial, body, trailers = await raw_server.call("Unary", framed(request_text.encode()), *accept)
    if request_text == "late":
        assert trailers["grpc-status"] == str(grpc.StatusCode.UNKNOWN.value[0])
        return
    assert trailers["grpc-status"] == "0"
    assert initial.get("grpc-encoding") == encoding
    assert initial["grpc-accept-encoding"] == "identity,deflate,gzip"
    [(flag, message)] = frames(body)
    assert flag == (0 if encoding is None else 1)
    plain = {"gzip": gzip.decompress, "deflate": zlib.decompress, None: bytes}[encoding](message)
    assert plain == LONG.encode()


async def test_one_message_may_stay_plain(raw_server: RawCalls) -> None:
    """disable_next_message_compression() counts for one message."""
    _, body, _ = await raw_server.call("Download", framed(b"3"), ACCEPT)
    assert [flag for flag, _ in frames(body)] == [1, 0, 1]


@pytest.mark.parametrize("method", ["Unary", "Upload"])
@pytest.mark.parametrize(
    ("encoding", "body", "code"),
    [
        pytest.param("snappy", framed(b"x"), grpc.StatusCode.UNIMPLEMENTED, id="unknown"),
        pytest.param(None, framed(b"x", 1), grpc.StatusCode.INTERNAL, id="no encoding"),
        pytest.param("identity", framed(b"x", 1), grpc.StatusCode.INTERNAL, id="identity"),
        pytest.param("gzip", framed(b"no gzip", 1), grpc.StatusCode.INTERNAL, id="no gzip"),
        pytest.param("gzip", framed(gzip.compress(b"x") + b"more", 1), grpc.StatusCode.INTERNAL, id="padded"),
        pytest.param("gzip", framed(gzip.compress(b"x" * 1000)[:-9], 1), grpc.StatusCode.INTERNAL, id="cut"),
        pytest.param("gzip", framed(b"", 7), grpc.StatusCode.INTERNAL, id="flag 7"),
        pytest.param(
            "gzip", framed(gzip.compress(bytes(12 << 20)), 1), grpc.StatusCode.RESOURCE_EXHAUSTED, id="gzip bomb"
        ),
        pytest.param(
            "deflate", framed(zlib.compress(bytes(12 << 20)), 1), grpc.StatusCode.RESOURCE_EXHAUSTED, id="deflate bomb"
        ),
    ],
)
async def test_bad_messages_are_refused(
    raw_server: RawCalls, method: str, encoding: str | None, body: bytes, code: grpc.StatusCode
) -> None:
    """Each in the way that gRPC's compression document names, and the connection lives on."""
    headers = [] if encoding is None else [("grpc-encoding", encoding)]
    initial, _, trailers = await raw_server.call(method, body, *headers)
    assert trailers["grpc-status"] == str(code.value[0]), trailers
    if code is grpc.StatusCode.UNIMPLEMENTED:
        assert initial["grpc-accept-encoding"] == "identity,deflate,gzip"
    _, _, trailers = await raw_server.call("Unary", framed(b"default"))
    assert trailers["grpc-status"] == "0"
