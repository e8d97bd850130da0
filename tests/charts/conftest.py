"""The charts as Helm renders them, without a cluster."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHARTS = ROOT / "charts"
NAMESPACE = "meshwright-system"
VERSION = "1.34.0"  # of the Kubernetes that is rendered for

Documents = list[dict[str, Any]]
Render = Callable[..., Documents]


@pytest.fixture(scope="session")
def helm() -> str:
    """Helm's program, as `python -m tests.kubernetes.build` makes it or as the machine has it."""
    built = ROOT / "build" / "kubernetes" / "bin" / "helm"
    found = str(built) if built.exists() else shutil.which("helm")
    if found is None:
        pytest.skip("helm isn't on this machine: python -m tests.kubernetes.build makes it")
    return found


@pytest.fixture(scope="session")
def run_helm(helm: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Helm on one of the charts and return what it said."""

    def run(verb: str, chart: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        name = () if verb == "lint" else ("meshwright",)
        command = [helm, verb, *name, str(CHARTS / chart), "--namespace", NAMESPACE, "--kube-version", VERSION]
        return subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=30, check=False)

    return run


@pytest.fixture(scope="session")
def render(run_helm: Callable[..., subprocess.CompletedProcess[str]]) -> Render:
    """Render a chart with `--set` arguments; every rendering is made once, and nobody changes it."""
    made: dict[tuple[str, ...], Documents] = {}

    def rendered(chart: str, *sets: str) -> Documents:
        if (chart, *sets) not in made:
            done = run_helm("template", chart, *(word for each in sets for word in ("--set", each)))
            assert done.returncode == 0, done.stderr
            made[chart, *sets] = [document for document in yaml.safe_load_all(done.stdout) if document]
        return made[chart, *sets]

    return rendered
