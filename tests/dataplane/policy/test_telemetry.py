"""OTLP over the wire: every resource is a record with its sender's identity, and what can't be forwarded is told."""

from __future__ import annotations

import asyncio
import gzip
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc

from meshwright.api.mixer.v1 import record_pb2
from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.core.identity import StaticIdentity
from meshwright.dataplane.grpc import NativeChannel, NativeServer
from meshwright.dataplane.policy import Engine

MIXER = "spiffe://mesh.local/ns/meshwright-system/sa/mixer"
SHOP = "spiffe://mesh.local/ns/demo/sa/shop"
SIGNALS = {
    "traces": (traces.ExportTraceServiceRequest, trace_service_pb2_grpc.TraceServiceStub),
    "metrics": (metrics.ExportMetricsServiceRequest, metrics_service_pb2_grpc.MetricsServiceStub),
    "logs": (logs.ExportLogsServiceRequest, logs_service_pb2_grpc.LogsServiceStub),
}


def fill(message: Any, choice: int, depth: int = 12) -> Any:
    """Set every field of a message and of those in it, by its descriptor; of a oneof the one that `choice` says."""
    for field in message.DESCRIPTOR.fields:
        oneof = field.containing_oneof
        if oneof and field is not oneof.fields[choice % len(oneof.fields)]:
            continue
        if field.message_type:
            child = getattr(message, field.name)
            if field.is_repeated and depth:
                fill(child.add(), choice, depth - 1)
            elif not field.is_repeated:
                child.SetInParent()
                fill(child, choice, max(0, depth - 1))
            continue
        value = {
            FieldDescriptor.CPPTYPE_STRING: "text" if field.type == FieldDescriptor.TYPE_STRING else b"\x01" * 8,
            FieldDescriptor.CPPTYPE_BOOL: True,
            FieldDescriptor.CPPTYPE_DOUBLE: 1.5,
            FieldDescriptor.CPPTYPE_ENUM: 1,
        }.get(field.cpp_type, 7)
        if field.is_repeated:
            getattr(message, field.name).extend([value, value])
        else:
            setattr(message, field.name, value)
    return message


async def drained(engine: Engine) -> list[record_pb2.Record]:
    """All records that wait, as a handler in Python gets them."""
    records: list[record_pb2.Record] = []
    async with asyncio.timeout(10):
        while True:
            batch = await asyncio.to_thread(engine.take_records, 0.05)
            if batch is not None:
                records += [record_pb2.Record.FromString(data) for data, _ in batch.records]
                batch.settle([])
            elif await asyncio.to_thread(engine.finish_records, 0.0):
                return records


@pytest.mark.parametrize("choice", range(7))
@pytest.mark.parametrize("signal", SIGNALS)
async def test_every_field_of_otlp_is_forwarded(engine, channel, signal, choice) -> None:
    """A request with everything in it comes out as it went in, whichever kind of value or metric it has."""
    message, stub = SIGNALS[signal]
    request = fill(message(), choice)
    answer = await stub(channel).Export(request, timeout=5)
    assert not answer.HasField("partial_success"), answer
    [record] = await drained(engine)
    assert message.FromString(record.otlp) == request
    assert record.kind == record_pb2.Record.Kind.Value(f"OTLP_{signal.upper()}")
    found = record.attributes.attributes
    assert (found["otlp.signal"].string_value, found["context.protocol"].string_value) == (signal, "otlp")
    texts = {0: "text", 1: "true", 2: "7", 3: "1.5"}  # lists at the end, maps and bytes aren't text
    assert found["otlp.attributes"].string_map_value.entries.get("text") == texts.get(choice)


def span(name: str, **attributes: str) -> traces.ExportTraceServiceRequest:
    """A request with one span, and these attributes of its resource."""
    request = traces.ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    for key, value in attributes.items():
        resource.resource.attributes.add(key=key.replace("_", ".")).value.string_value = value
    resource.scope_spans.add().spans.add(name=name, trace_id=b"\xab" * 16, span_id=b"\xcd" * 8)
    return request


