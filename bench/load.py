"""`load`: our load generator beside wrk on the same server, its maximum, and how exactly it holds half of that.

The server's answers wait from 2 to 30 ms, each as often as the others: what both measured must be the same. (A server
that is busy to its limit answers a client faster that sends its requests in batches, and that would be compared
instead.) wrk runs with one thread, ours too, on the core that isn't the server's, in turn.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import measure
from bench.result import Result, machine, median, require_quiet
from meshwright.dataplane import load as loads

CONNECTIONS = 16
SECONDS = 3
LONGEST_MS = 30
PERCENTILES = (50.0, 75.0, 90.0, 99.0)
MOST_DIFFERENCE, MOST_ERROR = 5.0, 1.0  # per cent
QUIET_MS = 17.0  # wrk's median on a quiet machine: the middle wait, and a tick of the server's timer
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
_LINE = re.compile(r"^\s+(\d+)%\s+([0-9.]+)(us|ms|s)\s*$", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([0-9.]+)$", re.MULTILINE)


def run(rounds: int) -> Result:
    """Measure both in turn."""
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk isn't there: apt-get install wrk")
    programs = measure.floors()
    with ExitStack() as stack:
        slow = _server(stack, programs, LONGEST_MS)
        idle = _server(stack, programs, 0)
        ours: dict[float, list[float]] = {share: [] for share in PERCENTILES}
        wrks: dict[float, list[float]] = {share: [] for share in PERCENTILES}
        peaks: list[float] = []
        wrk_peaks: list[float] = []
        errors: list[float] = []
        _ours(loads.Load(slow, connections=CONNECTIONS, duration=1))
        for _ in range(rounds):
            found = _ours(loads.Load(slow, connections=CONNECTIONS, duration=SECONDS))
            _, latencies = _wrk(slow)
            for share in PERCENTILES:
                ours[share].append(found.percentiles[share])
                wrks[share].append(latencies[share])
            peaks.append(_ours(loads.Load(idle, connections=CONNECTIONS, duration=SECONDS)).rate)
            wrk_peaks.append(_wrk(idle)[0])
            half = loads.Load(idle, rate=round(peaks[-1] / 2), connections=CONNECTIONS, duration=SECONDS)
            errors.append(100 * abs(_ours(half).rate / half.rate - 1))
    require_quiet("wrk's median", median(wrks[50.0]) * 1e6, QUIET_MS * 1e3)
    differences = {share: 100 * abs(median(ours[share]) / median(wrks[share]) - 1) for share in PERCENTILES}
    main = _bounded("load, largest difference of a percentile from wrk's", max(differences.values()), MOST_DIFFERENCE)
    conditions: dict[str, Any] = {
        "connections": CONNECTIONS,
        "seconds": SECONDS,
        "longest wait of the server, ms": LONGEST_MS,
        **{
            f"p{share:g}, ours and wrk's, ms": f"{median(ours[share]) * 1e3:.3f} {median(wrks[share]) * 1e3:.3f}"
            for share in PERCENTILES
        },
        "rounds": rounds,
        **machine(),
    }
    error = _bounded("load, error of the rate at half of the maximum", median(errors), MOST_ERROR)
    peak = Result(
        name="load, maximum of one thread",
        ours=median(peaks),
        against=median(wrk_peaks),
        unit="requests a second",
        better="higher",
        cpu_us={},
    )
    return replace(main, conditions=conditions, beside=[error, peak])


def _bounded(name: str, ours: float, most: float) -> Result:
    return Result(name=name, ours=ours, against=most, unit="%", better="lower", goal=1.0, cpu_us={})


def _server(stack: ExitStack, programs: Path, longest: int) -> str:
    command: list[str | Path] = [programs / "http_floor", "--listen", "127.0.0.1:0", "--longest", str(longest)]
    process = stack.enter_context(measure.process(*command, core=measure.SERVER_CORE))
    return f"http://{measure.first_line(process)}/"


def _ours(load: loads.Load) -> loads.Found:
    """Run on the client's core: threads stay where the one is that started them."""
    found: list[loads.Found] = []

    def work() -> None:
        os.sched_setaffinity(0, {measure.CLIENT_CORE})
        found.append(loads.run(replace(load, threads=1)))

    _in_thread(work)
    if not found or found[0].good != found[0].count:
        raise RuntimeError(f"not every request to {load.url} was answered well")
    return found[0]


def _in_thread(work: Callable[[], None]) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def _wrk(url: str) -> tuple[float, dict[float, float]]:
    command = [
        "taskset",
        "-c",
        str(measure.CLIENT_CORE),
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{SECONDS}s",
        "--latency",
    ]
    done = subprocess.run([*command, url], check=True, capture_output=True, text=True, timeout=SECONDS + 30)
    latencies = {float(share): float(value) * _UNITS[unit] for share, value, unit in _LINE.findall(done.stdout)}
    rate = _RATE.search(done.stdout)
    if rate is None or set(latencies) != set(PERCENTILES):
        raise RuntimeError(f"wrk printed something else: {done.stdout[:500]}")
    return float(rate[1]), latencies
