"""The adapter object and its handler: one POST a batch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import pydantic
from pydantic import Field

from meshwright.mixer.adapter.v1 import Entry, Host, TraceSpan
from meshwright.mixer.adapters.http_client import http_client
from meshwright.mixer.adapters.zipkin.spans import is_sampled, span
from meshwright.mixer.config.fields import Model
from meshwright.mixer.config.urls import Url

if TYPE_CHECKING:
    import httpx

_API = "/api/v2/spans"


class Parameters(Model):
    """`url` is the collector's; without a path it gets that of the API. `sampleProbability` counts by trace."""

    url: Url
    sample_probability: Annotated[float, Field(ge=0, le=1, strict=False)] = 1.0
    ca_certificates: Annotated[str | None, Field(description="File of authorities; missing: the system's.")] = None
    timeout_seconds: Annotated[float, Field(gt=0, le=7, strict=False)] = 5.0


class SpanHandler:
    """Posts spans."""

    def __init__(self, client: httpx.AsyncClient, url: str, probability: float) -> None:
        self._client, self._url, self._probability = client, url, probability

    async def report(self, batch: Sequence[Entry]) -> None:
        """Post the batch's spans; anything but a 2xx means that they come again."""
        spans: list[dict[str, Any]] = []
        for entry in batch:
            if isinstance(entry, TraceSpan) and is_sampled(entry.trace_id, self._probability):
                found = span(entry)
                if found is not None:
                    spans.append(found)
        if spans:
            response = await self._client.post(self._url, json=spans)
            response.raise_for_status()


class ZipkinAdapter:
    """The adapter as entry points name it."""

    name = "zipkin"
    templates = frozenset({"tracespan"})
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[SpanHandler]:
        """Open the client."""
        url = parameters.url
        if urlsplit(url).path in ("", "/"):
            url = url.rstrip("/") + _API
        async with http_client(parameters.ca_certificates, parameters.timeout_seconds) as client:
            yield SpanHandler(client, url, parameters.sample_probability)


ADAPTER = ZipkinAdapter()
