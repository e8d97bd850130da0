"""docs/adapters/write-in-python.md, run as it stands: its files are written, its commands executed, in order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "write-in-python.md"
_BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LIST = "/tmp/bouncer.list"


@pytest.mark.timeout(150)
def test_the_tutorial_works(tmp_path: Path) -> None:
    """From nothing to a mixer that asks the adapter.

    `pip install .` is what the page says; the environment makes it install from the folder alone, without an index,
    without dependencies and with the build backend that is there, into a folder of the test's.
    """
    site, programs = tmp_path / "site", tmp_path / "programs"
    programs.mkdir()
    (programs / "pip").write_text(f'#!/bin/sh\nexec {sys.executable} -m pip "$@"\n')  # not every environment has it
    (programs / "pip").chmod(0o755)
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(site),
        "PIP_TARGET": str(site),
        "PIP_UPGRADE": "1",
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",  # the variable holds the opposite of the option: 0 means no isolation
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PYTEST_ADDOPTS": "-q -W error -p no:cacheprovider -p no:asyncio",
    }
    folder, output = tmp_path, ""
    for kind, name, given in _BLOCK.findall(PAGE.read_text()):
        text = given.replace(_LIST, str(tmp_path / "list"))
        if kind == "sh":
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", text],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            output = ran.stdout
            assert ran.returncode == 0, f"{text}\n{output[-3000:]}\n{ran.stderr[-3000:]}"
            for moved in re.findall(r"^cd (\S+)$", text, re.MULTILINE):
                folder = folder / moved
        elif kind == "text":
            missing = [line for line in text.splitlines() if _plain(line) not in map(_plain, _lines(output))]
            assert not missing, output
        else:
            (folder / name).write_text(text)


def _plain(line: str) -> str:
    return " ".join(line.split())


def _lines(output: str) -> list[str]:
    """Whole lines, and what stands behind a table's first word."""
    lines = output.splitlines()
    return lines + [line.partition(": ")[2] for line in lines]
