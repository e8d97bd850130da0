"""Adapters in Python as the engine asks them: what a caller is told, and what it is told when they fail."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pydantic
import pytest

from meshwright.core.health import State
from meshwright.mixer import check
from meshwright.mixer.adapter.v1 import (
    ApiKey,
    Authorization,
    Charge,
    CheckResult,
    Code,
    DirectResponse,
    Host,
    Quota,
    QuotaResult,
    Value,
)
from meshwright.mixer.config.violation import PolicyError
from meshwright.mixer.plugintest import Served, serving

TEMPLATES = """
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: question, namespace: meshwright-system}
spec: {compiledTemplate: %(template)s, params: %(params)s}
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: ask, namespace: meshwright-system}
spec: {actions: [{handler: asked, instances: [question]}]}
---
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: asked, namespace: meshwright-system}
spec: {compiledAdapter: probe, %(spec)s}
"""


class Parameters(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")


class Probe:
    """Answers what a test says; it is its own handler."""

    name = "probe"
    templates = frozenset({"listentry", "authorization", "apikey", "quota"})
    parameters: type[pydantic.BaseModel] = Parameters

    def __init__(self, answer: Callable[[Any], CheckResult | Awaitable[CheckResult]] | None = None) -> None:
        self.answer = answer or (lambda _: CheckResult())
        self.asked: list[Any] = []

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[Probe]:
        yield self

    def check(self, instance: Any) -> CheckResult | Awaitable[CheckResult]:
        self.asked.append(instance)
        return self.answer(instance)

    async def quota(self, instance: Quota, charge: Charge) -> QuotaResult:
        self.asked.append((instance, charge))
        result = self.answer(instance)
        if not isinstance(result, CheckResult):
            await result
        return QuotaResult(granted=min(charge.amount, 3), valid_duration=timedelta(seconds=7))


def documents(
    spec: str = "params: {}", template: str = "listentry", params: str = '{value: source.principal | "nobody"}'
) -> str:
    return TEMPLATES % {"spec": spec, "template": template, "params": params}


async def hang(_: Any) -> CheckResult:
    await asyncio.Event().wait()
    raise AssertionError


def fail(_: Any) -> CheckResult:
    raise ConnectionError("backend away")


async def test_a_decision_reaches_the_caller() -> None:
    direct = DirectResponse(code=451, body="no", headers={"x-why": "law"})
    probe = Probe(lambda entry: CheckResult.deny(f"not {entry.value}", direct_response=direct))
    async with serving(probe, documents()) as mixer:
        decision = await mixer.check({"source.principal": "ann"})
    assert (decision.code, decision.message) == (Code.PERMISSION_DENIED, "asked.meshwright-system:not ann")
    assert (decision.direct_response_code, decision.direct_response_body) == (451, "no")
    assert decision.response_headers == {"x-why": "law"}


async def test_validity_and_uses_reach_the_caller() -> None:
    probe = Probe(lambda _: CheckResult(valid_duration=timedelta(milliseconds=1500), valid_use_count=-1))
    async with serving(probe, documents()) as mixer:
        decision = await mixer.check({})
    assert (decision.valid_duration, decision.valid_use_count) == (timedelta(milliseconds=1500), 10_000)


async def test_a_reply_is_used_again_for_the_same_question_and_no_other() -> None:
    """Whatever else the requests carry; a caller never keeps an answer for longer than the reply's own time."""
    probe = Probe(lambda entry: CheckResult(valid_duration=timedelta(minutes=1), valid_use_count=-1))
    async with serving(probe, documents()) as mixer:
        first = await mixer.check({"source.principal": "ann", "request.path": "/1"})
        second = await mixer.check({"source.principal": "ann", "request.path": "/2"})
        await mixer.check({"source.principal": "bob", "request.path": "/2"})
    assert [entry.value for entry in probe.asked] == ["ann", "bob"]
    assert first.valid_duration >= second.valid_duration > timedelta(0)


