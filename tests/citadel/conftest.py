"""Fixtures of citadel's tests."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder whose path leaves room for socket names (108 bytes in all)."""
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        yield Path(folder)
