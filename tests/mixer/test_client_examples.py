"""The programs in docs/check-client.md run as they stand there."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

import pytest
from check_servers import Server
from rule_documents import denial, quota

PAGE = Path(__file__).parents[2] / "docs" / "check-client.md"
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize(
    ("program", "output"),
    [
        (
            PROGRAMS[0],
            "/ True 0  {'requestcount': 1}\n" * 2 + "/admin False 7 forbid.meshwright-system:no admin for you {}\n",
        ),
        (PROGRAMS[1], "records_sent=250"),
    ],
)
async def test_an_example_runs(tmp_path: Path, program: str, output: str) -> None:
    (tmp_path / "example.py").write_text(program)
    async with Server([*denial(), *quota(100, "10s")]).served(tmp_path) as target:
        process = await asyncio.create_subprocess_exec(
            sys.executable, tmp_path / "example.py", target, stdout=asyncio.subprocess.PIPE
        )
        stdout, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0
    assert output in stdout.decode()
