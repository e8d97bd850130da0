"""The option that rewrites golden files, and what these tests share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parent.parent / "core"))  # for `servers`

import servers


@pytest.fixture
def etcd(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """An etcd of this test's own, as settings of the managers that share it."""
    infrastructure = servers.InfrastructurePki()
    process = servers.etcd(tmp_path / "etcd", infrastructure)
    process.start()
    yield {"etcd": process.address, "etcd_tls": infrastructure.write(tmp_path / "etcd-client", "root")}
    process.kill()
