"""Whether the network beyond the card answers a memif client; the client is a process of its own (user_space.py)."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = [sys.executable, "-P", str(Path(__file__).with_name("user_space.py"))]
SECONDS = 120

wants_dpdk = pytest.mark.skipif(
    importlib.util.find_spec("meshwright.dpdk") is None,
    reason="meshwright-dpdk isn't installed (pip install ./dataplane/dpdk)",
)


def replies(socket: str, mac: str, address: str, far: str) -> int:
    """How many of five pings through the memif are answered by the network beyond the card."""
    done = subprocess.run(
        [*PROGRAM, "reach", socket, mac, address, far], capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return int(json.loads(done.stdout.splitlines()[-1])["replies"])
