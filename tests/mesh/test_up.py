"""`meshwright up` as a stranger meets it: it starts, says what runs, defends its directory and ports, and stops all."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest
from meshwright_up import free_base_port, meshwright, running

from meshwright.core import sockets

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(150)]

PARTS = {
    "etcd", "nats", "citadel", "collector", "manager", "mixer", "nsm-registry", "citadel-agent", "nsmgr", "forwarder",
}  # fmt: skip


def test_starts_restarts_and_stops(data: Path) -> None:
    """All parts become healthy; a killed one comes back; a second `up` is refused; Ctrl-C leaves no process."""
    with running(data) as up:
        up.wait_healthy()
        state = up.state()
        assert {part["name"] for part in state["parts"]} == PARTS
        assert state["pid"] == up.process.pid
        assert f"after {state['healthy_after_seconds']:.1f} s" in up.output()
        assert data.stat().st_mode & 0o777 == 0o700
        assert (data / "pki" / "admin" / "key.pem").stat().st_mode & 0o777 == 0o600

        shown = meshwright("up", "--status", "--data", data)
        assert shown.returncode == 0, shown.stderr
        assert all(name in shown.stdout for name in PARTS)

        second = meshwright("up", "--data", data, "--base-port", free_base_port())
        assert second.returncode == 69
        assert f"process {up.process.pid}" in second.stderr
        assert up.process.poll() is None

        pid = up.part("manager")["pid"]
        os.kill(pid, signal.SIGKILL)
        up.wait("manager again", lambda: up.part("manager")["pid"] not in (None, pid))
        up.wait("manager healthy", lambda: up.part("manager")["state"] == "healthy")
        assert up.part("manager")["restarts"] == 1

        processes = sockets.descendants(up.process.pid)
        began = time.monotonic()
        assert up.stop(signal.SIGINT) == 0
        assert time.monotonic() - began < 30
        assert not [pid for pid in processes if sockets.start_time(pid)]
    assert meshwright("up", "--status", "--data", data).returncode == 69


def test_starts_again_on_the_same_data(data: Path) -> None:
    """What was configured before a stop is there after the next start."""
    base = free_base_port()
    document = data / "namespace.yaml"
    document.write_text("apiVersion: v1\nkind: Namespace\nmetadata: {name: kept}\n")
    for start in range(2):
        with running(data, base_port=base) as up:
            up.wait_healthy()
            environment = {"MESHWRIGHT_DATA": str(data), "MESHWRIGHT_MANAGER": f"127.0.0.1:{base + 3}"}
            if start == 0:
                applied = meshwright("apply", "-f", document, **environment)
                assert applied.returncode == 0, applied.stderr
            found = meshwright("get", "Namespace", "-o", "json", **environment)
            assert found.returncode == 0, found.stderr
            assert "kept" in found.stdout


def test_taken_port_is_named_before_anything_starts(data: Path) -> None:
    """The error names the port, the part that wanted it and the process that holds it."""
    base = free_base_port()
    with socket.create_server(("127.0.0.1", base + 3)):
        refused = meshwright("up", "--data", data, "--base-port", base)
    assert refused.returncode == 69
    assert f"port {base + 3}, wanted by manager" in refused.stderr
    assert f"process {os.getpid()}" in refused.stderr
    assert not (data / "etcd").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--mixers", "0"], "--mixers"),
        (["--trust-domain", "Not A Domain"], "--trust-domain"),
        (["--base-port", "80"], "--base-port"),
        (["--log-level", "loud"], "--log-level"),
    ],
)
def test_bad_options_are_one_line(data: Path, arguments: list[str], complaint: str) -> None:
    """Bad options end with status 64 and one line that names the option."""
    refused = meshwright("up", "--data", data, *arguments)
    assert refused.returncode == 64
    assert complaint in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_data_directory_with_a_long_path_is_refused(data: Path) -> None:
    """Unix sockets have short paths: said before anything starts."""
    refused = meshwright("up", "--data", data / ("x" * 100), "--base-port", free_base_port())
    assert refused.returncode == 78
    assert "--data" in refused.stderr
