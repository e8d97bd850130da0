"""The demo's own checks, as a test: each must pass, or be skipped with a reason that this machine gives."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from meshwright_up import free_base_port, meshwright

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(240)]

CHECKS = ["1 configuration", "2 identity", "3 policy", "4 telemetry", "5 network service"]


def test_demo_once(data: Path) -> None:
    """`meshwright demo --once --json` ends with status 0 and writes every check with its measurements."""
    report = data / "report.json"
    done = meshwright("demo", "--once", "--json", report, "--data", data, "--base-port", free_base_port(), timeout=220)
    assert report.exists(), done.stdout + done.stderr
    content = json.loads(report.read_text())
    faults = [f"{check['name']}: {check['reason']}" for check in content["checks"] if check["result"] == "failed"]
    assert not faults, "\n".join([*faults, done.stdout, done.stderr])
    assert [check["name"] for check in content["checks"]] == CHECKS
    for check in content["checks"]:
        assert check["measurements"] if check["result"] == "passed" else check["reason"]
    assert done.returncode == 0
