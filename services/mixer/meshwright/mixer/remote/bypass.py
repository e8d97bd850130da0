"""Adapter bypass: hands instances of any template that mixer has to a gRPC server, with no adapter document needed."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Any

from pydantic import Field, field_validator

from meshwright.mixer.config.fields import Model
from meshwright.mixer.config.models import Connection
from meshwright.mixer.remote.handlers import packed

NAME = "bypass"


class Bypass(Model):
    """`params` is what the server gets as its configuration: a message of `@type`, its bytes in base64 as `value`."""

    backend_address: Annotated[str, Field(min_length=1, max_length=512)]
    params: dict[str, Any] = Field(default_factory=dict)
    session_based: bool = False

    @field_validator("params")
    @classmethod
    def _is_any(cls, given: dict[str, Any]) -> dict[str, Any]:
        unknown = sorted(given.keys() - {"@type", "typeUrl", "value"})
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r}: write the message as @type and value (base64)")
        if given and not isinstance(given.get("@type", given.get("typeUrl")), str):
            raise ValueError("@type: missing: name the message, such as type.googleapis.com/acme.Params")
        _value(given)
        return given


def connection(parameters: Bypass) -> tuple[Connection, bytes]:
    """Where the server is, and its configuration as an encoded Any."""
    given = parameters.params
    config = packed(str(given.get("@type", given.get("typeUrl"))), _value(given)) if given else b""
    return Connection(address=parameters.backend_address), config


def _value(given: dict[str, Any]) -> bytes:
    try:
        return base64.b64decode(str(given.get("value", "")), validate=True)
    except binascii.Error as error:
        raise ValueError(f"value: not base64: {error}") from error
