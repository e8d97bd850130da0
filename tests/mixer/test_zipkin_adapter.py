"""Adapter zipkin against an HTTP server: Zipkin's JSON, version 2."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from http_backend import HttpBackend
from report_entries import BEGAN, PARENT, SPAN, TRACE, trace_span

from meshwright.mixer.adapters.span_ids import ids
from meshwright.mixer.adapters.zipkin import ADAPTER
from meshwright.mixer.adapters.zipkin.spans import is_sampled
from meshwright.mixer.plugintest import origin, running


@pytest.fixture
async def backend() -> AsyncIterator[HttpBackend]:
    async with HttpBackend() as running_backend:
        yield running_backend


async def posted(backend: HttpBackend, *entries: Any) -> list[dict[str, Any]]:
    async with running(ADAPTER, {"url": backend.url}) as handler:
        await handler.report(entries)
    [(path, headers, body)] = backend.requests
    assert (path, headers["content-type"]) == ("/api/v2/spans", "application/json")
    found: list[dict[str, Any]] = json.loads(body)
    return found


async def test_a_span_has_both_ends_and_its_times(backend: HttpBackend) -> None:
    [span] = await posted(backend, trace_span(origin=origin(redelivered=True)))
    assert span == {
        "traceId": TRACE,
        "id": SPAN,
        "parentId": PARENT,
        "name": "GET /cart",
        "kind": "SERVER",
        "shared": True,
        "timestamp": round(BEGAN.timestamp() * 1e6),
        "duration": 30_000,
        "localEndpoint": {"serviceName": "cart", "ipv6": "fd00::2"},
        "remoteEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1"},
        "tags": {
            "http.method": "GET",
            "retried": "false",
            "http.status_code": "200",
            "request.size": "12",
            "meshwright.redelivered": "true",
        },
    }


async def test_rewritten_ids_make_the_server_the_clients_child(backend: HttpBackend) -> None:
    client, server = await posted(
        backend,
        trace_span(client_span=True, rewrite_client_span_id=True),
        trace_span(rewrite_client_span_id=True),
    )
    assert client["id"] == server["parentId"]
    assert server["id"] == SPAN != client["id"]
    assert (client["parentId"], client["kind"], "shared" in server) == (PARENT, "CLIENT", False)


async def test_a_span_without_a_trace_is_left_out(backend: HttpBackend) -> None:
    bad = [{"trace_id": ""}, {"trace_id": "xyz"}, {"span_id": "0" * 16}, {"trace_id": "0" * 32}, {"span_id": "é" * 16}]
    spans = await posted(backend, *(trace_span(**given) for given in bad), trace_span())
    assert len(spans) == 1


async def test_a_refused_batch_is_not_taken(backend: HttpBackend) -> None:
    backend.status = 503
    async with running(ADAPTER, {"url": backend.url}) as handler:
        with pytest.raises(httpx.HTTPStatusError):
            await handler.report([trace_span()])


def test_sampling_keeps_whole_traces() -> None:
    traces = [f"{number * 2**64 // 1000:032x}" for number in range(1, 1000)]
    kept = [trace for trace in traces if is_sampled(trace, 0.25)]
    assert 240 < len(kept) < 260
    assert [trace for trace in traces if is_sampled(trace[16:], 0.25)] == kept  # a short id is the same trace


def test_ids_are_checked() -> None:
    assert ids(trace_span(trace_id=TRACE[16:].upper())) == (TRACE[16:].rjust(32, "0"), SPAN, PARENT)
    assert ids(trace_span(parent_span_id="junk")) == (TRACE, SPAN, "")
