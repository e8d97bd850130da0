"""Envoy's access log stream: entries become records, and a full queue holds the stream back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from taken_records import drained

from meshwright.api.envoy.service.accesslog.v3 import als_pb2, als_pb2_grpc
from meshwright.api.mixer.v1 import record_pb2
from meshwright.dataplane.grpc import NativeServer
from meshwright.dataplane.policy import Engine

SHOP = "spiffe://mesh.local/ns/demo/sa/shop"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def message(number: int) -> als_pb2.StreamAccessLogsMessage:
    """One entry of one request."""
    logs = als_pb2.StreamAccessLogsMessage()
    entry = logs.http_logs.log_entry.add()
    common = entry.common_properties
    common.custom_tags.update({"destination.service.host": "catalog.demo", "context.reporter.kind": "inbound"})
    common.tls_properties.peer_certificate_properties.subject_alt_name.add(uri=SHOP)
    common.downstream_remote_address.socket_address.address = "10.57.0.9"
    common.duration.FromMilliseconds(12)
    common.response_flags.unauthorized_details.SetInParent()
    entry.request.path = f"/items/{number}?q=1"
    entry.request.request_method = 1
    entry.request.request_headers["traceparent"] = f"00-{TRACE}-00f067aa0ba902b7-01"
    entry.response.response_code.value = 403
    return logs


async def test_an_http_entry_becomes_mixers_attributes(engine, channel) -> None:
    """Identity, path, code, duration, flags and trace."""

    async def entries() -> AsyncIterator[als_pb2.StreamAccessLogsMessage]:
        yield message(1)

    await als_pb2_grpc.AccessLogServiceStub(channel).StreamAccessLogs(entries(), timeout=5)
    [record] = await drained(engine, 1)
    found = record.attributes.attributes
    assert (record.kind, record.trace_id) == (record_pb2.Record.HTTP_ACCESS, TRACE)
    strings = {
        "request.path": "/items/1?q=1",
        "request.url_path": "/items/1",
        "request.method": "GET",
        "source.principal": SHOP,
        "source.namespace": "demo",
        "destination.service.host": "catalog.demo",
        "context.protocol": "http",
        "context.proxy_error_code": "UAEX",
    }
    assert {name: found[name].string_value for name in strings} == strings
    assert found["response.code"].int64_value == 403
    assert found["response.duration"].duration_value.ToMilliseconds() == 12
    assert found["source.ip"].bytes_value == bytes([10, 57, 0, 9])
    assert found["connection.mtls"].bool_value
    assert record.emissions[0].fields["value"].int64_value == 403


async def test_a_full_queue_holds_the_stream_back_and_loses_nothing(policy) -> None:
    """All entries arrive, once, however late the records are stored."""
    engine = Engine(record_bytes=4096)
    engine.load(policy.bytes())
    server = NativeServer("127.0.0.1:0", None, native=[engine.services])
    address = await server.start()
    count = 50

    async def entries() -> AsyncIterator[als_pb2.StreamAccessLogsMessage]:
        for number in range(count):
            yield message(number)

    async with grpc.aio.insecure_channel(address) as channel:
        call = als_pb2_grpc.AccessLogServiceStub(channel).StreamAccessLogs(entries(), timeout=20)
        async with asyncio.timeout(10):
            while engine.stats()["access_log_waits"] == 0:
                await asyncio.sleep(0.01)
        assert engine.stats()["records_waiting"] < count
        engine.carry_records(None, batch_seconds=0.01)
        records = await drained(engine, count)
        await call
    paths = [record.attributes.attributes["request.url_path"].string_value for record in records]
    assert sorted(paths) == sorted(f"/items/{number}" for number in range(count))
    await server.stop(1)
