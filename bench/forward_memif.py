"""`forward-memif`: memif to memif, our worker against `dpdk-testpmd` on two `net_memif` ports.

Both are one process whose two ports are each other's peers, with 512 packets in flight each way, counters on. The
figure is packets for each CPU-second: who polls in vain on a busy machine pays for it on both sides alike.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from bench import measure, testpmd
from bench.result import Busy, Result, interleave, machine, median

SECONDS = 2.0
GOAL = 1.5
LENGTH = 64
RINGS = "rsize=10,bsize=2048"


def run(rounds: int) -> Result:
    """Measure both sides in turn."""
    if not testpmd.is_here():
        raise Busy(f"{testpmd.PROGRAM} isn't installed (Debian: dpdk-dev)")
    program = example()
    core = measure.CLIENT_CORE
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "memif.sock"
        common = f"socket={socket},socket-abstract=no,{RINGS}"
        devices = [f"net_memif0,role=server,{common}", f"net_memif1,role=client,{common}"]

        def peer() -> float:
            socket.unlink(missing_ok=True)
            with testpmd.running((measure.SERVER_CORE, core), devices, "--no-huge", "-m", "512") as running:
                running.begin()
                return running.measure(SECONDS)

        ours, against = interleave(rounds, [lambda: loop(program, core, LENGTH), peer])
        large = [loop(program, core, 1500) for _ in range(rounds)]
    return Result(
        "forward-memif",
        median(ours),
        median(against),
        "Mpps a CPU-second",
        "higher",
        cpu_us={},
        conditions={
            "ours": [round(figure, 1) for figure in ours],
            "testpmd": [round(figure, 1) for figure in against],
            "bytes": LENGTH,
            "ours at 1500 bytes": round(median(large), 2),
            "rings": RINGS,
            **machine(),
        },
        goal=GOAL,
    )


def example() -> Path:
    """Build the loop in release mode; return its path."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", measure.ROOT / "dataplane" / "target"))
    manifest = measure.ROOT / "dataplane" / "Cargo.toml"
    subprocess.run(
        [
            "cargo", "build", "--release", "--quiet", "--locked", "--manifest-path", str(manifest),
            "--package", "meshwright-memif", "--example", "self_loop",
        ],
        check=True,
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
    )  # fmt: skip
    return target / "release" / "examples" / "self_loop"


def loop(program: Path, core: int, length: int) -> float:
    """Return millions of packets for each CPU-second of our process."""
    command = ["taskset", "-c", str(core), str(program), str(round(SECONDS * 1000)), str(length)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    printed = json.loads(done.stdout)
    if printed["drops"]:
        raise RuntimeError(f"{printed['drops']} packets were dropped, where none can be")
    return float(printed["packets"]) / float(printed["cpu_seconds"]) / 1e6
