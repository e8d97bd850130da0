"""Clients in Go and Java, made from what the wheel ships, ask Check and Report as a sidecar would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toolchains

pytestmark = pytest.mark.timeout(900)  # the first test of a machine builds


def asserted(printed: str) -> None:
    """Each client makes the same calls and prints one line of JSON for each."""
    lines: list[Any] = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    denied, granted, rest, again, wrong, reported = lines
    assert denied["code"] == 7
    assert "no admin for you" in denied["message"]
    # By global words, as they came: the client says that it knows 222.
    assert {"source.principal", "request.url_path"} <= set(denied["exact"])
    assert (granted["code"], granted["granted"]) == (0, 7)
    assert granted["seconds"] == 60
    assert rest["granted"] == 3
    assert again["granted"] == 3
    assert wrong["error"] == "INTERNAL"
    assert "mixer knows 222 words, caller knows 223" in wrong["message"]
    assert reported["reported"] == 2


async def test_go(go_client: Path, address: str) -> None:
    asserted(await toolchains.run(go_client, address))


async def test_java(java_client: list[str], address: str) -> None:
    asserted(await toolchains.run(*java_client, *address.rsplit(":", 1)))
