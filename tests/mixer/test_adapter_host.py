"""Adapters in their host: questions are answered a batch at a time, and an adapter's trouble stays its own."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import prometheus_client
import pydantic
import pytest

from meshwright.core.health import Health, State
from meshwright.mixer.adapter.v1 import (
    Charge,
    CheckResult,
    Code,
    DirectResponse,
    Host,
    ListEntry,
    Quota,
    QuotaResult,
    Value,
    blocking,
)
from meshwright.mixer.asking.adapter_metrics import AdapterMetrics
from meshwright.mixer.asking.host import AdapterHost
from meshwright.mixer.asking.loop import BLOCKED_SECONDS
from meshwright.mixer.config.compiled import Sink
from meshwright.mixer.host import MixerHost

HANDLER = "asked.default"
CHECK, QUOTA, GENERATE, OUTPUT = 0, 2, 3, 4


class Parameters(pydantic.BaseModel):
    name: str = ""


class Probe:
    """An adapter whose behaviour a test chooses; it is its own handler."""

    name = "probe"
    templates = frozenset({"listentry", "quota", "kubernetes"})
    parameters: type[pydantic.BaseModel] = Parameters

    def __init__(self) -> None:
        self.events: list[str] = []
        self.hosts: list[Host] = []
        self.opening: Callable[[Host], None] = lambda host: None
        self.answer: Callable[[ListEntry], CheckResult | Awaitable[CheckResult]] = lambda entry: CheckResult()

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[Probe]:
        self.hosts.append(host)
        self.opening(host)
        self.events.append(f"open {parameters.name}")
        yield self
        self.events.append(f"close {parameters.name}")

    def check(self, instance: ListEntry) -> CheckResult | Awaitable[CheckResult]:
        return self.answer(instance)

    async def quota(self, instance: Quota, charge: Charge) -> QuotaResult:
        return QuotaResult(granted=min(charge.amount, 3))

    def generate(self, instance: Any) -> Mapping[str, Value]:
        return {"source_pod_name": instance.source_uid}


class Box:
    """Stands where the engine's questions come from: an eventfd, and lists in place of Rust's queues."""

    def __init__(self) -> None:
        self._event = os.eventfd(0, os.EFD_NONBLOCK)
        self._lock = threading.Lock()
        self._questions: list[tuple[Any, ...]] = []
        self._gone: list[int] = []
        self.answers: dict[int, tuple[Any, ...]] = {}
        self.batches: list[int] = []
        self.replies: list[int] = []
        self.tripped: list[str] = []
        self.configured: list[tuple[str, int]] = []

    def fileno(self) -> int:
        return self._event

    def configure(self, handlers: Sequence[tuple[str, int]]) -> None:
        self.configured = [*handlers]

    def trip(self, handler: str) -> None:
        self.tripped.append(handler)

    def take(self) -> tuple[list[tuple[Any, ...]], list[int]]:
        os.eventfd_read(self._event)
        with self._lock:
            taken = self._questions, self._gone
            self._questions, self._gone = [], []
        self.batches.append(len(taken[0]))
        return taken

    def answer(self, answers: list[tuple[Any, ...]]) -> None:
        self.replies.append(len(answers))
        self.answers.update({answer[0]: answer for answer in answers})

    def ask(self, *questions: tuple[Any, ...], gone: Sequence[int] = ()) -> None:
        with self._lock:
            self._questions += questions
            self._gone += gone
        os.eventfd_write(self._event, 1)

    async def answered(self, *numbers: int) -> list[tuple[Any, ...]]:
        async with asyncio.timeout(10):
            while not all(number in self.answers for number in numbers):
                await asyncio.sleep(0.005)
        return [self.answers[number][1:] for number in numbers]


def entry(number: int, value: str = "x", handler: str = HANDLER, variety: int = CHECK) -> tuple[Any, ...]:
    return number, handler, "entry.default", "listentry", variety, {"value": value}, 0, False, None


class Hosted:
    """A host with one probe, loaded as mixer loads a policy."""

    def __init__(self, host: AdapterHost, probe: Probe, box: Box, health: Health) -> None:
        self.host, self.probe, self.box, self.health = host, probe, box, health

    async def load(self, *names: str, parameters: str = "one") -> None:
        sinks = {name: Sink("probe", Parameters(name=parameters)) for name in names}
        await self.host.prepare(sinks)
        self.host.commit(sinks)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.01)


REGISTRY = prometheus_client.CollectorRegistry()
METRICS = AdapterMetrics(REGISTRY)


@pytest.fixture
async def hosted() -> AsyncIterator[Hosted]:
    probe, box, health = Probe(), Box(), Health()
    lent = MixerHost("collector:4317", "replica-1", None, "mesh.local")
    async with AdapterHost({"probe": probe}, lent, health, box, metrics=METRICS) as host:
        hosted = Hosted(host, probe, box, health)
        await hosted.load(HANDLER)
        yield hosted


async def test_questions_that_arrive_together_are_taken_and_answered_together(hosted: Hosted) -> None:
    hosted.box.ask(*(entry(number) for number in range(32)))
    await hosted.box.answered(*range(32))
    assert (hosted.box.batches, hosted.box.replies) == ([32], [32])


async def test_answers_of_one_turn_of_the_loop_go_back_together(hosted: Hosted) -> None:
    async def later(_: ListEntry) -> CheckResult:
        await asyncio.sleep(0)
        return CheckResult()

    hosted.probe.answer = later
    hosted.box.ask(*(entry(number) for number in range(32)))
    await hosted.box.answered(*range(32))
    assert hosted.box.replies == [32]


async def test_every_part_of_a_decision_goes_back(hosted: Hosted) -> None:
    direct = DirectResponse(code=401, body="who?", headers={"www-authenticate": "Bearer"})
    hosted.probe.answer = lambda entry: CheckResult(
        code=Code.UNAUTHENTICATED, message=f"not {entry.value}", direct_response=direct, output={"score": 3}
    )
    hosted.box.ask(entry(1, "ann"), entry(2, "bob", variety=OUTPUT))
    plain, output = await hosted.box.answered(1, 2)
    headers = {"www-authenticate": "Bearer"}
    assert plain == ("check", 16, "not ann", 1_000_000_000, 1000, (401, "who?", headers), None)
    assert output[-1] == {"score": 3}


async def test_quotas_and_generated_attributes_go_back(hosted: Hosted) -> None:
    quota = (1, HANDLER, "q.default", "quota", QUOTA, {"dimensions.caller": "ann"}, 5, True, "id")
    pod = (2, HANDLER, "k.default", "kubernetes", GENERATE, {"source_uid": "pod-1"}, 0, False, None)
    hosted.box.ask(quota, pod)
    assert await hosted.box.answered(1, 2) == [
        ("quota", 3, 1_000_000_000),
        ("generate", {"source_pod_name": "pod-1"}),
    ]


async def test_what_an_adapter_raises_is_that_questions_failure(hosted: Hosted) -> None:
    def answer(given: ListEntry) -> CheckResult:
        if given.value == "bad":
            raise KeyError("oh")
        return CheckResult()

    hosted.probe.answer = answer
    hosted.box.ask(entry(1, "bad"), entry(2, "good"))
    bad, good = await hosted.box.answered(1, 2)
    assert bad == ("raised", "KeyError: 'oh'")
    assert good[:2] == ("check", 0)


async def test_an_adapter_that_exits_ends_nothing_but_its_question(hosted: Hosted) -> None:
    """Wherever it does: in a plain method, in a coroutine, in a callback, in background work, while it opens."""

    def leave() -> None:
        raise SystemExit(3)

    async def later(given: ListEntry) -> CheckResult:
        await asyncio.sleep(0)
        if given.value == "callback":
            asyncio.get_running_loop().call_soon(leave)
            await asyncio.sleep(0.01)
            return CheckResult()
        raise SystemExit(3)

    def answer(given: ListEntry) -> CheckResult | Awaitable[CheckResult]:
        if given.value == "plain":
            raise SystemExit(3)
        return CheckResult() if given.value == "good" else later(given)

    async def work() -> None:
        raise SystemExit(3)

    hosted.probe.answer = answer
    hosted.probe.opening = lambda host: host.background("leave", work) if host.handler == HANDLER else leave()
    await hosted.load(HANDLER, "leaving.default", parameters="two")
    hosted.box.ask(*(entry(n, value) for n, value in enumerate(("plain", "coroutine", "callback", "good"))))
    plain, coroutine, callback, good = await hosted.box.answered(0, 1, 2, 3)
    assert (plain, coroutine) == (("raised", "SystemExit: 3"), ("raised", "SystemExit: 3"))
    assert (callback[:2], good[:2]) == (("check", 0), ("check", 0))
    assert "SystemExit: 3" in hosted.health.conditions()["adapter leaving.default"].reason


async def test_what_is_no_result_is_a_failure(hosted: Hosted) -> None:
    hosted.probe.answer = lambda _: True  # type: ignore[assignment,return-value]
    hosted.box.ask(entry(1), entry(2, handler="nobody.default"))
    first, second = await hosted.box.answered(1, 2)
    assert first == ("invalid", "check returned bool: return a CheckResult")
    assert second[0] == "away"


async def test_a_question_that_nobody_waits_for_is_cancelled(hosted: Hosted) -> None:
    """And answered all the same, so that its place becomes free."""
    began = threading.Event()

    async def hang(_: ListEntry) -> CheckResult:
        began.set()
        await asyncio.Event().wait()
        raise AssertionError

    hosted.probe.answer = hang
    hosted.box.ask(entry(1))
    await hosted.until(began.is_set)
    hosted.box.ask(gone=[1])
    assert await hosted.box.answered(1) == [("raised", "cancelled")]


async def test_a_blocking_method_runs_beside_the_others(hosted: Hosted) -> None:
    """Marked with @blocking it waits in a thread, with no harm to the loop."""
    leave = threading.Event()

    @blocking
    def wait(self: Probe, instance: ListEntry) -> CheckResult:
        leave.wait(10)
        return CheckResult(message=threading.current_thread().name)

    class Waiting(Probe):
        check = wait

    hosted.probe.__class__ = Waiting
    await hosted.load(HANDLER, parameters="two")
    quota = (2, HANDLER, "q.default", "quota", QUOTA, {}, 1, False, None)
    hosted.box.ask(entry(1), quota)
    await hosted.box.answered(2)
    assert 1 not in hosted.box.answers
    leave.set()
    assert (await hosted.box.answered(1))[0][2] == f"adapter {HANDLER}"


async def test_who_blocks_the_loop_is_named_and_its_breaker_opened(hosted: Hosted) -> None:
    """Mixer's own loop goes on meanwhile; afterwards all is well again."""

    def block(_: ListEntry) -> CheckResult:
        time.sleep(2.5 * BLOCKED_SECONDS)
        return CheckResult()

    hosted.probe.answer = block
    hosted.box.ask(entry(1))
    await hosted.until(lambda: hosted.box.tripped)
    condition = hosted.health.conditions()["adapters"]
    assert condition.state is State.DEGRADED
    assert f"handler {HANDLER} blocks" in condition.reason
    assert "test_adapter_host.py" in condition.reason
    await hosted.until(lambda: hosted.health.conditions()["adapters"].state is State.OK)
    assert hosted.box.tripped == [HANDLER]


