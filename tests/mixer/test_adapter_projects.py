"""`meshwright adapter new` and `list`: projects that work as they are written, and what is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from meshwright.core.errors import ConfigError
from meshwright.mixer import scaffold
from meshwright.mixer.adapter_cli import app
from meshwright.mixer.templates import TEMPLATES


def test_every_template_has_a_project() -> None:
    """But otlp, which hands on whole messages to one exporter."""
    assert {*scaffold.SAMPLES} == {*TEMPLATES} - {"otlp"}


def test_the_tests_of_every_new_project_pass(tmp_path: Path) -> None:
    """With warnings as errors, in a process of their own; each is compiled, asked and reported to by a real engine."""
    folders = []
    for template in scaffold.SAMPLES:
        name = f"my-{template}"
        scaffold.create(tmp_path / name, name, template)
        folders.append(tmp_path / name)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-W",
        "error",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        f"--rootdir={tmp_path}",
    ]
    ran = subprocess.run(
        [*command, *(str(folder / "tests") for folder in folders)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]


def test_a_new_project_reads_as_it_should(tmp_path: Path) -> None:
    """Its documents are YAML, and nothing was left to be filled in."""
    for path in scaffold.create(tmp_path / "x", "rate-limit", "quota"):
        assert "{{" not in path.read_text()
    documents = [*yaml.safe_load_all((tmp_path / "x" / "deploy" / "rate-limit.yaml").read_text())]
    assert {each["kind"] for each in documents} == {"handler", "instance", "rule"}
    assert 'rate-limit = "rate_limit:ADAPTER"' in (tmp_path / "x" / "pyproject.toml").read_text()


@pytest.mark.parametrize(
    ("name", "template", "reason"),
    [
        ("Big", "quota", "can't be an adapter's name"),
        ("../up", "quota", "can't be an adapter's name"),
        ("fine", "nonsense", "there is no template 'nonsense'"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path: Path, name: str, template: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        scaffold.create(tmp_path / "x", name, template)


def test_a_project_never_writes_over_files(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(ConfigError, match="isn't empty"):
        scaffold.create(tmp_path, "fine", "quota")


def test_the_command_writes_and_says_what_comes_next(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["new", "fine", "--template", "quota", "--output", str(tmp_path / "fine")])
    assert result.exit_code == 0
    assert "pip install --editable ." in result.output
    refused = CliRunner().invoke(app, ["new", "fine", "--template", "quota", "--output", str(tmp_path / "fine")])
    assert refused.exit_code == 64


def test_what_is_installed_is_listed() -> None:
    listed = json.loads(CliRunner().invoke(app, ["list", "--output", "json"]).output)["adapters"]
    rows = {each["name"]: each for each in listed}
    assert rows["memquota"] == {"name": "memquota", "templates": ["quota"], "from": "engine"}
    assert rows["opentelemetry"]["from"].startswith("meshwright")
