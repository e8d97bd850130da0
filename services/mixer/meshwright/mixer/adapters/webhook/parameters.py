"""Parameters of a handler of adapter `webhook`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from meshwright.mixer.config.fields import Model, Nanoseconds
from meshwright.mixer.config.urls import Url


def _absolute(value: str) -> str:
    if not Path(value).is_absolute():
        raise ValueError("write the whole path, from /")
    return value


class Parameters(Model):
    """`url` is posted to. With `secretPath` each body is signed, so that the service can tell that mixer sent it."""

    url: Url
    timeout: Annotated[Nanoseconds, Field(gt=0, le=7_000_000_000, description="Deadline of one call.")] = 1_000_000_000
    ca_certificates: Annotated[str | None, Field(description="File of authorities; missing: the system's.")] = None
    secret_path: Annotated[
        str | None,
        AfterValidator(_absolute),
        Field(description="File with the key of HMAC-SHA256; read for each call."),
    ] = None
