"""The platform in containers, once for all tests of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.containers.platform import Platform
from tests.images.daemon import Daemon
from tests.images.fixtures import daemon, images

__all__ = ["daemon", "images"]


@pytest.fixture(scope="session")
def platform(
    request: pytest.FixtureRequest, daemon: Daemon, images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Platform]:
    """Every part in a container of its own, and the shop behind a proxy."""
    platform = Platform(daemon, tmp_path_factory.mktemp("containers"))
    try:
        platform.begin()
        yield platform
    finally:
        if request.session.testsfailed or not platform.begun:
            print(f"\nlogs of the containers: {platform.keep_logs()}")
        platform.end()