async def test_the_sender_is_who_its_certificate_says(pki, policy) -> None:
    """Its identity is added to the resource, and what it claims to be is taken off."""
    identity = StaticIdentity(pki.identity(MIXER))
    engine = Engine(identity)
    engine.load(policy.bytes())
    engine.carry_records(None, batch_seconds=0.01)
    server = NativeServer("127.0.0.1:0", identity, native=[engine.services])
    address = await server.start()
    request = span("GET /", service_name="shop", source_principal="spiffe://mesh.local/ns/a/sa/admin")
    async with NativeChannel(address, StaticIdentity(pki.identity(SHOP)), peer=MIXER) as channel:
        await trace_service_pb2_grpc.TraceServiceStub(channel).Export(request, timeout=5)
    [record] = await drained(engine)
    resource = traces.ExportTraceServiceRequest.FromString(record.otlp).resource_spans[0].resource
    assert [(each.key, each.value.string_value) for each in resource.attributes] == [
        ("service.name", "shop"),
        ("source.principal", SHOP),
        ("source.namespace", "demo"),
        ("source.serviceAccount", "shop"),
    ]
    found = record.attributes.attributes
    assert found["source.principal"].string_value == SHOP
    assert found["source.service"].string_value == "shop"
    assert record.reporter == SHOP
    await server.stop(1)
    engine.close()


async def test_gzip_is_read_and_a_bomb_is_not(engine, channel) -> None:
    """As OpenTelemetry's exporters send it; what is larger than a message unpacked is refused."""
    stub = trace_service_pb2_grpc.TraceServiceStub(channel)
    await stub.Export(span("x" * 5000), timeout=5, compression=grpc.Compression.Gzip)
    assert len(await drained(engine)) == 1
    export = channel.unary_unary(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export", request_serializer=lambda given: given
    )
    assert len(gzip.compress(bytes(8 << 20))) < 10_000
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await export(bytes(8 << 20), timeout=5, compression=grpc.Compression.Gzip)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_large_requests_are_cut_and_too_large_items_are_named(engine, channel) -> None:
    """The queue takes messages of 1 MiB: three of 300 KiB become several records, one of 500 KiB none."""
    request = span("first", service_name="shop")
    scope = request.resource_spans[0].scope_spans[0]
    scope.scope.name = "library"
    for length in (300_000, 300_000, 300_000, 500_000):
        scope.spans.add(name="x" * length)
    request.resource_spans.add().scope_spans.add().spans.add(name="other resource")
    answer = await trace_service_pb2_grpc.TraceServiceStub(channel).Export(request, timeout=5)
    assert answer.partial_success.rejected_spans == 1
    assert "384 KiB" in answer.partial_success.error_message
    records = await drained(engine)
    requests = [traces.ExportTraceServiceRequest.FromString(record.otlp) for record in records]
    assert all(len(record.SerializeToString()) < 1_000_000 for record in records)
    names = [each.name[:5] for one in requests for each in one.resource_spans[0].scope_spans[0].spans]
    assert sorted(names) == ["first", "other", "xxxxx", "xxxxx", "xxxxx"]
    shop = [one for one in requests if one.resource_spans[0].resource.attributes]
    assert len(shop) == 2
    assert {one.resource_spans[0].scope_spans[0].scope.name for one in shop} == {"library"}
    assert {one.resource_spans[0].resource.attributes[0].value.string_value for one in shop} == {"shop"}


