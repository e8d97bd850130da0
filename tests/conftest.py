"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests import `pki` and other helpers beside this file

from meshwright.core.grpc import Front
from pki import Pki


@pytest.fixture(params=["native", "aio"])
def grpc_front(request: pytest.FixtureRequest) -> Front:
    """The front that a service's gRPC server stands on: a test that takes it runs on both."""
    front: Front = request.param
    return front


@pytest.fixture
def pki() -> Pki:
    """A certificate authority of this test's own."""
    return Pki()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this project's tests."""
    parser.addoption("--update-golden", action="store_true", help="write the expected files of golden tests anew")
