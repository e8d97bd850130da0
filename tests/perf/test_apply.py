"""`meshwright perf apply`, `compare`, `list` and `report` as a person uses them, with no mesh up."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from load_servers import serving

from meshwright.api.smp import smp_pb2 as smp

COMMAND = (sys.executable, "-P", "-m", "meshwright.platform.cli.main", "perf")


def perf(data: Path, *arguments: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments), "--data", str(data)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    return done


def strictly(value: Any) -> list[smp.PerformanceTestResult]:
    """Read a document of results by protobuf's own reader, which refuses unknown fields."""
    json_format.ParseDict(value["test"], smp.PerformanceTestConfig())
    json_format.ParseDict(value["environment"], smp.EnvironmentConfig())
    assert not set(value) - {"test", "results", "mesh_config", "environment"}
    return [json_format.ParseDict(result, smp.PerformanceTestResult()) for result in value["results"]]


def test_a_test_is_carried_out_and_its_result_is_strict_smp(tmp_path: Path) -> None:
    """All clients and URLs run; stdout has the result only, in JSON or YAML; the file in the folder says the same."""
    file = tmp_path / "test.yaml"
    with serving() as server:
        client = {"load_generator": "wrk2", "rps": 100, "connections": 2, "protocol": "PROTOCOL_HTTP"}
        clients = [client | {"endpoint_urls": [server.url, server.url + "b"]}, client | {"endpoint_urls": [server.url]}]
        file.write_text(yaml.safe_dump({"test": {"name": "Two of us", "duration": "300ms", "clients": clients}}))
        done = perf(tmp_path, "apply", "-f", file, "-o", "json")
        value = json.loads(done.stdout)
        results = strictly(value)
        assert [result.labels["url"] for result in results] == [server.url, server.url + "b", server.url]
        # A request may be left unsent on a busy machine, but then that is said.
        assert [int(result.labels["status.200"]) + int(result.labels["unsent"]) for result in results] == [30] * 3
        assert "wrk2 isn't used" in done.stderr
        assert "no" in done.stderr
        assert results[0].latencies_ms.p50 > 0

        again = perf(tmp_path, "apply", "-f", file, "--qps", 50, "-c", 1, "--duration", "200ms", "-o", "yaml")
        fewer = strictly(yaml.safe_load(again.stdout))
        assert {int(result.labels["status.200"]) + int(result.labels["unsent"]) for result in fewer} == {10}

    names = sorted(folder.name for folder in (tmp_path / "performance").iterdir())
    assert len(names) == 2
    stored = yaml.safe_load((tmp_path / "performance" / names[0] / "result.yaml").read_text())
    assert stored["results"][0]["id"] == value["results"][0]["id"]
    details = json.loads((tmp_path / "performance" / names[0] / "details-1.json").read_text())
    requests = int(results[0].labels["requests"])
    assert details["DurationHistogram"]["Count"] == requests
    assert sum(part["Count"] for part in details["DurationHistogram"]["Data"]) == requests

    shown = perf(tmp_path, "list")
    assert all(name in shown.stdout for name in names)
    compared = json.loads(perf(tmp_path, "compare", *names, "-o", "json").stdout)
    rates = compared["pairs"][0]["figures"][0]
    assert rates["what"] == "requests a second"
    assert rates["ratio"] == pytest.approx(fewer[0].actual_qps / results[0].actual_qps, rel=0.01)
    assert any("durations differ" in warning for warning in compared["warnings"])
    assert any("requested rates differ" in warning for warning in compared["warnings"])

    page = Path(perf(tmp_path, "report", *names).stdout.strip()).read_text()
    assert page.startswith("<!doctype html>")
    assert "<svg" in page
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|@import|url\(""", page)
    assert "Two of us" in page


def test_options_alone_make_a_test(tmp_path: Path) -> None:
    """No file: a name and a URL are enough."""
    with serving() as server:
        done = perf(tmp_path, "apply", "quick", "--url", server.url, "--qps", 20, "-t", "200ms", "--mesh", "istio")
    assert "requests a second" in done.stdout
    assert [folder.name.partition("-")[2] for folder in (tmp_path / "performance").iterdir()] == ["quick"]


def test_what_cannot_be_done_is_one_line(tmp_path: Path) -> None:
    """No URL, a wrong file, a server that isn't there, a member of a mesh that isn't up."""
    assert "--url" in perf(tmp_path, "apply", status=78).stderr
    assert "no-such.yaml" in perf(tmp_path, "apply", "-f", tmp_path / "no-such.yaml", status=78).stderr
    gone = perf(tmp_path, "apply", "--url", "http://127.0.0.1:1/", status=69)
    assert "Connection refused" in gone.stderr
    member = perf(tmp_path, "apply", "--url", "http://127.0.0.1:1/", "--internal", status=78)
    assert "clients.internal" in member.stderr
    assert "known are" in perf(tmp_path, "apply", "--url", "http://a/", "--mesh", "isto", status=78).stderr
    assert not (tmp_path / "performance").exists()
