"""`check-rules`: a policy check with 10,000 rules of which four can match, against one with ten rules.

Two mixers; same request, same client, same core, in turn. What a rule costs that can't match is the difference.
"""

from __future__ import annotations

from contextlib import ExitStack

from bench import check
from bench.result import Result, interleave, machine, median

MANY, FEW = 10_000, 10


def run(rounds: int) -> Result:
    """Measure both in turn."""
    with ExitStack() as stack:
        bench = check.Bench(stack)
        sides = [bench.mixer(str(count), check.documents(count)) for count in (MANY, FEW)]
        for side in sides:
            side.saturated()
        many, few = map(median, interleave(rounds, [side.saturated for side in sides]))
    return Result(
        name="check-rules",
        ours=many,
        against=few,
        unit="µs",
        better="lower",
        goal=1.5,
        cpu_us={f"{MANY} rules": many, f"{FEW} rules": few},
        conditions={**check.CONDITIONS, "rounds": rounds, **machine()},
    )
