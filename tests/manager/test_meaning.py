"""Dialects: each `meaning/NAME.in.yaml` means exactly what `NAME.out.yaml` says, in the inner model's words.

The name says the dialect (`classic-…`, `istio-…`); namespace ``default``, root namespace ``mesh-root``. Fields that
have their defaults are left out. `pytest tests/manager --update-golden` writes the files anew; read the difference.
"""

from __future__ import annotations

import dataclasses
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import yaml
from meshes import parsed

from meshwright.core.config import Key
from meshwright.manager.classic.translate import translate as classic
from meshwright.manager.istio.translate import translate as istio
from meshwright.manager.model.meaning import Context
from meshwright.manager.smi.translate import translate as smi

FOLDER = Path(__file__).parent / "meaning"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))
DIALECTS = {"classic": classic, "istio": istio, "smi": smi}
CONTEXT = Context("default", "mesh-root", "mesh.local")


@pytest.mark.parametrize("case", CASES)
def test_meaning(case: str, pytestconfig: pytest.Config) -> None:
    """Objects always mean the same."""
    members = parsed((FOLDER / f"{case}.in.yaml").read_text()).values()
    meaning = DIALECTS[case.split("-", 1)[0]](members, CONTEXT)
    shown = yaml.safe_dump(plain(meaning), sort_keys=False, width=120)
    expected = FOLDER / f"{case}.out.yaml"
    if pytestconfig.getoption("--update-golden"):
        expected.write_text(shown)
    assert shown == expected.read_text()


def plain(value: Any) -> Any:
    """Return a value of the model as YAML shows it."""
    match value:
        case Key():
            return f"{value.kind}/{value.name}"
        case Enum():
            return value.name
        case frozenset():
            return sorted(plain(each) for each in value)
        case tuple():
            return [plain(each) for each in value]
    if not dataclasses.is_dataclass(value):
        return value
    fields = dataclasses.fields(value)
    return {
        field.name: plain(found)
        for field in fields
        if (found := getattr(value, field.name)) != field.default or field.default is dataclasses.MISSING
    }
