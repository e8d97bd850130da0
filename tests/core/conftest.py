"""Servers that the tests of core share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `servers`

import servers


@pytest.fixture(scope="session")
def infrastructure() -> servers.InfrastructurePki:
    """The CA of etcd and NATS."""
    return servers.InfrastructurePki()


@pytest.fixture(scope="session")
def client_tls(infrastructure: servers.InfrastructurePki, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A client's folder of certificates."""
    return infrastructure.write(tmp_path_factory.mktemp("client"), "root")


@pytest.fixture(scope="session")
def shared_etcd(
    infrastructure: servers.InfrastructurePki, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[servers.Process]:
    """An etcd for tests that use keys of their own and don't disturb it."""
    process = servers.etcd(tmp_path_factory.mktemp("etcd"), infrastructure)
    process.start()
    yield process
    process.kill()


@pytest.fixture
def own_etcd(infrastructure: servers.InfrastructurePki, tmp_path: Path) -> Iterator[servers.Process]:
    """An etcd that a test may kill."""
    process = servers.etcd(tmp_path / "etcd", infrastructure)
    process.start()
    yield process
    process.kill()
