"""DPDK's own forwarder, `dpdk-testpmd`, as the peer of a benchmark: packets that circulate between its two ports."""

from __future__ import annotations

import os
import re
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.result import Busy

PROGRAM = "dpdk-testpmd"
_SECONDS = 60.0


class Testpmd:
    """A running testpmd whose one worker forwards between two ports."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def say(self, command: str, until: str) -> str:
        """Give a command; return what is printed up to a line that begins with `until`."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        pattern, output, deadline = (
            re.compile(until + r".*\n", re.MULTILINE),
            self._process.stdout.fileno(),
            _deadline(),
        )
        read = ""
        while not pattern.search(read):
            ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise Busy(f"{PROGRAM} didn't answer {command!r} within {_SECONDS:g} s")
            part = os.read(output, 65536).decode(errors="replace")
            if not part:
                raise RuntimeError(f"{PROGRAM} ended: {read[-2000:]}")
            read += part
        return read

    def begin(self) -> None:
        """Wait until both ports are up, and begin with 512 packets each way."""
        deadline = _deadline()
        while True:
            if all(" up " in self.say(f"show port summary {port}", f"^{port} ").lower() for port in (0, 1)):
                break
            if time.monotonic() > deadline:
                raise Busy(f"{PROGRAM}: the ports aren't up within {_SECONDS:g} s")
        self.say("start tx_first 16", "packets/burst")

    def measure(self, seconds: float) -> float:
        """Return packets received by both ports for each CPU-second of the worker, in millions."""
        before, cpu_before = self._packets(), self._cpu_seconds()
        time.sleep(seconds)
        after, cpu_after = self._packets(), self._cpu_seconds()
        return (after - before) / (cpu_after - cpu_before) / 1e6

    def _packets(self) -> int:
        total = 0
        for port in (0, 1):
            found = re.search(r"RX-packets: (\d+)", self.say(f"show port stats {port}", r"Tx-pps"))
            assert found
            total += int(found[1])
        return total

    def _cpu_seconds(self) -> float:
        for task in Path(f"/proc/{self._process.pid}/task").iterdir():
            if "worker" in (task / "comm").read_text():
                return int((task / "schedstat").read_text().split()[0]) / 1e9
        raise RuntimeError(f"{PROGRAM} has no worker thread")


def _deadline() -> float:
    return time.monotonic() + _SECONDS


def is_here() -> bool:
    """Whether testpmd is installed (Debian: dpdk-dev)."""
    return shutil.which(PROGRAM) is not None


@contextmanager
def running(cores: Sequence[int], devices: Sequence[str], *options: str) -> Iterator[Testpmd]:
    """Run testpmd on these virtual devices: main thread on the first core, worker on the second."""
    # Into a pipe it would else print only what fills a block.
    command = ["stdbuf", "-oL", PROGRAM, "-l", ",".join(map(str, cores)), "--no-pci", "--no-telemetry"]
    command += [f"--file-prefix=meshwright-bench-{os.getpid()}", "--log-level=lib.eal:error"]
    command += [f"--vdev={device}" for device in devices]
    command += [*options, "--", "-i", "--forward-mode=io", "--total-num-mbufs=16384"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        yield Testpmd(process)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
