"""From records to handlers: what they get, and which records count as taken."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pydantic
import pytest
from record_messages import Value, record

from meshwright.core.health import Health, State
from meshwright.mixer.adapter.v1 import Entry, LogEntry, Metric
from meshwright.mixer.adapter.v1.testing import FakeHost
from meshwright.mixer.config.compiler import Sink
from meshwright.mixer.pipeline import decode
from meshwright.mixer.pipeline.dispatch import Arrival, Dispatcher

HANDLER = "opentelemetry.meshwright-system"


class Parameters(pydantic.BaseModel):
    name: str = ""


class Recorder:
    """An adapter that keeps what it gets, or refuses it."""

    name = "recorder"
    templates = frozenset({"logentry", "metric"})
    parameters: type[pydantic.BaseModel] = Parameters

    def __init__(self) -> None:
        self.batches: list[list[Entry]] = []
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.refusal: Exception | None = None
        self.failing_open = False

    @asynccontextmanager
    async def open(self, parameters: Any, host: Any) -> AsyncIterator[Any]:
        if self.failing_open:
            raise RuntimeError("can't open")
        self.opened.append(parameters.name)
        yield self
        self.closed.append(parameters.name)

    async def handle(self, batch: Sequence[Entry]) -> None:
        if self.refusal:
            raise self.refusal
        self.batches.append([*batch])


@pytest.fixture
def adapter() -> Recorder:
    return Recorder()


@pytest.fixture
def health() -> Health:
    return Health()


@pytest.fixture
async def dispatcher(adapter: Recorder, health: Health) -> AsyncIterator[Dispatcher]:
    async with Dispatcher({adapter.name: adapter}, FakeHost(), health) as running:
        running.configure({HANDLER: Sink("recorder", Parameters(name="one"))})
        yield running


async def test_a_batch_reaches_its_handler_whole(dispatcher: Dispatcher, adapter: Recorder) -> None:
    taken = await dispatcher.deliver([Arrival(record(1), False), Arrival(record(2), True)])
    assert taken == [True, True]
    assert len(adapter.batches) == 1
    log, count, again, _ = adapter.batches[0]
    assert isinstance(log, LogEntry)
    assert log.variables == {"url.path": "/1"}
    assert log.severity == "info"
    assert log.origin.trace_id == "0af7651916cd43dd8448eb211c80319c"
    assert log.origin.attributes["meshwright.record.id"] == f"{1:032x}"
    assert "meshwright.redelivered" not in log.origin.attributes
    assert isinstance(count, Metric)
    assert (count.value, count.dimensions) == (1, {"code": 200})
    assert again.origin.redelivered
    assert again.origin.attributes["meshwright.redelivered"] is True


async def test_a_refused_batch_is_not_taken_and_shows_in_health(
    dispatcher: Dispatcher, adapter: Recorder, health: Health
) -> None:
    adapter.refusal = ConnectionError("backend away")
    assert await dispatcher.deliver([Arrival(record(1), False)]) == [False]
    condition = health.conditions()[f"adapter {HANDLER}"]
    assert condition.state is State.DEGRADED
    assert "backend away" in condition.reason
    adapter.refusal = None
    assert await dispatcher.deliver([Arrival(record(1), True)]) == [True]
    assert health.conditions()[f"adapter {HANDLER}"].state is State.OK


async def test_one_handlers_failure_leaves_others_records_taken(dispatcher: Dispatcher, adapter: Recorder) -> None:
    dispatcher.configure({HANDLER: Sink("recorder", Parameters()), "broken.default": Sink("nobody", Parameters())})
    taken = await dispatcher.deliver([Arrival(record(1), False), Arrival(record(2, "broken.default"), False)])
    assert taken == [True, False]


async def test_a_handler_that_cannot_be_opened_is_tried_again(dispatcher: Dispatcher, adapter: Recorder) -> None:
    adapter.failing_open = True
    assert await dispatcher.deliver([Arrival(record(1), False)]) == [False]
    adapter.failing_open = False
    assert await dispatcher.deliver([Arrival(record(1), True)]) == [True]


async def test_changed_parameters_open_the_handler_anew(dispatcher: Dispatcher, adapter: Recorder) -> None:
    await dispatcher.deliver([Arrival(record(1), False)])
    dispatcher.configure({HANDLER: Sink("recorder", Parameters(name="one"))})
    await dispatcher.deliver([Arrival(record(2), False)])
    assert adapter.opened == ["one"]
    dispatcher.configure({HANDLER: Sink("recorder", Parameters(name="two"))})
    await dispatcher.deliver([Arrival(record(3), False)])
    assert (adapter.opened, adapter.closed) == (["one", "two"], ["one"])


async def test_records_of_a_deleted_handler_count_as_taken(dispatcher: Dispatcher, adapter: Recorder) -> None:
    """Nobody could ever take them; waiting for them would fill the queue."""
    dispatcher.configure({})
    assert await dispatcher.deliver([Arrival(record(1), False)]) == [True]
    assert not adapter.batches


def test_values_of_every_type_are_decoded() -> None:
    moment = datetime(2026, 11, 21, 12, tzinfo=UTC)
    timestamp, duration = Value(), Value()
    timestamp.timestamp_value.FromDatetime(moment)
    duration.duration_value.FromMilliseconds(1500)
    texts = Value()
    texts.string_map_value.entries["a"] = "b"
    assert decode.value(timestamp) == moment
    assert decode.value(duration) == timedelta(seconds=1.5)
    assert decode.value(texts) == {"a": "b"}
    assert decode.value(Value(bytes_value=bytes([10, 0, 0, 1]))) == ip_address("10.0.0.1")
    assert decode.value(Value(double_value=0.5)) == 0.5
    assert decode.value(Value(bool_value=True)) is True
    assert decode.value(Value()) == ""
