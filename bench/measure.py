"""Processes under measurement: pinned to a core, their CPU time read from the kernel."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
FLOORS = ROOT / "bench" / "floors"
SERVER_CORE, CLIENT_CORE = 0, (os.cpu_count() or 1) - 1
_TICK_MICROSECONDS = 1e6 / os.sysconf("SC_CLK_TCK")


def floors() -> Path:
    """Build floors and clients in release mode; return the folder of their programs."""
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "dataplane" / "target"))
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "--manifest-path", str(FLOORS / "Cargo.toml")],
        check=True,
        env={**os.environ, "CARGO_TARGET_DIR": str(target)},
    )
    return target / "release"


def go_floors() -> Path | None:
    """Build the peers that are written in Go; return the folder of their programs, None where there is no Go."""
    if shutil.which("go") is None:
        return None
    folder = ROOT / "build" / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["go", "build", "-trimpath", "-o", f"{folder}/echo_go", "."], check=True, cwd=FLOORS / "go")
    return folder


def cpu_us(pid: int) -> float:
    """Return the CPU time that a process has used, all its threads, in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_MICROSECONDS


@contextmanager
def process(
    *command: str | Path, core: int, stdin: bool = False, quiet: bool = False, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a program on one core for the length of the context.

    It begins there, as threads that it has at once don't follow it to another. `quiet`: its log goes nowhere.
    """
    started = subprocess.Popen(
        ["taskset", "-c", str(core), *(str(part) for part in command)],
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield started
    finally:
        started.terminate()
        try:
            started.wait(10)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def first_line(started: subprocess.Popen[str]) -> str:
    """Return the first line that a program prints: its address, or that it is ready."""
    assert started.stdout
    line = started.stdout.readline().strip()
    if not line:
        raise RuntimeError(f"{started.args!r} ended with status {started.wait(10)} before it was ready")
    return line


def load(programs: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """Run the load client on its core and return what it printed."""
    command = ["taskset", "-c", str(CLIENT_CORE), str(programs / "grpc_load"), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    printed: dict[str, Any] = json.loads(done.stdout)
    if printed["failed"]:
        raise RuntimeError(f"{printed['failed']} of {printed['calls']} calls failed")
    return printed
