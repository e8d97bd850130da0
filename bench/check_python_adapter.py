"""`check-python-adapter`: a policy check that asks an adapter in Python, against the same check without it.

The adapter is a project as `meshwright adapter new` makes it. What it costs to go to Python and back is the difference;
how many questions entered Python with one acquisition of the GIL is told beside it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx

from bench import check
from bench.result import Result, interleave, machine, median
from meshwright.mixer import scaffold

NAME = "bouncer"
TAKEN, BATCHES = "meshwright_mixer_questions_taken_total", "meshwright_mixer_questions_batches_total"


def run(rounds: int) -> Result:
    """Measure both in turn."""
    with ExitStack() as stack:
        bench = check.Bench(stack)
        with installed(bench.folder / "site"):
            asking = bench.mixer("asking", [*check.documents(4), *documents()])
        plain = bench.mixer("plain", check.documents(4))
        for side in (asking, plain):
            side.saturated()
        taken, batches = entered(bench.folder / "asking" / "mixer.sock")
        asked_us, plain_us = map(median, interleave(rounds, [asking.saturated, plain.saturated]))
        taken_after, batches_after = entered(bench.folder / "asking" / "mixer.sock")
        alone = [median(series) for series in interleave(rounds, [asking.alone, plain.alone])]
    per_batch = (taken_after - taken) / max(1.0, batches_after - batches)
    return Result(
        name="check-python-adapter",
        ours=asked_us,
        against=plain_us,
        unit="µs",
        better="lower",
        cpu_us={"asking an adapter in Python": asked_us, "without it": plain_us, "difference": asked_us - plain_us},
        conditions={
            **check.CONDITIONS,
            "questions that entered Python": int(taken_after - taken),
            "of them together": round(per_batch, 1),
            "rounds": rounds,
            **machine(),
        },
        beside=[
            Result(
                name="check-python-adapter, one at a time, p50",
                ours=alone[0],
                against=alone[1],
                unit="µs",
                better="lower",
                cpu_us={},
            )
        ],
    )


@contextmanager
def installed(site: Path) -> Iterator[None]:
    """Processes that start meanwhile have the adapter, as pip would have left it."""
    scaffold.create(site, NAME, "listentry")
    information = site / f"{NAME}-0.1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0.1.0\n")
    (information / "entry_points.txt").write_text(f"[meshwright.adapters]\n{NAME} = {NAME}:ADAPTER\n")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(site), before)))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def documents() -> list[dict[str, Any]]:
    """Return a rule that asks the adapter about each request."""

    def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "meshwright-system"}
        return {"apiVersion": "config.istio.io/v1alpha2", "kind": kind, "metadata": metadata, "spec": spec}

    return [
        document("handler", NAME, {"compiledAdapter": NAME, "params": {"denied": ["mallory"]}}),
        document("rule", NAME, {"actions": [{"handler": NAME, "instances": ["caller"]}]}),
    ]


def entered(admin: Path) -> tuple[float, float]:
    """Return how many questions entered Python so far, and how often."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin))) as client:
        lines = client.get("http://service/metrics").text.splitlines()
    found = {
        name: float(value) for name, _, value in (line.partition(" ") for line in lines) if name in (TAKEN, BATCHES)
    }
    return found[TAKEN], found[BATCHES]
