"""The file of physical functions: what it says, and what it tells of a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from meshwright.core import errors
from meshwright.dataplane.agent import functions_file
from meshwright.dataplane.sriov import Served

CARD = """
physicalFunctions:
  0000:01:00.0:
    serviceDomains: [ward.example, lab.example]
    capabilities: [1G, 10G]
    virtualFunctions: 4
"""


def load(folder: Path, text: str) -> list[Served]:
    path = folder / "functions.yaml"
    path.write_text(text)
    return functions_file.load(path)


def test_every_domain_has_every_capability(tmp_path: Path) -> None:
    """An address stays an address, though to YAML 1.1 it is a number."""
    services = ["ward.example/1G", "ward.example/10G", "lab.example/1G", "lab.example/10G"]
    assert load(tmp_path, CARD) == [Served("0000:01:00.0", 4, services)]
    driver = CARD + "    vfKernelDriver: igbvf\n"
    assert load(tmp_path, driver) == [Served("0000:01:00.0", 4, services, "igbvf")]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "isn't YAML"),
        ("", "the document: "),
        ("physicalFunctions: {eth0: {capabilities: [a], virtualFunctions: 1}}", "eth0.serviceDomains: Field required"),
        (CARD.replace("4", "0"), "0000:01:00.0.virtualFunctions: Input should be greater than 0"),
        (CARD.replace("1G,", "a/b,"), "0000:01:00.0.capabilities: Value error, 'a/b' isn't a name without /"),
        (CARD + "    speed: 10\n", "0000:01:00.0.speed: Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(errors.ConfigError) as refused:
        load(tmp_path, text)
    assert told in str(refused.value)


def test_a_file_that_isnt_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match=r"can't read .*none\.yaml: No such file"):
        functions_file.load(tmp_path / "none.yaml")
