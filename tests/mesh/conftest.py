"""Fixtures of the whole-platform tests."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import `meshwright_up` beside this file


@pytest.fixture
def data() -> Iterator[Path]:
    """A data directory with a short path (Unix sockets)."""
    folder = Path(tempfile.mkdtemp(prefix="mw-", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
