"""Where a Policy's logs and measures go: lines on standard output, and metrics that Prometheus reads."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mixers import Mixer
from policy_documents import policy

from pki import Pki

pytestmark = pytest.mark.timeout(120)  # processes start slowly on a busy machine

SHOP = """
    targets: [{service: shop}]
    log:
      - {to: stdio, when: response.code >= 500, severity: error, fields: {path: request.path, user: request.host}}
    measure:
      - {name: shop_requests, to: prometheus, by: {code: response.code}}
      - {name: shop_bytes, to: prometheus, kind: distribution, value: response.size, bounds: [10.0, 100.0]}
"""


def lines(mixer: Mixer) -> list[dict[str, Any]]:
    """What is on standard output beside mixer's own log: time, level, instance, and the values as JSON."""
    found = []
    for line in mixer.log.read_text().splitlines():
        words = line.split(None, 3)
        if len(words) == 4 and words[2].startswith("shop/log-1"):
            found.append({"level": words[1], **json.loads(words[3])})
            assert len(found[-1].pop("meshwright.record.id")) == 32
    return found


async def test_logs_are_lines_and_measures_metrics(tmp_path: Path, pki: Pki) -> None:
    """Of requests to the target alone; those that the entry doesn't select are counted, not logged."""
    mixer = Mixer(tmp_path / "mixer", pki, config=tmp_path / "config")
    mixer.write("shop.yaml", [policy(SHOP)])
    await mixer.start()
    inbound = {"context.reporter.kind": "inbound", "destination.namespace": "demo"}
    shop = {**inbound, "destination.service.name": "shop"}
    await mixer.report(
        pki.workload("shop"),
        {**shop, "request.path": "/a", "response.code": 200, "response.size": 5},
        {**shop, "request.path": "/b", "response.code": 503, "response.size": 50},
        {**inbound, "destination.service.name": "cart", "response.code": 500, "response.size": 5},
    )
    await mixer.until_metric("meshwright_mixer_records_acknowledged_total", lambda value: value >= 2)
    assert lines(mixer) == [{"level": "error", "path": "/b", "user": ""}]
    metrics = await mixer.get("/metrics")
    assert 'shop_requests{code="200"} 1.0' in metrics
    assert 'shop_requests{code="503"} 1.0' in metrics
    assert 'shop_requests{code="500"}' not in metrics
    assert 'shop_bytes_bucket{le="10.0"} 1' in metrics
    assert "istio_shop" not in metrics
    assert await asyncio.to_thread(mixer.stop) == 0
