"""`meshwright policy` and mixer's introspection are commands of the platform's command line."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from meshwright.platform.cli.main import app

POLICY = """\
apiVersion: config.meshwright.io/v1alpha1
kind: Policy
metadata: {name: shop, namespace: demo}
spec: {allow: []}
"""


def test_help_names_the_group_and_its_commands() -> None:
    assert "Compile and test policies." in CliRunner().invoke(app, ["--help"]).stdout
    group = CliRunner().invoke(app, ["policy", "--help"]).stdout
    assert "compile" in group
    assert "test" in group
    mixer = CliRunner().invoke(app, ["mixer", "--help"]).stdout
    assert all(command in mixer for command in ("check", "explain", "attributes", "decisions"))


def test_a_policy_is_compiled_without_a_platform(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(POLICY)
    result = CliRunner().invoke(app, ["policy", "compile", str(tmp_path / "shop.yaml")])
    assert result.exit_code == 0
    assert "name: shop/otherwise" in result.stdout


@pytest.mark.parametrize("command", ["explain", "attributes", "decisions"])
def test_a_mixer_that_is_away_is_named(command: str) -> None:
    arguments = ["mixer", command, "--address", "127.0.0.1:1", "--insecure-loopback", "--timeout", "5"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 69
    assert f"meshwright mixer {command}: UNAVAILABLE" in result.stderr
    assert "is mixer running at 127.0.0.1:1?" in result.stderr
