"""URLs in configuration."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("not a URL: write http://host:port/path or https://…")
    if parts.username or parts.password:
        raise ValueError("a URL in configuration holds no secret: leave user and password out")
    return value


Url = Annotated[str, Field(max_length=2000), AfterValidator(_url)]
"""http or https, without credentials."""
