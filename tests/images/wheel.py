"""The wheel that images are made of: tox's, the one that is named, or one of this checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.box import ROOT

FOLDER = ROOT / "build" / "images" / "wheel"


def wheel() -> Path:
    """Return it; `MESHWRIGHT_WHEEL` names one."""
    if named := os.environ.get("MESHWRIGHT_WHEEL") or os.environ.get("TOX_PACKAGE"):
        return Path(named).resolve()
    for old in FOLDER.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", f"--wheel-dir={FOLDER}", ROOT]
    subprocess.run(command, check=True)
    return next(FOLDER.glob("*.whl"))
