"""A whole platform in a temporary directory, on ports of its own, driven as a person drives it."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from meshwright.platform.up.settings import PORTS

START_SECONDS = 60.0
COMMAND = (sys.executable, "-P", "-m", "meshwright.platform.cli.main")


def free_base_port() -> int:
    """Return the first of a run of ports that nobody listens on."""
    for _ in range(100):
        base = random.randrange(20000, 32000, PORTS)  # below the kernel's range for outgoing connections
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(base, base + PORTS):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return base
    raise RuntimeError("no run of free ports found")


def meshwright(*arguments: object, timeout: float = 60.0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run one command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


class Up:
    """A running `meshwright up`."""

    def __init__(self, data: Path, process: subprocess.Popen[str], base_port: int, output: Path) -> None:
        self.data, self.process, self.base_port, self._output = data, process, base_port, output

    def state(self) -> Mapping[str, Any]:
        """What the state file says; empty while there is none."""
        try:
            content: Mapping[str, Any] = json.loads((self.data / "run" / "state.json").read_text())
        except (FileNotFoundError, NotADirectoryError):
            return {}
        return content

    def part(self, name: str) -> Mapping[str, Any]:
        """One part as the state file has it."""
        return next(part for part in self.state()["parts"] if part["name"] == name)

    def output(self) -> str:
        """What `up` printed so far."""
        return self._output.read_text()

    def wait(self, what: str, condition: Any, seconds: float = START_SECONDS) -> None:
        """Wait for a condition; fail with everything that is known when it doesn't come."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                pytest.fail(
                    f"{what}: not within {seconds:.0f} s\n{self.output()}\n{json.dumps(self.state(), indent=1)}"
                )
            time.sleep(0.05)

    def wait_healthy(self) -> None:
        """Wait until `up` says that the start is done and every part is healthy."""
        self.wait("healthy", lambda: self.state().get("healthy") and self.state().get("healthy_after_seconds"))

    def stop(self, number: int = signal.SIGINT, seconds: float = 40.0) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextlib.contextmanager
def running(data: Path, *arguments: object, base_port: int | None = None, **environment: str) -> Iterator[Up]:
    """Run `meshwright up` for the length of the context; it is killed if it doesn't end by itself."""
    base = base_port or free_base_port()
    output = data.with_name(data.name + ".out")
    with output.open("w") as file:
        process = subprocess.Popen(
            [*COMMAND, "up", "--data", str(data), "--base-port", str(base), *map(str, arguments)],
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    up = Up(data, process, base, output)
    try:
        yield up
    finally:
        if process.poll() is None:
            try:
                up.stop(signal.SIGTERM)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        output.unlink(missing_ok=True)
