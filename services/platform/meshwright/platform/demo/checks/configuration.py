"""Check 1: configuration reaches every proxy, is acknowledged, and does on the wire what it says, without a failure."""

from __future__ import annotations

import time

from meshwright.platform.demo import binomial, load
from meshwright.platform.demo.harness import Failure, Measurements
from meshwright.platform.demo.session import Session

CONFIDENCE = 0.9999
REQUESTS, CONCURRENCY = 1000, 8
SECOND_REQUESTS = 400


async def run(session: Session) -> Measurements:
    """Apply a split of 90/10, measure it, and change it to 50/50 while requests run."""
    first, applied = await _apply(session, 90, 10)
    began = time.monotonic()
    tally = await load.burst(session.shop, REQUESTS, CONCURRENCY, session.version)
    seconds = time.monotonic() - began
    measured: dict[str, object] = {
        "proxies": len(session.application.workloads),
        "acknowledged_by_all_after_seconds": applied,
        "split_90_10": tally.answers,
        "interval_of_v2": _judge(tally, REQUESTS, 0.1),
        "requests_per_second": round(REQUESTS / seconds),
    }
    async with load.steady(session.shop, 30, session.version) as during:
        second, changed = await _apply(session, 50, 50)
        after = await load.burst(session.shop, SECOND_REQUESTS, CONCURRENCY, session.version)
    measured |= {
        "changed_under_load_after_seconds": changed,
        "requests_during_the_change": during.sent + after.sent,
        "failed": tally.failed + during.failed + after.failed,
        "split_50_50": after.answers,
        "interval_of_v2_after": _judge(after, SECOND_REQUESTS, 0.5),
        "revisions": f"{first} then {second}",
    }
    for name, part in (("before", tally), ("during", during), ("after", after)):
        if part.failed:
            raise Failure(
                f"{part.failed} of {part.sent} requests failed {name} the change: {part.failures[0]}", measured
            )
    return measured


async def _apply(session: Session, v1: int, v2: int) -> tuple[int, float]:
    began = time.monotonic()
    revision = await session.apply("split.yaml", v1=v1, v2=v2)
    await session.acknowledged(revision)
    return revision, round(time.monotonic() - began, 3)


def _judge(tally: load.Tally, requests: int, share: float) -> str:
    low, high = binomial.interval(requests, share, CONFIDENCE)
    count = tally.answers.get("v2", 0)
    if not tally.failed and not low <= count <= high:
        raise Failure(
            f"v2 answered {count} of {requests} requests, outside the {CONFIDENCE:.2%} interval {low}-{high}",
            {"answers": tally.answers},
        )
    return f"{low}-{high}"
