"""The client as the original sidecar behaves: caches, quota ahead, batches, failures (mixer.md, pitfalls 4 to 13)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from check_servers import Server
from hypothesis import given
from hypothesis import strategies as st
from rule_documents import MALLORY, action, denial, document, quota

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.core.clock import Clock, ManualClock
from meshwright.core.grpc import Channel
from meshwright.mixer.client import MixerClient, Options
from meshwright.mixer.client.prefetch import Prefetch

AWAY = (grpc.StatusCode.UNAVAILABLE, "gone for tea")


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what happens beside the test."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def cacheable_denial() -> list[Any]:
    """Mallory is denied, and that is good for 5 s."""
    documents = denial()
    status = {"code": 7, "message": "no"}
    return [document("handler", "forbid", {"compiledAdapter": "denier", "params": {"status": status}}), *documents[1:]]


@contextlib.asynccontextmanager
async def asked(server: Server, folder: Path, clock: Clock | None = None) -> AsyncIterator[MixerClient]:
    """A client of this server."""
    async with (
        server.served(folder) as target,
        grpc.aio.insecure_channel(target) as channel,
        MixerClient(channel, clock=clock) as mixer,
    ):
        yield mixer


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[tuple[Server, str]]:
    server = Server([*cacheable_denial(), *quota(100, "10s")])
    async with server.served(tmp_path) as target:
        yield server, target


async def test_both_kinds_of_channels_are_cached_over(server: tuple[Server, str]) -> None:
    """The second answer needs no call; a denial is cached as well."""
    service, target = server
    mallory = {"source.principal": MALLORY, "request.url_path": "/admin"}
    for channel in (grpc.aio.insecure_channel(target), Channel(target, None)):
        service.checks.clear()
        async with channel, MixerClient(channel) as mixer:
            decisions = [await mixer.check(attributes) for attributes in 2 * [mallory, {"request.url_path": "/"}]]
            assert [decision.code for decision in decisions] == [7, 0, 7, 0]
            assert [decision.is_cached for decision in decisions] == [False, False, True, True]
            assert len(service.checks) == 2
            assert mixer.statistics.cached_checks == 2


async def test_words_and_ids_are_as_the_sidecars(server: tuple[Server, str]) -> None:
    """Global words by index, others in the message; an id for each Check that is never empty nor the same."""
    service, target = server
    async with grpc.aio.insecure_channel(target) as channel, MixerClient(channel, Options(check_entries=0)) as mixer:
        for _ in range(2):
            await mixer.check({"source.principal": "me", "request.headers": {"host": "x"}})
    first, second = service.checks
    assert first.global_word_count == 222
    assert sorted(first.attributes.words) == ["me", "x"]
    assert first.deduplication_id
    assert first.deduplication_id != second.deduplication_id


@pytest.mark.parametrize(
    "refusal",
    [
        (
            grpc.StatusCode.INTERNAL,
            "inconsistent global dictionary versions used: mixer knows 111 words, caller knows 222",
        ),
        (grpc.StatusCode.INVALID_ARGUMENT, "Request could not be processed due to invalid words"),
    ],
)
async def test_a_server_that_knows_fewer_words_gets_the_base(
    server: tuple[Server, str], refusal: tuple[grpc.StatusCode, str]
) -> None:
    service, target = server
    service.failures.append(refusal)
    async with grpc.aio.insecure_channel(target) as channel, MixerClient(channel, Options(check_entries=0)) as mixer:
        attributes = {"source.principal": MALLORY, "request.url_path": "/admin"}
        assert [(await mixer.check(attributes)).code for _ in range(2)] == [7, 7]
    assert [request.global_word_count for request in service.checks] == [222, 111, 111]
    assert "source.principal" in service.checks[1].attributes.words
    assert service.checks[0].deduplication_id == service.checks[1].deduplication_id


@pytest.mark.parametrize(("is_open", "code"), [(True, 0), (False, 14)])
async def test_the_fail_policy_decides_when_nobody_answers(
    server: tuple[Server, str], is_open: bool, code: int
) -> None:
    service, target = server
    service.failures += 3 * [AWAY]
    options = Options(network_fail_open=is_open, retries=2, retry_base=0.001)
    async with grpc.aio.insecure_channel(target) as channel, MixerClient(channel, options) as mixer:
        decision = await mixer.check({"request.url_path": "/"}, {"requestcount": 3})
        assert (decision.code, decision.is_failed_open) == (code, is_open)
        assert decision.granted == ({"requestcount": 3} if is_open else {})
        assert len({request.deduplication_id for request in service.checks}) == 1
        assert len(service.checks) == 3
        assert not (await mixer.check({"request.url_path": "/"})).is_failed_open


async def test_a_wrong_request_is_not_tried_again(server: tuple[Server, str]) -> None:
    service, target = server
    service.failures.append((grpc.StatusCode.PERMISSION_DENIED, "no"))
    options = Options(network_fail_open=False, retries=5)
    async with grpc.aio.insecure_channel(target) as channel, MixerClient(channel, options) as mixer:
        assert (await mixer.check({})).code == 14
        with pytest.raises(TypeError, match="source.ip"):
            await mixer.check({"source.ip": object()})  # type: ignore[dict-item]
    assert len(service.checks) == 1


async def test_quota_is_fetched_ahead(tmp_path: Path) -> None:
    """Strict with the real amount first; then best effort, ahead, until it is used up; then asked for after a pause."""
    server, clock = Server(quota(30, "100s")), ManualClock()
    async with asked(server, tmp_path, clock) as mixer:
        granted = []
        for _ in range(60):
            decision = await mixer.check({"destination.service.name": "a"}, {"requestcount": 1})
            granted.append(decision.granted["requestcount"])
            assert decision.code == (0 if granted[-1] else 8)
            await until(lambda: not mixer._prefetches)
        assert sum(granted) == 30
        calls = [request.quotas["requestcount"] for request in server.checks]
        assert (calls[0].amount, calls[0].best_effort) == (1, False)
        assert all(call.best_effort and call.amount >= 10 for call in calls[1:])
        assert len(calls) <= 6
        assert mixer.statistics.cached_quotas == 59

        await mixer.check({"destination.service.name": "a"}, {"requestcount": 1})
        assert len(server.checks) == len(calls)
        await clock.advance(0.5)
        await mixer.check({"destination.service.name": "a"}, {"requestcount": 1})
        await until(lambda: len(server.checks) == len(calls) + 1)

        # Another service's amount is another one, and a release goes to mixer at once.
        other = await mixer.check({"destination.service.name": "b"}, {"requestcount": 5})
        assert other.granted == {"requestcount": 5}
        assert not other.is_cached
        back = await mixer.check({"destination.service.name": "b"}, {"requestcount": -2})
        assert back.granted == {"requestcount": 2}


async def test_what_lasts_until_released_is_not_fetched_ahead(tmp_path: Path) -> None:
    server = Server(quota(3, "0s"))
    async with asked(server, tmp_path) as mixer:
        granted = [(await mixer.check({}, {"requestcount": 1})).granted["requestcount"] for _ in range(3)]
        assert granted == [1, 1, 1]
        assert all(request.quotas["requestcount"].amount == 1 for request in server.checks)
        assert (await mixer.check({}, {"requestcount": -1})).granted == {"requestcount": 1}


async def test_several_quotas_and_a_denial(tmp_path: Path) -> None:
    """A denied request is charged nothing; one quota that is used up refuses the request."""
    extra = document("instance", "bytes", {"compiledTemplate": "quota", "params": {"dimensions": {}}})
    quotas = [
        {"name": name, "maxAmount": amount, "validDuration": "9s"}
        for name, amount in [("requestcount", 50), ("bytes", 2)]
    ]
    limits = document("handler", "limits", {"compiledAdapter": "memquota", "params": {"quotas": quotas}})
    rule = document("rule", "limit", {"actions": [action("limits", "requestcount", "bytes")]})
    server = Server([*cacheable_denial(), quota(1)[1], extra, limits, rule])
    async with asked(server, tmp_path) as mixer:
        wanted = {"requestcount": 1, "bytes": 2}
        denied = await mixer.check({"source.principal": MALLORY, "request.url_path": "/admin"}, wanted)
        assert (denied.code, denied.granted) == (7, {})
        assert (await mixer.check({}, wanted)).granted == wanted
        await until(lambda: not mixer._prefetches)
        server.checks.clear()
        refused = await mixer.check({"request.url_path": "/"}, wanted)
        assert (refused.code, refused.granted["bytes"]) == (8, 0)
        assert "bytes" in refused.message


async def test_records_go_in_batches(server: tuple[Server, str]) -> None:
    """A hundred, or what came in a second; independent, with one list of words."""
    service, target = server
    clock = ManualClock()
    async with grpc.aio.insecure_channel(target) as channel, MixerClient(channel, clock=clock) as mixer:
        for number in range(250):
            assert mixer.report({"request.path": f"/{number}", "response.code": 200})
        await until(lambda: len(service.reports) == 3)
        assert [len(report.attributes) for report in service.reports] == [100, 100, 50]
        report = service.reports[0]
        assert report.repeated_attributes_semantics == mixer_pb2.ReportRequest.INDEPENDENT_ENCODING
        assert [*report.default_words] == [f"/{number}" for number in range(100)]
        assert not any(element.words for element in report.attributes)

        mixer.report({"request.path": "/last"})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await clock.advance(0.9)
        assert len(service.reports) == 3
        await clock.advance(0.1)
        await until(lambda: len(service.reports) == 4)
        mixer.report({"request.path": "/at the end"})
    assert len(service.reports) == 5
    assert mixer.statistics.records_sent == 252


async def test_records_are_sent_again_and_bounded(server: tuple[Server, str]) -> None:
    service, target = server
    service.failures += [AWAY, AWAY]
    options = Options(report_waiting=3, report_retries=2, retry_base=0.001)
    async with grpc.aio.insecure_channel(target) as channel, MixerClient(channel, options) as mixer:
        assert [mixer.report({"request.path": "/"}) for _ in range(4)] == [True, True, True, False]
        await mixer.flush()
        assert (mixer.statistics.records_sent, mixer.statistics.records_refused) == (3, 1)
        service.failures += 3 * [AWAY]
        mixer.report({"request.path": "/"})
        await mixer.flush()
        assert mixer.statistics.records_lost == 1
        assert "gone for tea" in mixer.statistics.last_failure


async def test_large_records_are_sent_in_more_batches(server: tuple[Server, str]) -> None:
    """Servers of old take 1 MiB."""
    service, target = server
    async with grpc.aio.insecure_channel(target) as channel, MixerClient(channel) as mixer:
        for number in range(20):
            mixer.report({"request.path": f"{number}" + "x" * 100_000})
        await mixer.flush()
    assert sum(len(report.attributes) for report in service.reports) == 20
    assert all(report.ByteSize() < 1 << 20 for report in service.reports)


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 0.4), st.integers(0, 30)), min_size=1, max_size=60))
def test_a_closed_quota_uses_only_what_was_granted(requests: list[tuple[int, float, int]]) -> None:
    """And asks for at most one amount at a time, not sooner than half a second after the last."""
    prefetch = Prefetch(Options(), is_open=False, asked_at=0.0)
    now, used, granted, asked_at = 0.0, 0, 0, 0.0
    for amount, pause, grant in requests:
        now += pause
        is_granted, ask = prefetch.take(amount, now)
        used += amount if is_granted else 0
        assert used <= granted
        if ask is not None:
            assert now - asked_at >= 0.5
            assert prefetch.take(1000, now)[1] is None
            given = min(grant, ask.amount - 1)
            prefetch.answered(ask, given, 1e9, now)
            granted, asked_at = granted + given, now
