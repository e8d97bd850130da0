"""Check 4: one request is one trace through every hop and part, and every record arrives once, whatever is killed."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections import Counter

import grpc

from meshwright.api.collector.v1 import collector_pb2 as pb
from meshwright.core import errors
from meshwright.platform.demo import load
from meshwright.platform.demo.client import Answer
from meshwright.platform.demo.harness import Failure, Measurements, until
from meshwright.platform.demo.metrics import counters
from meshwright.platform.demo.session import Session
from meshwright.platform.up.ports import mixer_name

_REQUESTS = 60
_HOPS = 3  # sidecars that report each request: shop, catalog, stock
_ARRIVAL_SECONDS = 30.0
_STORED = "meshwright_mixer_records_stored_total"


async def run(session: Session) -> Measurements:
    """Follow one trace; then lose the exporter and the mixers with records on their way."""
    measured: dict[str, object] = {}
    measured |= await _one_trace(session)
    measured |= await _metrics(session)
    measured |= await _nothing_lost(session)
    return measured


async def _one_trace(session: Session) -> dict[str, object]:
    trace_id = secrets.token_hex(16)
    headers = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    answer = await session.get("/", headers=headers)
    if answer.status != 200:
        raise Failure(f"the traced request was answered with {answer.status}")
    trace = pb.Trace()

    async def whole() -> str:
        found = await session.collector.FindTraces(pb.FindTracesRequest(trace_id=trace_id), timeout=5)
        if not found.traces:
            return "no span of the trace has arrived"
        trace.CopyFrom(found.traces[0])
        return _missing(trace)

    try:
        await until(whole, _ARRIVAL_SECONDS, look=0.25)
    except Failure as failure:
        raise Failure(f"{failure}", {"spans": _outline(trace)}) from None
    return {
        "spans_in_one_trace": len(trace.spans),
        "services_in_the_trace": sorted({span.service for span in trace.spans}),
        "policy_checks_inside": len(_policy_checks(trace)),
    }


def _missing(trace: pb.Trace) -> str:
    """Say what the trace lacks: a span of every application hop, and a policy check below each hop's sidecar."""
    applications = {span.name.split()[0] for span in trace.spans if span.name.endswith(" /")}
    absent = {"shop", "catalog", "stock"} - applications
    if absent:
        return f"no span of {', '.join(sorted(absent))}"
    checks = _policy_checks(trace)
    if len(checks) < _HOPS:
        return f"{len(checks)} of {_HOPS} policy checks"
    known = {span.span_id for span in trace.spans}
    orphans = [span.name for span in checks if span.parent_span_id not in known]
    return f"policy checks without their parent in the trace: {', '.join(orphans)}" if orphans else ""


def _policy_checks(trace: pb.Trace) -> list[pb.Span]:
    """Return mixer's own spans of decisions (those of the policy crate, in Rust)."""
    return [span for span in trace.spans if span.service == "meshwright-mixer" and "Authorization" in span.name]


def _outline(trace: pb.Trace) -> list[str]:
    return [f"{span.service}: {span.name}" for span in trace.spans]


async def _metrics(session: Session) -> dict[str, object]:
    """The adapter's metrics must have arrived, too."""
    total = 0.0

    async def arrived() -> str:
        nonlocal total
        found = await session.collector.FindMetrics(pb.FindMetricsRequest(name="istio_requests_total"), timeout=5)
        total = sum(point.value for point in found.points)
        return "" if total else "metric istio_requests_total"

    await until(arrived, _ARRIVAL_SECONDS)
    return {"istio_requests_total": round(total)}


async def _nothing_lost(session: Session) -> dict[str, object]:
    """Stop the collector, send requests, kill every mixer, start all again, and count the records by their ids."""
    supervisor, marker = session.platform.supervisor, secrets.token_hex(6)
    mixers = [mixer_name(index) for index in range(session.platform.settings.mixers)]
    await supervisor.pause("collector")
    before = await _stored(session, mixers)
    sent = 0

    async def request() -> Answer:
        nonlocal sent
        sent += 1
        return await session.get(f"/audit/{marker}/{sent}")

    tally = await load.burst(request, _REQUESTS, 4)
    if tally.failed:
        raise Failure(f"{tally.failed} requests failed before anything was killed: {tally.failures[0]}")

    async def stored() -> str:
        have = await _stored(session, mixers) - before
        return "" if have >= _REQUESTS * _HOPS else f"{have:.0f} of {_REQUESTS * _HOPS} records are in the queue"

    await until(stored, _ARRIVAL_SECONDS)
    killed = [supervisor.status(name).pid for name in mixers]
    for pid in killed:
        if pid:
            os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    await supervisor.resume("collector")
    await supervisor.until(
        lambda: all(supervisor.status(name).pid not in killed for name in mixers), 20, "mixers were started again"
    )
    await supervisor.until_healthy([*mixers, "collector"], 40)
    found: Counter[str] = Counter()
    unmarked: Counter[str] = Counter()
    places: set[tuple[str, str]] = set()

    async def arrived() -> str:
        nonlocal found, unmarked, places
        try:
            answer = await session.collector.FindLogs(
                pb.FindLogsRequest(body=f"/audit/{marker}/", limit=10_000), timeout=5
            )
        except grpc.aio.AioRpcError as error:
            return f"the collector: {error.details()}"
        found, unmarked, places = Counter(), Counter(), set()
        for record in answer.records:
            given = record.attributes
            identifier = given["meshwright.record.id"]
            found[identifier] += 1
            if given.get("meshwright.redelivered") != "true":
                unmarked[identifier] += 1
            places.add((given.get("url.path", ""), given.get("destination.workload.name", "")))
        return "" if len(found) >= _REQUESTS * _HOPS else f"{len(found)} of {_REQUESTS * _HOPS} records"

    measured: dict[str, object] = {
        "requests_with_the_exporter_stopped": _REQUESTS,
        "records_expected": _REQUESTS * _HOPS,
        "mixers_killed": len(killed),
    }
    try:
        await until(arrived, _ARRIVAL_SECONDS, look=0.25)
    except Failure as failure:
        raise Failure(f"after the restart {failure}", measured) from None
    measured |= {
        "records_arrived": len(found),
        "further_copies_all_marked": sum(found.values()) - len(found),
        "all_arrived_after_seconds": round(time.monotonic() - began, 1),
    }
    twice = [identifier for identifier, count in unmarked.items() if count > 1]
    if twice:
        raise Failure(f"{len(twice)} records arrived twice without a mark, first {twice[0]}", measured)
    if len(found) != _REQUESTS * _HOPS or len(places) != _REQUESTS * _HOPS:
        raise Failure(f"{len(found)} records of {len(places)} different hops arrived", measured)
    return measured


async def _stored(session: Session, mixers: list[str]) -> float:
    total = 0.0
    for name in mixers:
        read = await counters(session.platform.layout.health_socket(name))
        if _STORED not in read:
            raise errors.NotFound(f"{name} shows no {_STORED}")
        total += read[_STORED]
    return total
