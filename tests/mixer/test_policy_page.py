"""docs/policy.md: its files are written and its commands are run, in order, and must print what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from meshwright.mixer.authoring.cli import app
from meshwright.mixer.authoring.model import Policy, Selection, Target

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"
_BLOCK = re.compile(r"^```(yaml|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = 0
    for kind, body in _BLOCK.findall(PAGE.read_text()):
        if kind == "yaml":
            name = re.match(r"# (\S+)\n", body)
            assert name, body
            (tmp_path / name[1]).write_text(body)
            continue
        command, *printed = body.splitlines()
        words = shlex.split(command.removeprefix("$ "))
        assert words[:2] == ["meshwright", "policy"]
        result = CliRunner().invoke(app, words[2:])
        assert result.exit_code == 0, result.output
        for line in printed:
            assert line in result.stdout
        commands += 1
    assert commands == 2
    compiled = CliRunner().invoke(app, ["compile", "more.yaml"])
    assert (compiled.exit_code, compiled.stderr) == (0, "")


@pytest.mark.parametrize("model", [Policy, Selection, Target])
def test_the_page_knows_every_field(model: type[Policy | Selection | Target]) -> None:
    text = PAGE.read_text()
    for name, field in model.model_fields.items():
        written = field.alias or name
        assert f"`{written}`" in text or written == "language", written
