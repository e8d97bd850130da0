"""istio.mixer.v1 over the wire: Check and Report answered by the native handlers."""

from __future__ import annotations

import asyncio
import re

import grpc
import pytest
from taken_records import drained

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
    [one] = await drained(engine, 1)
    assert re.fullmatch("[0-9a-f]{32}", one.id)
    assert (one.kind, one.trace_id, one.span_id) == (record_pb2.Record.REPORT, TRACE, "00f067aa0ba902b7")
    assert one.attributes.attributes["request.path"].string_value == "/a"
    assert [(emission.sink, emission.fields["value"].int64_value) for emission in one.emissions] == [("metrics", 200)]
    assert engine.stats()["records_stored"] == 2
    assert engine.stats()["emissions_failed"] == 1


async def test_delta_elements_are_records_in_full(engine, channel) -> None:
    """Each has what the ones before it said; ids differ, and an element that can't be read is told of by position."""
    first = attributes(request__path="/a")
    first.int64s[30] = 200
    second = attributes_pb2.CompressedAttributes()
    second.int64s[30] = 404
    broken = attributes_pb2.CompressedAttributes()
    broken.int64s[-9] = 1
    request = mixer_pb2.ReportRequest(attributes=[first, second, broken])
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await mixer_pb2_grpc.MixerStub(channel).Report(request, timeout=5)
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    assert "attributes[2]" in failure.value.details()
    one, two = await drained(engine, 2)
    assert one.id != two.id
    assert two.attributes.attributes["request.path"].string_value == "/a"
    assert two.emissions[0].fields["value"].int64_value == 404


async def test_an_independent_element_that_cant_be_read_leaves_the_others(engine, channel) -> None:
    """The call fails as Mixer's does, and the readable elements were taken."""
    good = attributes(request__path="/a")
    good.int64s[30] = 200
    # A timestamp that is no message.
    bad = attributes_pb2.CompressedAttributes().SerializeToString() + b"\x32\x05\x08\x30\x12\x01\xff"
    call = channel.unary_unary("/istio.mixer.v1.Mixer/Report")
    elements = b"".join(b"\x0a" + bytes([len(each)]) + each for each in (bad, good.SerializeToString()))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call(elements + b"\x20\x01", timeout=5)
    assert failure.value.code() == grpc.StatusCode.UNKNOWN
    assert "attributes[0]" in failure.value.details()
    [record] = await drained(engine, 1)
    assert record.attributes.attributes["request.path"].string_value == "/a"


async def test_what_a_handler_refuses_comes_again_marked(engine, channel) -> None:
    """With the same id, until the handler takes it."""
    element = attributes(request__path="/a")
    element.int64s[30] = 200
    await mixer_pb2_grpc.MixerStub(channel).Report(mixer_pb2.ReportRequest(attributes=[element]), timeout=5)
    found: list[tuple[str, bool]] = []
    async with asyncio.timeout(10):
        while len(found) < 3:
            batch = await asyncio.to_thread(engine.take_records, 0.2)
            if batch is not None:
                found += [(record_pb2.Record.FromString(data).id, marked) for data, marked in batch.records]
                batch.settle(["metrics.mesh"] if len(found) < 3 else [])
    assert [marked for _, marked in found] == [False, True, True]
    assert len({identifier for identifier, _ in found}) == 1
    assert await asyncio.to_thread(engine.finish_records, 5)
    stats = engine.stats()
    assert (stats["records_acknowledged"], stats["records_returned"], stats["records_redelivered"]) == (1, 2, 2)


async def test_an_abandoned_report_is_stored_and_marked(policy) -> None:
    """Its caller may report again under another id: that one isn't marked, this one is."""
    engine = Engine()
    engine.load(policy.bytes())
    server = NativeServer("127.0.0.1:0", None, native=[engine.services])
    element = attributes(request__path="/a")
    element.int64s[30] = 200
    async with grpc.aio.insecure_channel(await server.start()) as channel:
        stub = mixer_pb2_grpc.MixerStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.Report(mixer_pb2.ReportRequest(attributes=[element]), timeout=0.3)
        assert failure.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    await server.stop(1)
    assert engine.stats()["records_waiting"] == 1
    engine.carry_records(None, batch_seconds=0.01)
    async with asyncio.timeout(10):
        while (batch := await asyncio.to_thread(engine.take_records, 0.2)) is None:
            pass
    assert [marked for _, marked in batch.records] == [True]
    batch.settle([])


async def test_a_full_queue_refuses_reports_until_there_is_room(policy) -> None:
    """RESOURCE_EXHAUSTED, nothing taken in part, counted; OK only when the queue has it."""
    engine = Engine(record_bytes=4096)
    engine.load(policy.bytes())
    server = NativeServer("127.0.0.1:0", None, native=[engine.services])
    address = await server.start()
    element = attributes(request__path="/a" * 400)
    element.int64s[30] = 200
    request = mixer_pb2.ReportRequest(attributes=[element] * 3, repeated_attributes_semantics=1)
    async with grpc.aio.insecure_channel(address) as channel:
        stub = mixer_pb2_grpc.MixerStub(channel)
        first = asyncio.ensure_future(stub.Report(request, timeout=10))
        async with asyncio.timeout(5):
            while engine.stats()["records_waiting"] < 3:
                await asyncio.sleep(0.01)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await stub.Report(request, timeout=5)
        assert failure.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert not first.done()
        engine.carry_records(None, batch_seconds=0.01)
        await first
        assert len(await drained(engine, 3)) == 3
        await stub.Report(request, timeout=5)
    assert (engine.stats()["reports_refused_full"], engine.stats()["records_waiting"]) == (1, 0)
    await server.stop(1)
