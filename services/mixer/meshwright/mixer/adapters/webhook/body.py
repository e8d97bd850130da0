"""What is posted: instances as JSON. What comes back: a decision."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from meshwright.mixer.adapter.v1 import CheckResult, Code, DirectResponse, Origin
from meshwright.mixer.adapters.plain import plain
from meshwright.mixer.config.fields import Model

SIGNATURE = "X-Meshwright-Signature"
_MAX_SECRET = 4096


class Response(Model):
    """What the caller of a denied request gets."""

    code: Annotated[int, Field(ge=300, le=599)] = 403
    body: Annotated[str, Field(max_length=64 * 1024)] = ""
    headers: Annotated[dict[str, str], Field(max_length=64)] = Field(default_factory=dict)


class Answer(Model):
    """The service's decision. Without `allowed` there is none, which is a failure."""

    allowed: bool
    code: Annotated[int, Field(ge=1, le=16)] = int(Code.PERMISSION_DENIED)
    message: Annotated[str, Field(max_length=4096)] = ""
    valid_seconds: Annotated[float, Field(ge=0, le=3600, strict=False)] = 1.0
    valid_use_count: Annotated[int, Field(ge=-1, lt=2**31)] = 1000
    response: Response | None = None

    def result(self) -> CheckResult:
        """The decision as mixer takes it."""
        direct = self.response
        return CheckResult(
            code=Code.OK if self.allowed else Code(self.code),
            message="" if self.allowed else self.message,
            valid_duration=timedelta(seconds=self.valid_seconds),
            valid_use_count=self.valid_use_count,
            direct_response=None
            if direct is None or self.allowed
            else DirectResponse(code=direct.code, body=direct.body, headers=direct.headers),
        )


def document(instance: Any) -> dict[str, Any]:
    """An instance of any template with the names of its fields; an origin without the reported attributes."""
    made: dict[str, Any] = {"template": type(instance).__name__.lower()}
    for field in fields(instance):
        made[field.name] = _plain(getattr(instance, field.name))
    return made


def encoded(body: Any, secret_path: str | None) -> tuple[bytes, dict[str, str]]:
    """The body's bytes and the headers that go with it; OSError when the secret can't be read."""
    data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    headers = {"content-type": "application/json"}
    if secret_path is not None:
        with Path(secret_path).open("rb") as file:
            secret = file.read(_MAX_SECRET).strip()
        if not secret:
            raise OSError(f"{secret_path} is empty")
        headers[SIGNATURE] = "sha256=" + hmac.new(secret, data, hashlib.sha256).hexdigest()
    return data, headers


def _plain(value: Any) -> Any:
    if isinstance(value, Origin):
        return {
            "record_id": value.record_id,
            "redelivered": value.redelivered,
            "time": plain(value.time),
            "trace_id": value.trace_id,
            "span_id": value.span_id,
            "reporter": value.reporter,
        }
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    return None if value is None else plain(value)
