"""Adapter webhook against an HTTP server: decisions, reports, signatures, and what counts as a failure."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from http_backend import HttpBackend
from pydantic import ValidationError

from meshwright.mixer.adapter.v1 import Action, Authorization, Code, DirectResponse, ListEntry, Subject
from meshwright.mixer.adapters.webhook import ADAPTER
from meshwright.mixer.plugintest import log_entry, running

ENTRY = ListEntry(instance="caller.default", value="ann")


@pytest.fixture
async def backend() -> AsyncIterator[HttpBackend]:
    async with HttpBackend() as running_backend:
        running_backend.status = 200
        yield running_backend


async def test_a_service_allows_and_denies(backend: HttpBackend) -> None:
    async with running(ADAPTER, {"url": f"{backend.url}/decide"}) as handler:
        backend.body = b'{"allowed": true}'
        assert (await handler.check(ENTRY)).code == Code.OK
        backend.body = json.dumps(
            {
                "allowed": False,
                "code": 16,
                "message": "who?",
                "valid_seconds": 2,
                "validUseCount": 5,
                "response": {"code": 401, "body": "log in", "headers": {"www-authenticate": "Basic"}},
            }
        ).encode()
        denied = await handler.check(
            Authorization(instance="a.default", subject=Subject(user="ann"), action=Action(path="/"))
        )
    assert (denied.code, denied.message, denied.valid_use_count) == (Code.UNAUTHENTICATED, "who?", 5)
    assert denied.valid_duration == timedelta(seconds=2)
    assert denied.direct_response == DirectResponse(code=401, body="log in", headers={"www-authenticate": "Basic"})
    (path, _, first), (_, _, second) = backend.requests
    assert path == "/decide"
    assert json.loads(first) == {"check": {"template": "listentry", "instance": "caller.default", "value": "ann"}}
    assert json.loads(second)["check"]["subject"] == {"user": "ann", "groups": "", "properties": {}}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (500, b'{"allowed": true}'),
        (302, b'{"allowed": true}'),
        (200, b""),
        (200, b"{}"),
        (200, b'{"allowed": "yes"}'),
        (200, b'{"allowed": true, "extra": 1}'),
        (200, b"[" * 100_000),
        (200, b" " * 300_000),
    ],
)
async def test_all_else_is_a_failure(backend: HttpBackend, status: int, body: bytes) -> None:
    backend.status, backend.body = status, body
    async with running(ADAPTER, {"url": backend.url}) as handler:
        with pytest.raises((httpx.HTTPStatusError, ValidationError, ValueError)):
            await handler.check(ENTRY)


async def test_bodies_are_signed_with_the_file_as_it_is_now(backend: HttpBackend, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    async with running(ADAPTER, {"url": backend.url, "secretPath": str(secret)}) as handler:
        for key in (b"one", b"two"):
            secret.write_bytes(key + b"\n")
            await handler.report([log_entry({"user": "ann"})])
            _, headers, body = backend.requests[-1]
            assert headers["x-meshwright-signature"] == "sha256=" + hmac.new(key, body, hashlib.sha256).hexdigest()
        secret.unlink()
        with pytest.raises(OSError):
            await handler.report([log_entry({})])


async def test_reports_tell_where_they_come_from(backend: HttpBackend) -> None:
    async with running(ADAPTER, {"url": backend.url}) as handler:
        await handler.report([log_entry({"took": timedelta(seconds=0.5)}, record_id="ab", redelivered=True)])
    [entry] = json.loads(backend.requests[0][2])["report"]
    assert (entry["template"], entry["variables"]) == ("logentry", {"took": "0.5s"})
    assert (entry["origin"]["record_id"], entry["origin"]["redelivered"]) == ("ab", True)
    assert "attributes" not in entry["origin"]


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"url": "ftp://x"},
        {"url": "http://user:pass@x"},
        {"url": "http://x", "timeout": "10s"},
        {"url": "http://x", "secretPath": "relative"},
    ],
)
def test_bad_parameters_are_refused(parameters: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.parameters.model_validate(parameters)
