"""One node for tests: registry, manager and forwarder as processes with identities of their own, in a folder."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from meshwright.core.identity import StaticIdentity, X509Identity
from meshwright.nsm.client import Client
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.endpoint import Endpoint
from meshwright.platform.demo import enclaves
from meshwright.platform.demo.enclaves import Enclave
from pki import Pki

SECONDS = 60.0
MODULES = {
    "nsm-registry": "meshwright.nsm_registry",
    "nsmgr": "meshwright.nsm_registry.manager",
    "forwarder": "meshwright.dataplane",
    "mixer": "meshwright.mixer",
    "collector": "meshwright.platform.collector",
}
PARTS = ("nsm-registry", "nsmgr", "forwarder")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def until(condition, what: str) -> None:
    """Wait for a condition, which may be a coroutine function."""
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                result = condition()
                if asyncio.iscoroutine(result):
                    result = await result
                if result:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"not within {SECONDS} s: {what}") from None


@dataclass
class Node:
    """Blocking calls start and stop it, so that one node can serve several tests."""

    folder: Path
    pki: Pki
    arguments: dict[str, tuple[str, ...]] = field(default_factory=dict)
    plain: bool = False  # without mutual TLS
    without_rights: tuple[str, ...] = ()  # parts that run without any capability
    seconds: float = SECONDS  # until all parts are ready
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    ports: dict[str, int] = field(
        default_factory=lambda: {part: free_port() for part in ("nsm-registry", "nsmgr", "mixer", "collector")}
    )

    def command(self, part: str) -> list[str]:
        run = self.folder
        specific = {
            "nsm-registry": ["--listen", f"127.0.0.1:{self.ports['nsm-registry']}"],
            "nsmgr": [
                "--listen", f"127.0.0.1:{self.ports['nsmgr']}", "--socket", f"unix:{run}/nsmgr.sock",
                "--registry", f"127.0.0.1:{self.ports['nsm-registry']}", "--journal", f"{run}/nsmgr.journal",
            ],
            "forwarder": [
                "--listen", f"unix:{run}/forwarder.sock", "--connect-to", f"unix:{run}/nsmgr.sock",
                "--journal", f"{run}/forwarder.journal",
            ],
            "mixer": ["--listen", f"127.0.0.1:{self.ports['mixer']}"],
            "collector": ["--listen", f"127.0.0.1:{self.ports['collector']}"],
        }[part]  # fmt: skip
        identity = ["--insecure-loopback"] if self.plain else ["--identity", str(run / "pki" / part)]
        common = [*identity, "--admin", f"unix:{run}/{part}-admin.sock"]
        drop = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"] if part in self.without_rights else []
        return [*drop, sys.executable, "-P", "-m", MODULES[part], *common, *specific, *self.arguments.get(part, ())]

    def start(self, *parts: str, wait_for: tuple[str, ...] | None = None) -> None:
        """Start these parts (by default the three) and wait until they are ready."""
        parts = parts or PARTS
        for part in parts:
            folder = self.folder / "pki" / part
            if not folder.exists():
                self.pki.write(self.pki.part(part), folder)
            with open(self.folder / f"{part}.log", "ab") as log:
                self.processes[part] = subprocess.Popen(self.command(part), stderr=log)
        deadline = time.monotonic() + self.seconds
        for part in parts if wait_for is None else wait_for:
            while not self.is_ready(part):
                assert time.monotonic() < deadline, f"{part} isn't ready within {self.seconds} s:\n{self.log(part)}"
                time.sleep(0.05)

    def health(self, part: str) -> dict:
        """What the part says of itself."""
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(f"{self.folder}/{part}-admin.sock")
            admin.sendall(b"GET /readyz HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
            with admin.makefile("rb") as answer:
                return json.loads(answer.read().partition(b"\r\n\r\n")[2])

    def is_ready(self, part: str) -> bool:
        assert self.processes[part].poll() is None, self.log(part)
        try:
            return bool(self.health(part)["ready"])
        except (OSError, ValueError):
            return False

    def log(self, part: str) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.folder / f"{part}.log").read_text()[-4000:]
        return ""

    def kill(self, part: str) -> None:
        """kill -9."""
        self.processes[part].kill()
        self.processes[part].wait()

    def stop(self) -> None:
        """Stop all parts; one that doesn't is a failure."""
        for process in reversed(self.processes.values()):
            process.terminate()
        stuck = []
        for part, process in self.processes.items():
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                stuck.append(f"{part} didn't stop: {self.log(part)}")
        assert not stuck, "\n".join(stuck)

    def open_descriptors(self, part: str) -> int:
        return len(os.listdir(f"/proc/{self.processes[part].pid}/fd"))

    def named(self, name: str) -> str:
        """The name of a part in paths."""
        return f"{name}-{socket.gethostname()}"

    @contextlib.asynccontextmanager
    async def endpoint(
        self, enclave: Enclave, name: str = "demo-vl-1", svid: X509Identity | None = None
    ) -> AsyncIterator[Endpoint]:
        with Descriptor(enclave.open()) as namespace:
            async with Endpoint(
                name,
                services=["demo-vl"],
                prefix="172.16.1.0/24",
                listen=f"unix:{self.folder}/{name}.sock",
                connect_to=f"unix:{self.folder}/nsmgr.sock",
                identity=None if self.plain else StaticIdentity(svid or self.pki.workload("nsm-endpoint")),
                namespace=namespace,
            ) as endpoint:
                yield endpoint

    def client(self, service_account: str = "nsm-client") -> Client:
        return Client(
            service_account,
            connect_to=f"unix:{self.folder}/nsmgr.sock",
            identity=None if self.plain else StaticIdentity(self.pki.workload(service_account)),
        )

    def enclave(self):
        return enclaves.made(self.processes["forwarder"].pid)
