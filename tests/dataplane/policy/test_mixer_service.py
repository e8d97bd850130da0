"""istio.mixer.v1 over the wire: Check and Report answered by the native handlers."""

from __future__ import annotations

import asyncio
import re

import grpc
import pytest

from meshwright.api.istio.mixer.v1 import attributes_pb2, mixer_pb2, mixer_pb2_grpc
from meshwright.api.mixer.v1 import record_pb2
from meshwright.dataplane import telemetry
from meshwright.dataplane.grpc import NativeServer
from meshwright.dataplane.policy import Engine

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def attributes(**strings: str) -> attributes_pb2.CompressedAttributes:
    """String attributes; `__` in a name stands for a dot."""
    message = attributes_pb2.CompressedAttributes()
    for position, (name, value) in enumerate(strings.items()):
        message.words.extend([name.replace("__", "."), value])
        message.strings[-2 * position - 1] = -2 * position - 2
    return message


async def drained(engine: Engine, count: int) -> list[record_pb2.Record]:
    """Wait for as many records."""
    records: list[bytes] = []
    async with asyncio.timeout(10):
        while len(records) < count:
            records += await asyncio.to_thread(engine.drain_records, 100, 0.2)
    return [record_pb2.Record.FromString(record) for record in records]


async def test_a_check_is_denied_by_its_rule(engine, channel) -> None:
    """The status carries the reason, and the span the rule."""
    stub = mixer_pb2_grpc.MixerStub(channel)
    request = mixer_pb2.CheckRequest(
        attributes=attributes(request__url_path="/admin/x", source__principal="spiffe://mesh.local/ns/demo/sa/shop"),
        global_word_count=222,
    )
    telemetry.drain(0)
    response = await stub.Check(request, timeout=5, metadata=[("traceparent", TRACEPARENT)])
    assert response.precondition.status.code == 7
    assert response.precondition.valid_duration.seconds == 5
    assert engine.stats()["checks_denied"] == 1
    spans = {}
    async with asyncio.timeout(5):
        while len(spans) < 2:
            spans |= {span.name: span for span in await asyncio.to_thread(telemetry.drain, 0.2)}
    check = spans["policy.check"]
    assert (check.trace_id.hex(), check.attributes["policy.decision"]) == (TRACE, "deny")
    assert check.attributes["policy.rule"] == "rule0.mesh"
    assert check.parent_span_id == spans["istio.mixer.v1.Mixer/Check"].span_id


async def test_quotas_are_granted_until_the_limit(channel) -> None:
    """Three a minute; best effort takes what is left, and a repeated id changes nothing."""
    stub = mixer_pb2_grpc.MixerStub(channel)

    async def granted(identifier: str, amount: int, *, best_effort: bool = False) -> int:
        request = mixer_pb2.CheckRequest(
            attributes=attributes(request__url_path="/limited", source__principal="ann"),
            deduplication_id=identifier,
        )
        request.quotas["RequestCount"].amount = amount
        request.quotas["RequestCount"].best_effort = best_effort
        response = await stub.Check(request, timeout=5)
        return response.quotas["RequestCount"].granted_amount

    assert [await granted(f"call-{number}", 1) for number in range(2)] == [1, 1]
    assert await granted("call-0", 1) == 1
    assert await granted("strict", 2) == 0
    assert await granted("rest", 2, best_effort=True) == 1
    assert await granted("none", 1, best_effort=True) == 0


@pytest.mark.parametrize(
    ("request_bytes", "code"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (mixer_pb2.CheckRequest(global_word_count=223).SerializeToString(), grpc.StatusCode.INTERNAL),
    ],
)
async def test_a_wrong_check_is_answered_with_an_error(channel, request_bytes, code) -> None:
    """And the server goes on."""
    call = channel.unary_unary("/istio.mixer.v1.Mixer/Check")
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(request_bytes, timeout=5)
    assert failure.value.code() == code
    await mixer_pb2_grpc.MixerStub(channel).Check(mixer_pb2.CheckRequest(), timeout=5)


async def test_a_method_that_isnt_there_is_unimplemented(channel) -> None:
    """Mixer has two."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await channel.unary_unary("/istio.mixer.v1.Mixer/Chat")(b"", timeout=5)
    assert failure.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_reports_become_records_with_an_id_a_trace_and_emissions(engine, channel) -> None:
    """Every element is one record."""
    first = attributes(request__path="/a")
    first.int64s[30] = 200
    first.words.extend(["traceparent", TRACEPARENT])
    first.string_maps[15].entries[-3] = -4
    request = mixer_pb2.ReportRequest(
        attributes=[first, attributes(request__path="/b")],
        global_word_count=222,
        repeated_attributes_semantics=mixer_pb2.ReportRequest.INDEPENDENT_ENCODING,
    )
    await mixer_pb2_grpc.MixerStub(channel).Report(request, timeout=5)
    one, two = await drained(engine, 2)
    assert re.fullmatch("[0-9a-f]{32}", one.id)
    assert one.id != two.id
    assert (one.kind, one.trace_id, one.span_id) == (record_pb2.Record.REPORT, TRACE, "00f067aa0ba902b7")
    assert one.attributes.attributes["request.path"].string_value == "/a"
    assert [(emission.sink, emission.fields["value"].int64_value) for emission in one.emissions] == [("metrics", 200)]
    assert not two.emissions
    assert engine.stats()["emissions_failed"] == 1


async def test_a_full_queue_refuses_reports_until_it_is_drained(policy) -> None:
    """RESOURCE_EXHAUSTED, nothing taken in part, counted."""
    engine = Engine(record_bytes=4096)
    engine.load(policy.bytes())
    server = NativeServer("127.0.0.1:0", None, native=[engine.services])
    address = await server.start()
    request = mixer_pb2.ReportRequest(attributes=[attributes(request__path="/a" * 400)] * 3)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = mixer_pb2_grpc.MixerStub(channel)
        await stub.Report(request, timeout=5)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.Report(request, timeout=5)
        assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len(await drained(engine, 3)) == 3
        await stub.Report(request, timeout=5)
    assert (engine.stats()["reports_refused_full"], engine.stats()["records_waiting"]) == (1, 3)
    await server.stop(1)
