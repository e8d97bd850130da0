"""core.telemetry: spans of Python and Rust reach the collector once, with the context of their callers."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2

from meshwright.core import grpc as mesh_grpc
from meshwright.core.grpc import tracing
from meshwright.core.identity import StaticIdentity, part_id
from meshwright.core.telemetry import Telemetry, sender
from pki import Pki


class Sink(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps what it gets."""

    def __init__(self) -> None:
        self.spans: list[trace_pb2.Span] = []
        self.arrived = asyncio.Event()

    async def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: object
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        self.arrived.set()
        return trace_service_pb2.ExportTraceServiceResponse()

    async def until(self, count: int) -> list[trace_pb2.Span]:
        async with asyncio.timeout(10):
            while len(self.spans) < count:
                self.arrived.clear()
                await self.arrived.wait()
        return self.spans


@dataclass(frozen=True)
class Span:
    """A finished span as Rust hands it over."""

    name: str = "policy.check"
    trace_id: bytes = b"\1" * 16
    span_id: bytes = b"\2" * 8
    parent_span_id: bytes = b"\3" * 8
    kind: str = "internal"
    start_unix_ns: int = 1
    end_unix_ns: int = 2
    error: str | None = "denied"
    attributes: dict[str, str | bool | int | float] = field(default_factory=lambda: {"a": True, "b": 1, "c": 0.5})


async def serve(pki: Pki, sink: Sink, listen: str = "127.0.0.1:0") -> tuple[mesh_grpc.Server, str]:
    server = mesh_grpc.Server(listen, StaticIdentity(pki.part("collector")))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(sink, server)
    return server, await server.start()


async def test_native_spans_arrive_as_they_were(pki: Pki) -> None:
    sink = Sink()
    server, address = await serve(pki, sink)
    async with Telemetry("mixer", address, StaticIdentity(pki.part("mixer")), "mesh.local") as telemetry:
        telemetry.export_native_spans([Span()])
        (span,) = await sink.until(1)
    await server.stop(0)
    assert (span.name, span.trace_id, span.parent_span_id) == ("policy.check", b"\1" * 16, b"\3" * 8)
    assert span.status.message == "denied"
    assert {pair.key: pair.value.WhichOneof("value") for pair in span.attributes} == {
        "a": "bool_value",
        "b": "int_value",
        "c": "double_value",
    }


async def test_a_collector_that_comes_late_gets_what_waited(pki: Pki) -> None:
    sink = Sink()
    server, address = await serve(pki, sink)
    await server.stop(0)
    async with Telemetry("mixer", address, StaticIdentity(pki.part("mixer")), "mesh.local") as telemetry:
        telemetry.export_native_spans([Span()])
        server, _ = await serve(pki, sink, address)
        await sink.until(1)
    await server.stop(0)
    assert len(sink.spans) == 1


async def test_a_full_queue_drops_and_counts(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "QUEUE", 2)
    monkeypatch.setattr(sender, "FLUSH", 0.01)
    dropped = sender.DROPPED.labels("queue full")
    before = dropped._value.get()
    nobody = "127.0.0.1:1"
    async with Telemetry("mixer", nobody, StaticIdentity(pki.part("mixer")), "mesh.local") as telemetry:
        for _ in range(10):
            telemetry.export_native_spans([Span()])
        await asyncio.sleep(0)
        assert dropped._value.get() - before >= 7


def test_a_trace_goes_through_channel_and_server() -> None:
    """In a process of its own, because the tracer provider is the process's."""
    done = subprocess.run(
        [sys.executable, "-W", "error", __file__],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ok"


class Health(health_pb2_grpc.HealthServicer):
    async def Check(self, request: object, context: object) -> health_pb2.HealthCheckResponse:
        with trace.get_tracer("test").start_as_current_span("inside"):
            return health_pb2.HealthCheckResponse()


async def through() -> None:
    """A root span, a client span, a server span and one inside the handler, each the child of the one before."""
    tracing._SILENT = ()  # health is only the nearest service at hand
    pki, sink = Pki(), Sink()
    collector, address = await serve(pki, sink)
    server = mesh_grpc.Server("127.0.0.1:0", StaticIdentity(pki.part("manager")))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    target = await server.start()
    me = StaticIdentity(pki.part("admin"))
    async with (
        Telemetry("admin", address, me, "mesh.local", roots=True),
        mesh_grpc.Channel(target, me, peer=part_id("mesh.local", "manager")) as channel,
    ):
        stub = health_pb2_grpc.HealthStub(channel)
        with trace.get_tracer("test").start_as_current_span("root"):
            await stub.Check(health_pb2.HealthCheckRequest())
        await sink.until(4)
    await server.stop(0)
    await collector.stop(0)
    by_id = {span.span_id: span for span in sink.spans}
    inside = next(span for span in sink.spans if span.name == "inside")
    chain = [inside]
    while chain[-1].parent_span_id:
        chain.append(by_id[chain[-1].parent_span_id])
    kinds = [(span.name, span.kind) for span in chain]
    call = "grpc.health.v1.Health/Check"
    assert kinds == [
        ("inside", trace_pb2.Span.SPAN_KIND_INTERNAL),
        (call, trace_pb2.Span.SPAN_KIND_SERVER),
        (call, trace_pb2.Span.SPAN_KIND_CLIENT),
        ("root", trace_pb2.Span.SPAN_KIND_INTERNAL),
    ]
    assert len({span.trace_id for span in sink.spans}) == 1


if __name__ == "__main__":
    asyncio.run(through())
    print("ok")