async def test_what_no_collector_could_read_is_rejected_by_itself(engine, channel) -> None:
    """An item that is no such message is left out; bytes that are no request at all are INVALID_ARGUMENT."""
    request = span("good")
    request.resource_spans[0].scope_spans[0].spans.add(name="later broken")
    good = request.SerializeToString()
    export = channel.unary_unary(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        request_serializer=lambda given: given,
        response_deserializer=traces.ExportTraceServiceResponse.FromString,
    )
    answer = await export(good.replace(b"later broken", b"later \xff\xfe\xfd\xfc\xfb\xfa"), timeout=5)
    assert answer.partial_success.rejected_spans == 1
    [record] = await drained(engine)
    forwarded = traces.ExportTraceServiceRequest.FromString(record.otlp)
    assert [each.name for each in forwarded.resource_spans[0].scope_spans[0].spans] == ["good"]
    for bad in (b"\x0a\xff", b"\x08\x01\x0a\x02\x0a\x05", b"\x0d\x01"):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await export(bad, timeout=5)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_full_queue_says_when_to_come_again(policy) -> None:
    """RESOURCE_EXHAUSTED with RetryInfo, else senders drop what they have; nothing of it was taken."""
    engine = Engine(record_bytes=2048)
    engine.load(policy.bytes())
    server = NativeServer("127.0.0.1:0", None, native=[engine.services])
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        stub = trace_service_pb2_grpc.TraceServiceStub(channel)
        calls = [asyncio.ensure_future(stub.Export(span("x"), timeout=20)) for _ in range(50)]
        # None is answered before the queue, which isn't there yet, has what it brought; one finds no room.
        done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_EXCEPTION)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await next(iter(done))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailers = dict(refused.value.trailing_metadata() or ())
        [detail] = status_pb2.Status.FromString(trailers["grpc-status-details-bin"]).details
        info = error_details_pb2.RetryInfo()
        assert detail.Unpack(info)
        assert info.retry_delay.seconds == 1
        async with asyncio.timeout(5):
            while engine.stats()["otlp_requests"] < len(calls):
                await asyncio.sleep(0.01)
        engine.carry_records(None, batch_seconds=0.01)
        found = await asyncio.gather(*calls, return_exceptions=True)
        accepted = sum(not isinstance(each, BaseException) for each in found)
        assert accepted + engine.stats()["otlp_refused_full"] == len(calls)
        assert waiting
        assert len(await drained(engine)) == accepted == engine.stats()["otlp_points"]
        await stub.Export(span("x"), timeout=5)
        assert len(await drained(engine)) == 1
    await server.stop(1)


async def test_what_no_rule_wants_is_told(engine, policy, channel) -> None:
    """A sender whose telemetry goes nowhere hears of it."""
    policy.message.drop_unmatched_reports = True
    del policy.message.rules[:]
    policy.rule(
        policy.equals("otlp.signal", "logs"),
        policy.handler("logs", report=pb.Handler.Sink(sink="logs")),
        policy.instance("all", "otlp", pb.REPORT),
    )
    engine.load(policy.bytes())
    answer = await trace_service_pb2_grpc.TraceServiceStub(channel).Export(span("x"), timeout=5)
    assert answer.partial_success.rejected_spans == 1
    assert "no rule wants it" in answer.partial_success.error_message
    request = logs.ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add(severity_text="INFO")
    answer = await logs_service_pb2_grpc.LogsServiceStub(channel).Export(request, timeout=5)
    assert not answer.HasField("partial_success")


async def test_rules_may_read_single_items(engine, policy, channel) -> None:
    """A policy that asks for spans gets a record for each, in its own trace, beside the whole resource."""
    is_span = policy.equals("otlp.item", "span")
    code = policy.node(pb.EQUAL, policy.read("response.code", pb.INT64), policy.integer(503))
    sink = policy.handler("spans", report=pb.Handler.Sink(sink="spans"))
    failures = policy.instance("failures", "logentry", pb.REPORT, severity=policy.read("otlp.name"))
    policy.rule(policy.node(pb.AND, is_span, code), sink, failures)
    policy.message.drop_unmatched_reports = True
    engine.load(policy.bytes())
    request = span("GET /a", service_name="shop")
    request.resource_spans[0].scope_spans[0].spans[0].attributes.add(
        key="http.response.status_code"
    ).value.int_value = 503
    request.resource_spans[0].scope_spans[0].spans.add(name="fine")
    await trace_service_pb2_grpc.TraceServiceStub(channel).Export(request, timeout=5)
    records = [record for record in await drained(engine) if any(each.sink == "spans" for each in record.emissions)]
    [record] = records
    assert (record.trace_id, record.span_id, record.otlp) == ("ab" * 16, "cd" * 8, b"")
    emission = next(each for each in record.emissions if each.sink == "spans")
    assert emission.fields["severity"].string_value == "GET /a"
