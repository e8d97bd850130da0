"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

sys.path.insert(0, str(Path(__file__).parent))  # tests import `pki` and other helpers beside this file
sys.path.append(str(Path(__file__).parents[1]))  # and `tests.box` and others that are also commands: python -m tests.…

import fronts
from meshwright.core.grpc import Front
from pki import Pki

# How long one example takes says more about the machine than about the code. Under tox the examples are the same in
# each run, so that it judges the change and not the draw; pytest by itself draws new ones.
SAME_EXAMPLES = bool(os.environ.get("MESHWRIGHT_SAME_EXAMPLES"))
settings.register_profile(
    "untimed", deadline=None, derandomize=SAME_EXAMPLES, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("untimed")


@pytest.fixture(params=["native", "aio"])
def grpc_front(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Front:
    """The front that a service's gRPC server stands on: a test or module that uses it runs on both."""
    front: Front = request.param
    monkeypatch.setattr(fronts, "CURRENT", front)
    return front


@pytest.fixture(autouse=True)
def _logs_as_before() -> Iterator[None]:
    """Undo a service's `logs.setup`: it is the process's, and the next test may read what is logged elsewhere."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: each.level for name, each in root.manager.loggerDict.items() if isinstance(each, logging.Logger)}
    configuration = structlog.get_config()
    yield
    structlog.configure(**configuration)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


@pytest.fixture
def pki() -> Pki:
    """A certificate authority of this test's own."""
    return Pki()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of this project's tests."""
    parser.addoption("--update-golden", action="store_true", help="write the expected files of golden tests anew")


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder whose path leaves room for socket names (108 bytes in all)."""
    with tempfile.TemporaryDirectory(prefix="mw-") as folder:
        yield Path(folder)
