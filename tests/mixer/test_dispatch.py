"""From records to handlers: what they get, and which handlers refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import prometheus_client
import pydantic
import pytest
from record_messages import Value, record

from meshwright.core.health import Health, State
from meshwright.mixer.adapter.v1 import Entry, LogEntry, Metric
from meshwright.mixer.asking.adapter_metrics import AdapterMetrics
from meshwright.mixer.asking.host import AdapterHost
from meshwright.mixer.config.compiled import Sink
from meshwright.mixer.host import MixerHost
from meshwright.mixer.pipeline import decode
from meshwright.mixer.pipeline.dispatch import Arrival, Dispatcher

HANDLER = "opentelemetry.meshwright-system"


class Parameters(pydantic.BaseModel):
    name: str = ""


class Broken(Parameters):
    """Makes the adapter refuse to open."""


class Recorder:
    """An adapter that keeps what it gets, or refuses it."""

    name = "recorder"
    templates = frozenset({"logentry", "metric"})
    parameters: type[pydantic.BaseModel] = Parameters

    def __init__(self) -> None:
        self.batches: list[list[Entry]] = []
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.refusal: BaseException | None = None
        self.failing_open = False

    @asynccontextmanager
    async def open(self, parameters: Any, host: Any) -> AsyncIterator[Any]:
        if self.failing_open or isinstance(parameters, Broken):
            raise RuntimeError("can't open")
        self.opened.append(parameters.name)
        yield self
        self.closed.append(parameters.name)

    async def report(self, batch: Sequence[Entry]) -> None:
        if self.refusal:
            raise self.refusal
        self.batches.append([*batch])


@pytest.fixture
def adapter() -> Recorder:
    return Recorder()


@pytest.fixture
def health() -> Health:
    return Health()


class Pipeline:
    """A dispatcher on a host of adapters, loaded as mixer loads a policy."""

    def __init__(self, host: AdapterHost, health: Health) -> None:
        self._host, self._dispatcher = host, Dispatcher(host.report, health)
        self.deliver = self._dispatcher.deliver

    async def load(self, sinks: dict[str, Sink]) -> None:
        await self._host.prepare(sinks)
        self._host.commit(sinks)
        self._dispatcher.configure(sinks)


@pytest.fixture
async def dispatcher(adapter: Recorder, health: Health) -> AsyncIterator[Pipeline]:
    lent = MixerHost(None, "test", None, "mesh.local")
    metrics = AdapterMetrics(prometheus_client.CollectorRegistry())
    async with AdapterHost({adapter.name: adapter}, lent, health, metrics=metrics) as host:
        pipeline = Pipeline(host, health)
        await pipeline.load({HANDLER: Sink("recorder", Parameters(name="one"))})
        yield pipeline


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def test_a_batch_reaches_its_handler_whole(dispatcher: Pipeline, adapter: Recorder) -> None:
    assert await dispatcher.deliver([Arrival(record(1), False), Arrival(record(2), True)]) == set()
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
    dispatcher: Pipeline, adapter: Recorder, health: Health
) -> None:
    adapter.refusal = ConnectionError("backend away")
    assert await dispatcher.deliver([Arrival(record(1), False)]) == {HANDLER}
    condition = health.conditions()[f"adapter {HANDLER}"]
    assert condition.state is State.DEGRADED
    assert "backend away" in condition.reason
    adapter.refusal = None
    assert await dispatcher.deliver([Arrival(record(1), True)]) == set()
    assert health.conditions()[f"adapter {HANDLER}"].state is State.OK


async def test_an_adapter_that_exits_only_refuses_its_batch(dispatcher: Pipeline, adapter: Recorder) -> None:
    adapter.refusal = SystemExit(3)
    assert await dispatcher.deliver([Arrival(record(1), False)]) == {HANDLER}
    adapter.refusal = None
    assert await dispatcher.deliver([Arrival(record(1), True)]) == set()


async def test_one_handlers_failure_leaves_others_alone(dispatcher: Pipeline, adapter: Recorder) -> None:
    await dispatcher.load({HANDLER: Sink("recorder", Parameters()), "broken.default": Sink("recorder", Broken())})
    arrivals = [Arrival(record(1), False), Arrival(record(2, "broken.default"), False)]
    assert await dispatcher.deliver(arrivals) == {"broken.default"}
    assert len(adapter.batches) == 1


async def test_a_handler_that_cannot_be_opened_is_tried_again(
    dispatcher: Pipeline, adapter: Recorder, health: Health
) -> None:
    adapter.failing_open = True
    await dispatcher.load({HANDLER: Sink("recorder", Parameters(name="two"))})
    assert await dispatcher.deliver([Arrival(record(1), False)]) == {HANDLER}
    assert "can't open" in health.conditions()[f"adapter {HANDLER}"].reason
    adapter.failing_open = False
    await until(lambda: "two" in adapter.opened)
    assert await dispatcher.deliver([Arrival(record(1), True)]) == set()


async def test_changed_parameters_open_the_handler_anew(dispatcher: Pipeline, adapter: Recorder) -> None:
    await dispatcher.deliver([Arrival(record(1), False)])
    await dispatcher.load({HANDLER: Sink("recorder", Parameters(name="one"))})
    await dispatcher.deliver([Arrival(record(2), False)])
    assert adapter.opened == ["one"]
    await dispatcher.load({HANDLER: Sink("recorder", Parameters(name="two"))})
    await dispatcher.deliver([Arrival(record(3), False)])
    assert adapter.opened == ["one", "two"]
    await until(lambda: adapter.closed == ["one"])


async def test_records_of_a_deleted_handler_count_as_taken(dispatcher: Pipeline, adapter: Recorder) -> None:
    """Nobody could ever take them; waiting for them would fill the queue."""
    await dispatcher.load({})
    assert await dispatcher.deliver([Arrival(record(1), False)]) == set()
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
