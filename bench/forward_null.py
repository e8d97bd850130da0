"""`forward-null`: between DPDK's two null devices, our worker against `dpdk-testpmd`.

Both allocate, forward and free buffers as fast as they can, without hugepages; ours counts packets and bytes besides.
Needs the distribution meshwright-dpdk.
"""

from __future__ import annotations

import json
import subprocess
import sys

from bench import measure, testpmd
from bench.result import Busy, Result, interleave, machine, median

SECONDS = 2.0
GOAL = 0.9
DEVICES = ("net_null0", "net_null1")
PROGRAM = """
import json, sys, time
from meshwright import dpdk

dpdk.init(memory=512)
with dpdk.CrossConnect(*(dpdk.Port(device) for device in sys.argv[2:]), core=None) as connected:
    def look():
        received = [port[0] for port in connected.counters()]
        return sum(flow["packets"] for flow in received), connected.cpu_seconds()
    time.sleep(0.5)
    packets, cpu = look()
    time.sleep(float(sys.argv[1]))
    after, cpu_after = look()
print(json.dumps((after - packets) / (cpu_after - cpu) / 1e6))
"""


def run(rounds: int) -> Result:
    """Measure both sides in turn."""
    if not testpmd.is_here():
        raise Busy(f"{testpmd.PROGRAM} isn't installed (Debian: dpdk-dev)")
    core = measure.CLIENT_CORE

    def ours() -> float:
        command = ["taskset", "-c", str(core), sys.executable, "-c", PROGRAM, str(SECONDS), *DEVICES]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise Busy(f"meshwright-dpdk doesn't run (pip install ./dataplane/dpdk): {done.stderr[-500:]}")
        return float(json.loads(done.stdout.splitlines()[-1]))

    def peer() -> float:
        with testpmd.running((measure.SERVER_CORE, core), DEVICES, "--no-huge", "-m", "512") as running:
            running.begin()
            return running.measure(SECONDS)

    figures, against = interleave(rounds, [ours, peer])
    return Result(
        "forward-null",
        median(figures),
        median(against),
        "Mpps a CPU-second",
        "higher",
        cpu_us={},
        conditions={
            "ours": [round(figure, 1) for figure in figures],
            "testpmd": [round(figure, 1) for figure in against],
            "bytes": 64,
            **machine(),
        },
        goal=GOAL,
    )