async def test_a_reply_that_may_not_be_kept_is_asked_for_again() -> None:
    probe = Probe(lambda _: CheckResult(valid_duration=timedelta(minutes=1), valid_use_count=0))
    async with serving(probe, documents()) as mixer:
        for _ in range(3):
            await mixer.check({"source.principal": "ann"})
    assert len(probe.asked) == 3


async def test_an_adapter_that_says_unavailable_denies_all_the_same() -> None:
    """Callers take that code for no answer, and would let the request pass."""
    async with serving(Probe(lambda _: CheckResult.deny("later", Code.UNAVAILABLE)), documents()) as mixer:
        assert (await mixer.check({})).code == Code.UNKNOWN


async def test_instances_arrive_typed() -> None:
    probe = Probe()
    params = "{subject: {user: source.principal, properties: {port: destination.port}}, action: {path: request.path}}"
    async with serving(probe, documents(template="authorization", params=params)) as mixer:
        await mixer.check({"source.principal": "ann", "destination.port": 80, "request.path": "/"})
    (instance,) = probe.asked
    assert isinstance(instance, Authorization)
    assert (instance.subject.user, instance.subject.properties, instance.action.path) == ("ann", {"port": 80}, "/")


async def test_times_arrive_as_times_and_impossible_ones_harm_only_their_request() -> None:
    """Python's end in the year 9999; a request may say any other."""
    probe = Probe()
    params = "{api: '\"a\"', timestamp: request.time}"
    async with serving(probe, documents(template="apikey", params=params)) as mixer:
        moment = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
        assert (await mixer.check({"request.time": moment})).code == Code.OK
        (instance,) = probe.asked
        assert isinstance(instance, ApiKey)
        assert instance.timestamp == moment
        request = check.request({"request.time": moment})
        request.attributes.timestamps[-1].seconds = 300_000_000_000
        far, near = await asyncio.gather(mixer.ask(request), mixer.check({"request.time": moment}))
        assert (far.code, near.code) == (Code.UNKNOWN, Code.OK)


@pytest.mark.parametrize(("policy", "code"), [("open", Code.OK), ("closed", Code.UNKNOWN)])
async def test_a_failure_follows_the_handlers_policy(policy: str, code: Code) -> None:
    async with serving(Probe(fail), documents(f"failurePolicy: {policy}")) as mixer:
        decision = await mixer.check({})
    assert decision.code == code
    assert decision.valid_use_count == 0  # asked again at the next request
    assert ("backend away" in decision.message) == (code != Code.OK)


async def test_checks_are_closed_without_a_policy_and_quotas_open() -> None:
    async with serving(Probe(fail), documents()) as mixer:
        assert (await mixer.check({})).code == Code.UNKNOWN
    quota = documents(template="quota", params="{}")

    class OnlyQuota(Probe):
        templates = frozenset({"quota"})

    async with serving(OnlyQuota(fail), quota) as mixer:
        assert (await mixer.check({}, {"question": 5})).granted == {"question": 5}


async def test_a_quota_is_granted_by_the_adapter() -> None:
    probe = Probe()
    params = '{dimensions: {caller: source.principal | "nobody"}}'
    async with serving(probe, documents(template="quota", params=params)) as mixer:
        decision = await mixer.check(
            {"source.principal": "ann"}, {"question": 5}, best_effort=True, deduplication_id="once"
        )
    assert decision.granted == {"question": 3}
    ((instance, charge),) = probe.asked
    assert (instance.dimensions, charge.amount, charge.best_effort) == ({"caller": "ann"}, 5, True)
    assert charge.deduplication_id


async def test_who_hangs_is_cut_off_at_the_handlers_timeout() -> None:
    async with serving(Probe(hang), documents("timeout: 50ms")) as mixer:
        began = time.monotonic()
        decision = await mixer.check({})
        assert decision.code == Code.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 5


