"""docs/adapters/write-out-of-process.md, run as it stands: its files are written, its commands executed, in order."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "adapters" / "write-out-of-process.md"
_BLOCK = re.compile(r"^```(\w+) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ADDRESS = "127.0.0.1:9070"


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.timeout(150)
def test_the_tutorial_works(tmp_path: Path) -> None:
    """From nothing to a mixer that asks the server; only the port is another one."""
    address, output = free_address(), ""
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
    for kind, name, given in _BLOCK.findall(PAGE.read_text()):
        text = given.replace(_ADDRESS, address)
        if kind == "sh":
            ran = subprocess.run(
                ["bash", "-euo", "pipefail", "-m", "-c", text],
                cwd=tmp_path,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
            output = ran.stdout
            logs = "".join(path.read_text()[-1500:] for path in tmp_path.glob("*log"))
            assert ran.returncode == 0, f"{text}\n{output[-3000:]}\n{ran.stderr[-3000:]}\n{logs}"
        elif kind == "text":
            missing = [line for line in text.splitlines() if line not in output.splitlines()]
            assert not missing, output
        else:
            (tmp_path / name).write_text(text)
