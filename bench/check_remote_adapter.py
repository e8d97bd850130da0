"""`check-remote-adapter`: what asking an adapter in another process adds to a check, against a bare tonic call.

Four servers with the same request: our mixer with a rule that asks a remote adapter and without it; a bare tonic
handler that asks the same server the same bytes and one that doesn't. What is compared is the difference, in CPU time
of the server that asks: encoding the instance, the call, its guard and reading the answer against nothing but the
call. The adapter is a bare tonic server beside the load generator; its answers may not be kept, so each check asks.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from bench import check, measure
from bench.result import Result, interleave, machine, median

GOAL = 1.1  # one hop's cost and no more, as far as a difference can be told


def run(rounds: int) -> Result:
    """Measure all four in turn: under load, and one call at a time."""
    with ExitStack() as stack:
        bench = check.Bench(stack)
        program = bench.programs / "adapter_floor"
        adapter = stack.enter_context(measure.process(program, "--listen", "127.0.0.1:0", core=measure.CLIENT_CORE))
        address = measure.first_line(adapter)
        asking = bench.mixer("asking", [*check.documents(4), *documents(address)])
        asking.load(1, 1, milliseconds=50)
        method, _, digits = measure.first_line(adapter).partition(" ")
        question = bench.folder / "question"
        question.write_bytes(bytes.fromhex(digits))
        bare = bench.floor("--adapter", address, "--method", method, "--question", question)
        sides = [asking, bench.mixer("plain", check.documents(4)), bare, bench.floor()]
        for side in sides:
            side.saturated()
        ours, without, hop, floor = map(median, interleave(rounds, [side.saturated for side in sides]))
        alone = [median(series) for series in interleave(rounds, [side.alone for side in sides])]
    return Result(
        name="check-remote-adapter",
        ours=ours - without,
        against=hop - floor,
        unit="µs",
        better="lower",
        goal=GOAL,
        cpu_us={
            "mixer, asking": ours,
            "mixer, without": without,
            "bare tonic handler, asking": hop,
            "bare tonic handler, without": floor,
        },
        conditions={**check.CONDITIONS, "question's bytes": len(digits) // 2, "rounds": rounds, **machine()},
        beside=[
            Result(
                name="check-remote-adapter, one at a time, what asking adds to p50",
                ours=alone[0] - alone[1],
                against=alone[2] - alone[3],
                unit="µs",
                better="lower",
                cpu_us={},
            )
        ],
    )


def documents(address: str) -> list[dict[str, Any]]:
    """Return a rule that asks the server at this address about each request's caller."""

    def document(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata = {"name": name, "namespace": "meshwright-system"}
        return {"apiVersion": "config.istio.io/v1alpha2", "kind": kind, "metadata": metadata, "spec": spec}

    return [
        document("handler", "remote", {"compiledAdapter": "bypass", "params": {"backend_address": address}}),
        document("rule", "remote", {"actions": [{"handler": "remote", "instances": ["caller"]}]}),
    ]
