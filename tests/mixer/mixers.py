"""Mixer as a process of its own, with identities of a test's authority; started, killed and asked by tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import yaml

from meshwright.api.istio.mixer.v1 import mixer_pb2_grpc
from meshwright.core.config import Object
from meshwright.core.grpc import Channel
from meshwright.core.identity import StaticIdentity, part_id
from meshwright.mixer import check
from pki import Pki

MIXER = part_id("mesh.local", "mixer")


class Mixer:
    """One replica. `arguments` come after those that every test needs; without an authority it has no identity."""

    def __init__(self, folder: Path, pki: Pki | None, *arguments: str, config: Path | None = None) -> None:
        self.folder, self.pki = folder, pki
        folder.mkdir(parents=True, exist_ok=True)
        self.config = config
        self.address = "127.0.0.1:0"
        self.admin = folder / "admin.sock"
        self.log = folder / "log"
        self._identity = ("--identity", str(pki.write(pki.part("mixer"), folder / "identity"))) if pki else ()
        self._arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None

    def write(self, name: str, documents: Sequence[Object]) -> None:
        """Write a file of the configuration folder."""
        assert self.config is not None
        self.config.mkdir(exist_ok=True)
        (self.config / name).write_text(yaml.safe_dump_all([each.document() for each in documents]))

    async def start(self) -> None:
        """Start, and return when it serves."""
        self.launch()
        await self.until(lambda health: health["ready"], 45)

    def launch(self) -> None:
        """Start without waiting. The process belongs to no event loop, so that tests of a module may share it."""
        config = ("--config", str(self.config)) if self.config else ()
        with self.log.open("ab") as log:
            command = [
                sys.executable, "-m", "meshwright.mixer", "--listen", self.address, *config,
                *self._identity, "--admin", f"unix:{self.admin}", *self._arguments,
            ]  # fmt: skip
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    async def until(self, condition: Callable[[Any], bool], seconds: float = 20) -> Any:
        """Wait until the health that the admin listener tells fulfils the condition; return it."""
        health: Any = None
        try:
            async with asyncio.timeout(seconds):
                while True:
                    with contextlib.suppress(httpx.TransportError):
                        health = json.loads(await self.get("/healthz"))
                        if condition(health):
                            self._note_address()
                            return health
                    assert self.process is not None
                    assert self.process.poll() is None, self.log.read_text()[-2000:]
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{health}\n{self.log.read_text()[-2000:]}") from None

    async def get(self, path: str) -> str:
        """Ask the admin listener."""
        transport = httpx.AsyncHTTPTransport(uds=str(self.admin))
        async with httpx.AsyncClient(transport=transport) as client:
            return (await client.get(f"http://mixer{path}")).text

    async def until_metric(self, name: str, condition: Callable[[float], bool], seconds: float = 20) -> None:
        """Wait until a metric without labels fulfils the condition."""
        async with asyncio.timeout(seconds):
            while not condition(await self.metric(name)):
                await asyncio.sleep(0.05)

    async def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        for line in (await self.get("/metrics")).splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        raise AssertionError(f"no metric {name}")

    def kill(self) -> None:
        """As kill -9 does."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """As a service manager does; return the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(30)

    def channel(self, identity: Any) -> Channel:
        """A channel of this identity to the replica."""
        return Channel(self.address, StaticIdentity(identity), peer=MIXER)

    async def check(self, identity: Any, attributes: dict[str, Any], **quotas: int) -> dict[str, Any]:
        """Ask an istio.mixer.v1 Check, quotas by amount."""
        async with self.channel(identity) as channel:
            response = await check.check(channel, check.request(attributes, quotas))
        return check.describe(response)

    async def report(self, identity: Any, *records: dict[str, Any], timeout: float = 5) -> None:
        """Send one istio.mixer.v1 Report with these records; returns when mixer says that they are stored."""
        from meshwright.api.istio.mixer.v1 import mixer_pb2

        request = mixer_pb2.ReportRequest(
            repeated_attributes_semantics=mixer_pb2.ReportRequest.INDEPENDENT_ENCODING,
            attributes=[check.request(each).attributes for each in records],
        )
        async with self.channel(identity) as channel:
            await mixer_pb2_grpc.MixerStub(channel).Report(request, timeout=timeout)

    def _note_address(self) -> None:
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                event = json.loads(line)
                if event.get("event") == "mixer_serving":
                    self.address = event["address"]
