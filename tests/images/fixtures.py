"""Fixtures that want images: a daemon that has them, and the file with all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.images import daemon as daemons
from tests.images.build import build
from tests.images.daemon import Daemon
from tests.images.wheel import wheel


@pytest.fixture(scope="session")
def daemon() -> Iterator[Daemon]:
    """A Docker daemon of these tests' own."""
    if reason := daemons.missing():
        pytest.skip(reason)
    daemon = Daemon.begin()
    yield daemon
    daemon.end()


@pytest.fixture(scope="session")
def images(daemon: Daemon) -> Path:
    """The file with all images, which the daemon has too."""
    return build(daemon, wheel())
