"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import `pki` and other helpers beside this file

from pki import Pki


@pytest.fixture
def pki() -> Pki:
    """A certificate authority of this test's own."""
    return Pki()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this project's tests."""
    parser.addoption("--update-golden", action="store_true", help="write the expected files of golden tests anew")
