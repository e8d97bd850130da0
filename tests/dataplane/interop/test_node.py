"""grpc's interoperation cases with Node's @grpc/grpc-js against NativeServer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import toolchains
from interop_cases import CASES
from interop_messages import descriptor_set

pytestmark = pytest.mark.timeout(900)  # the first test of a machine downloads


async def test_client(node_folder: Path, server: str, ends: Any, tmp_path: Path) -> None:
    (tmp_path / "descriptors").write_bytes(descriptor_set())
    arguments = [ends.client_folder, ends.name] if ends.client_folder else []
    printed = await toolchains.run("node", "client.js", tmp_path / "descriptors", server, *arguments, cwd=node_folder)
    passed = {line.removeprefix("passed ") for line in printed.splitlines()}
    assert passed == CASES.keys() - {"client_deflated_unary"}