async def test_a_coroutine_that_blocks_the_loop_is_named_too(hosted: Hosted) -> None:
    async def block(_: ListEntry) -> CheckResult:
        await asyncio.sleep(0)
        time.sleep(2.5 * BLOCKED_SECONDS)
        return CheckResult()

    hosted.probe.answer = block
    hosted.box.ask(entry(1))
    await hosted.until(lambda: hosted.box.tripped)
    assert hosted.box.tripped == [HANDLER]


async def test_forgotten_tasks_end_with_their_handler(hosted: Hosted) -> None:
    ended = threading.Event()
    kept: list[asyncio.Task[None]] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def leak(_: ListEntry) -> CheckResult:
        kept.append(asyncio.create_task(forever()))
        return CheckResult()

    hosted.probe.answer = leak
    hosted.box.ask(entry(1))
    await hosted.box.answered(1)
    assert not ended.is_set()
    await hosted.load()
    await hosted.until(ended.is_set)


async def test_an_adapter_cannot_have_tasks_without_end(hosted: Hosted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshwright.mixer.asking.environment.TASKS", 50)
    kept: list[asyncio.Task[bool]] = []

    async def leak(_: ListEntry) -> CheckResult:
        kept.extend(asyncio.create_task(asyncio.Event().wait()) for _ in range(100))
        return CheckResult()

    hosted.probe.answer = leak
    hosted.box.ask(entry(1))
    ((kind, reason),) = await hosted.box.answered(1)
    assert kind == "raised"
    assert "has 50 tasks" in reason


async def test_background_work_is_tried_again_and_ends_with_the_handler(hosted: Hosted) -> None:
    """What it raises harms nobody."""
    attempts: list[int] = []
    ended = threading.Event()

    async def work() -> None:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("backend away")
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    hosted.probe.opening = lambda host: host.background("poll", work)
    await hosted.load(HANDLER, parameters="two")
    await hosted.until(lambda: len(attempts) == 2)
    await hosted.load()
    await hosted.until(ended.is_set)


async def test_an_adapter_has_metrics_of_its_own(hosted: Hosted) -> None:
    """Under its name, by handler; they go with the handler."""

    def count(host: Host) -> None:
        host.metrics.counter("lookups_total", "Lookups.", result="hit").inc(2)

    hosted.probe.opening = count
    await hosted.load(HANDLER, parameters="metrics")
    name, labels = "meshwright_mixer_adapter_probe_lookups_total", {"handler": HANDLER, "result": "hit"}
    assert REGISTRY.get_sample_value(name, labels) == 2
    await hosted.load()
    await hosted.until(lambda: REGISTRY.get_sample_value(name, labels) is None)


async def test_what_an_adapter_is_lent(hosted: Hosted) -> None:
    host = hosted.probe.hosts[0]
    assert (host.handler, host.replica, host.otlp) == (HANDLER, "replica-1", "collector:4317")
    assert host.clock.now().tzinfo is not None


async def test_a_handler_stays_open_while_its_parameters_do(hosted: Hosted) -> None:
    await hosted.load(HANDLER, "other.default")
    assert hosted.probe.events == ["open one", "open one"]
    await hosted.load(HANDLER, "other.default", parameters="two")
    await hosted.until(lambda: hosted.probe.events.count("close one") == 2)
    assert hosted.probe.events.count("open two") == 2


async def test_a_replaced_handler_answers_what_it_was_asked(hosted: Hosted) -> None:
    """It closes after that; new questions go to the new one."""
    leave = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def wait(_: ListEntry) -> CheckResult:
        loops.append(asyncio.get_running_loop())
        await leave.wait()
        return CheckResult()

    hosted.probe.answer = wait
    hosted.box.ask(entry(1))
    await hosted.until(lambda: loops)
    await hosted.load(HANDLER, parameters="two")
    assert "close one" not in hosted.probe.events
    hosted.probe.answer = lambda _: CheckResult(message="new")
    hosted.box.ask(entry(2))
    ((_, _, message, *_),) = await hosted.box.answered(2)
    assert message == "new"
    loops[0].call_soon_threadsafe(leave.set)
    assert (await hosted.box.answered(1))[0][:2] == ("check", 0)
    await hosted.until(lambda: "close one" in hosted.probe.events)


async def test_a_deleted_handler_is_asked_for_as_long_as_requests_use_the_old_policy() -> None:
    probe, box, used = Probe(), Box(), [1]
    lent = MixerHost(None, "test", None, "mesh.local")
    async with AdapterHost({"probe": probe}, lent, Health(), box, lambda: len(used), metrics=METRICS) as host:
        hosted = Hosted(host, probe, box, Health())
        await hosted.load(HANDLER)
        await hosted.load()
        box.ask(entry(1))
        assert (await box.answered(1))[0][:2] == ("check", 0)
        assert box.configured == [(HANDLER, 1000)]
        used.clear()
        await hosted.until(lambda: probe.events == ["open one", "close one"])
        assert box.configured == []
        box.ask(entry(2))
        assert (await box.answered(2))[0][0] == "away"


async def test_an_adapter_that_hangs_while_it_opens_holds_up_nobody(
    hosted: Hosted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshwright.mixer.asking.opened.OPEN_SECONDS", 0.2)
    monkeypatch.setattr("meshwright.mixer.asking.handlers.OPEN_SECONDS", 1.0)

    class Hanging(Probe):
        @asynccontextmanager
        async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[Probe]:
            await asyncio.Event().wait()
            yield self

    hosted.probe.__class__ = Hanging
    await hosted.load(HANDLER, "hanging.default")
    hosted.box.ask(entry(1), entry(2, handler="hanging.default"))
    first, second = await hosted.box.answered(1, 2)
    assert first[:2] == ("check", 0)
    assert second == ("away", "it can't be opened: not in time")
    assert "not in time" in hosted.health.conditions()["adapter hanging.default"].reason
