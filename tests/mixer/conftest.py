"""Fixtures of mixer's tests."""

from __future__ import annotations

import sys
from pathlib import Path

# The helpers beside this file, and `servers`.
for folder in (
    Path(__file__).parent,
    Path(__file__).parent.parent / "core",
):
    sys.path.insert(0, str(folder))
