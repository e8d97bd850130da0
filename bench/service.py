"""One of our services as a process under measurement: alone, with certificates from files."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench import measure

READY_SECONDS = 60


def free_port() -> int:
    """Return a port of the loopback that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def service(part: str, *arguments: str, identity: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run `meshwright-<part>` on the server's core until the context ends; yield it ready, with its address."""
    address = f"127.0.0.1:{free_port()}"
    admin = folder / f"{part}.sock"
    command = Path(sys.executable).with_name(f"meshwright-{part}")
    common = ["--listen", address, "--identity", str(identity), "--admin", f"unix:{admin}", "--log-level", "warning"]
    with measure.process(command, *common, *arguments, core=measure.SERVER_CORE) as process:
        wait_ready(process, admin)
        yield process, address


def wait_ready(process: subprocess.Popen[str], admin: Path) -> None:
    """Return when the service says that it serves."""
    deadline = time.monotonic() + READY_SECONDS
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(admin))) as client:
        while True:
            try:
                if client.get("http://service/readyz").status_code == 200:
                    return
            except httpx.TransportError:
                if process.poll() is not None:
                    raise RuntimeError(f"the service ended with status {process.returncode}") from None
            if time.monotonic() > deadline:
                raise TimeoutError(f"not ready after {READY_SECONDS} s")
            time.sleep(0.05)