async def test_no_more_questions_are_asked_than_may_be_in_flight() -> None:
    """Even of an adapter that swallows its cancellation."""
    leave = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def stubborn(_: Any) -> CheckResult:
        loops.append(asyncio.get_running_loop())
        while not leave.is_set():
            try:
                await leave.wait()
            except asyncio.CancelledError:
                continue
        return CheckResult()

    probe = Probe(stubborn)
    async with serving(probe, documents("timeout: 50ms, maxInFlight: 2")) as mixer:
        decisions = await asyncio.gather(*(mixer.check({"source.principal": f"{n}"}) for n in range(4)))
        assert sorted(each.code for each in decisions) == [Code.UNKNOWN, Code.UNKNOWN] + [Code.DEADLINE_EXCEEDED] * 2
        assert any("too many questions in flight" in each.message for each in decisions)
        assert len(probe.asked) == 2
        loops[0].call_soon_threadsafe(leave.set)
        assert await until_passes(mixer)


async def test_repeated_failures_open_the_breaker_and_one_success_closes_it() -> None:
    probe = Probe(fail)
    async with serving(probe, documents()) as mixer:
        for _ in range(20):
            last = await mixer.check({})
        assert len(probe.asked) == 5
        assert "failed too often" in last.message
        assert mixer.questions()["asked.meshwright-system"]["breaker"] == "open"
        probe.answer = lambda _: CheckResult()
        assert await until_passes(mixer)
        statistics = mixer.questions()["asked.meshwright-system"]
    assert statistics["breaker"] == "closed"
    assert statistics["failures"]["raised"] == 5
    assert statistics["failures"]["breaker_open"] >= 15


async def test_an_adapter_that_blocks_the_loop_holds_up_no_answer() -> None:
    """The deadline runs outside of Python."""

    def block(_: Any) -> CheckResult:
        time.sleep(1.5)
        return CheckResult()

    async with serving(Probe(block), documents("timeout: 50ms")) as mixer:
        began = time.monotonic()
        assert (await mixer.check({})).code == Code.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 1.4
        async with asyncio.timeout(10):
            async for conditions in mixer.health.changes():
                if "adapters" in conditions and conditions["adapters"].state is State.DEGRADED:
                    break
        assert mixer.questions()["asked.meshwright-system"]["breaker"] == "open"


async def test_many_questions_enter_python_together() -> None:
    async with serving(Probe(), documents()) as mixer:
        await asyncio.gather(*(mixer.check({"source.principal": f"caller-{n}"}) for n in range(200)))
        batches, taken = mixer.batches()
    assert taken == 200
    assert batches < 200


async def test_a_handler_that_is_not_open_follows_its_policy() -> None:
    class Closed(Probe):
        @asynccontextmanager
        async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[Probe]:
            raise OSError("no such file")
            yield self

    async with serving(Closed(), documents()) as mixer:
        decision = await mixer.check({})
        assert decision.code == Code.UNKNOWN
        assert "no such file" in decision.message
        assert mixer.questions()["asked.meshwright-system"]["failures"]["away"] == 1


async def test_wrong_documents_are_refused_as_mixer_refuses_them() -> None:
    with pytest.raises(PolicyError, match="extra"):
        async with serving(Probe(), documents("params: {extra: 1}")):
            pass
    with pytest.raises(PolicyError, match="failurePolicy"):
        async with serving(Probe(), documents("failurePolicy: maybe")):
            pass


async def until_passes(mixer: Served) -> bool:
    """Ask until the request passes; the caller's time-out ends it."""
    async with asyncio.timeout(20):
        while (await mixer.check({})).code != Code.OK:
            await asyncio.sleep(0.05)
    return True


def test_generators_may_answer_any_mapping() -> None:
    """The type that `generate` returns is what the box takes, without what isn't known."""
    from meshwright.mixer.asking.questions import Variety, _answer

    output: Mapping[str, Value | None] = {"source_pod_name": "a", "source_namespace": None}
    assert _answer(1, Variety.ATTRIBUTE_GENERATOR, output) == (1, "generate", {"source_pod_name": "a"})
