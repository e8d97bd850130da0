"""The prometheus and stdio adapters in a mixer: fed by Report, and held to their promises when others fail."""

from __future__ import annotations

import asyncio
import json
import resource
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
from mixers import Mixer
from otlp_collector import Collector
from rule_documents import document

from meshwright.core.identity import StaticIdentity
from pki import Pki

pytestmark = pytest.mark.timeout(120)  # processes start slowly on a busy machine

TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}


def documents(log: Path) -> list[Any]:
    """A line and a metric for each request."""
    metrics = [
        {"name": "requests_total", "instanceName": "size", "kind": "COUNTER", "labelNames": ["path"]},
        {
            "name": "size_bytes",
            "instanceName": "size",
            "kind": "DISTRIBUTION",
            "buckets": {"explicitBuckets": {"bounds": [10, 100]}},
        },
    ]
    return [
        document("handler", "prom", {"compiledAdapter": "prometheus", "params": {"metrics": metrics}}),
        document(
            "handler",
            "lines",
            {
                "compiledAdapter": "stdio",
                "params": {"logStream": "FILE", "outputPath": str(log), "outputAsJson": True},
            },
        ),
        document(
            "instance",
            "size",
            {
                "compiledTemplate": "metric",
                "params": {"value": "request.size | 0", "dimensions": {"path": 'request.path | ""'}},
            },
        ),
        document(
            "instance",
            "line",
            {
                "compiledTemplate": "logentry",
                "params": {
                    "severity": '"warning"',
                    "variables": {"path": 'request.path | ""', "user agent": 'request.useragent | "-"'},
                },
            },
        ),
        document(
            "rule",
            "all",
            {"actions": [{"handler": "prom", "instances": ["size"]}, {"handler": "lines", "instances": ["line"]}]},
        ),
    ]


def lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


async def until(log: Path, count: int) -> list[dict[str, Any]]:
    """Wait for as many lines."""
    async with asyncio.timeout(30):
        while len(lines(log)) < count:
            await asyncio.sleep(0.05)
    return lines(log)


async def openmetrics(mixer: Mixer) -> str:
    transport = httpx.AsyncHTTPTransport(uds=str(mixer.admin))
    async with httpx.AsyncClient(transport=transport) as client:
        answer = await client.get("http://mixer/metrics", headers={"accept": "application/openmetrics-text"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    return answer.text


async def test_reports_become_lines_and_metrics_with_exemplars(tmp_path: Path, pki: Pki) -> None:
    """A batch at a time; what Prometheus reads parses, in both formats."""
    log = tmp_path / "access.log"
    mixer = Mixer(tmp_path / "mixer", pki, config=tmp_path / "config")
    mixer.write("rules.yaml", documents(log))
    await mixer.start()
    sidecar = pki.workload("shop")
    await mixer.report(
        sidecar,
        {"request.path": "/a", "request.size": 5, "request.headers": HEADERS},
        {"request.path": '/"b"', "request.size": 50},
        {"request.path": "/a", "request.size": 500},
    )
    written = await until(log, 3)
    assert [line["path"] for line in written] == ["/a", '/"b"', "/a"]
    assert {line["instance"] for line in written} == {"line.meshwright-system"}
    assert {line["level"] for line in written} == {"warn"}
    assert written[0]["trace_id"] == TRACE
    assert len({line["meshwright.record.id"] for line in written}) == 3
    text = await mixer.get("/metrics")
    assert 'istio_requests_total{path="/a"} 505.0' in text
    assert 'istio_requests_total{path="/\\"b\\""} 50.0' in text
    assert 'istio_size_bytes_bucket{le="100.0"} 2' in text
    assert "meshwright_mixer_records_stored_total 3.0" in text
    open_text = await openmetrics(mixer)
    assert open_text.endswith("# EOF\n")
    assert f'istio_size_bytes_bucket{{le="10.0"}} 1 # {{trace_id="{TRACE}"' in open_text
    assert await asyncio.to_thread(mixer.stop) == 0


async def test_others_outage_neither_holds_native_handlers_back_nor_counts_twice(tmp_path: Path, pki: Pki) -> None:
    """The collector is away: lines and counts go on, once a record; it gets everything when it is back."""
    log = tmp_path / "access.log"
    async with Collector(StaticIdentity(pki.part("collector"))) as collector:
        mixer = Mixer(tmp_path / "mixer", pki, "--otlp", collector.address, config=tmp_path / "config")
        mixer.write("rules.yaml", documents(log))
        await mixer.start()
        await collector.stop()
        sidecar = pki.workload("shop")
        for number in range(30):
            await mixer.report(sidecar, {"request.path": f"/{number}", "request.size": 1})
        await until(log, 30)
        await mixer.until(
            lambda health: health["parts"].get("adapter opentelemetry.meshwright-system", {}).get("state") == "degraded"
        )
        await collector.start()
        await collector.until(lambda: len({identifier for identifier, _ in collector.record_ids()}) == 30, 45)
        assert Counter(line["path"] for line in lines(log)) == Counter(f"/{number}" for number in range(30))
        text = await mixer.get("/metrics")
        assert all(f'istio_requests_total{{path="/{number}"}} 1.0' in text for number in range(30))
        assert await asyncio.to_thread(mixer.stop) == 0


async def test_a_full_disk_loses_no_line_and_leaves_no_half(tmp_path: Path, pki: Pki) -> None:
    """What can't be written waits, marked when it is written at last."""
    log = tmp_path / "access.log"
    mixer = Mixer(tmp_path / "mixer", pki, config=tmp_path / "config")
    mixer.write("rules.yaml", documents(log))
    await mixer.start()
    assert mixer.process is not None
    limit = 200_000  # more than mixer's own log has, fewer than the lines take
    resource.prlimit(mixer.process.pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    sidecar = pki.workload("shop")
    for number in range(12):
        await mixer.report(
            sidecar,
            *(
                {"request.path": f"/{number}/{each}", "request.useragent": "x" * 200, "request.size": 1}
                for each in range(50)
            ),
        )
    await mixer.until(
        lambda health: health["parts"].get("adapter lines.meshwright-system", {}).get("state") == "degraded"
    )
    resource.prlimit(mixer.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    written = await until(log, 600)
    assert Counter(line["path"] for line in written) == Counter(f"/{n}/{each}" for n in range(12) for each in range(50))
    assert any(line.get("meshwright.redelivered") for line in written)
    text = await mixer.get("/metrics")
    assert all(f'istio_requests_total{{path="/{number}/0"}} 1.0' in text for number in range(12))
    assert await asyncio.to_thread(mixer.stop) == 0
