"""What these tests share with those of the manager and of citadel, and the reason for which they may not run."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.kubernetes import build

_TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(_TESTS / "manager"), str(_TESTS / "citadel")]

import api_server  # noqa: E402 - found by the line above


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[api_server.ApiServer]:
    """A real API server for a module; each test has a namespace of its own in it."""
    if not api_server.there():
        if shutil.which("go") is None:
            pytest.skip("Kubernetes is built from Go modules, and go isn't on this machine")
        await asyncio.to_thread(build.build)
    async with api_server.running(tmp_path_factory.mktemp("api")) as running:
        yield running
