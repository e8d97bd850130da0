"""`python -m bench.soak_check`: millions of checks against one mixer, whose memory and descriptors must stay flat.

What the engine holds by itself is counted to the byte by `cargo run --release -p meshwright-policy --example memory`.
"""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack

from bench import check, measure
from bench.soak import WINDOW_SECONDS, Sample, closed, sample, show, verdict

RULES = 100


def soak(calls: int) -> str | None:
    """Run; return what isn't flat."""
    with ExitStack() as stack:
        bench = check.Bench(stack)
        mixer = bench.mixer("soak", check.documents(RULES))
        samples = [sample(mixer.pid, 0, 0)]
        show(samples[0], 0)
        began = time.monotonic()
        while samples[-1].calls < calls:
            found = mixer.load(*check.CONCURRENCY, milliseconds=WINDOW_SECONDS * 1000)
            done = samples[-1].calls + int(found["calls"])
            samples.append(_taken(mixer.pid, done, began))
            show(samples[-1], 0)
        print(f"{measure.cpu_us(mixer.pid) / samples[-1].calls:.1f} µs of CPU a check")
        return verdict(samples, closed(mixer.pid, samples[0].descriptors), calls)


def _taken(pid: int, calls: int, began: float) -> Sample:
    return sample(pid, calls, time.monotonic() - began)


def main() -> int:
    """Run; status 1 when something grows."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak_check", description=__doc__)
    parser.add_argument("--calls", type=int, default=10_000_000, help="checks (default: ten million)")
    fault = soak(parser.parse_args().calls)
    if fault:
        print(f"soak: {fault}", file=sys.stderr)
    return 1 if fault else 0


if __name__ == "__main__":
    sys.exit(main())
