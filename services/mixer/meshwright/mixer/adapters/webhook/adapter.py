"""The adapter object and its handler: a decision is one call, a batch of reports another."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pydantic

from meshwright.mixer.adapter.v1 import CheckResult, Entry, Host
from meshwright.mixer.adapters.http_client import http_client
from meshwright.mixer.adapters.webhook import body
from meshwright.mixer.adapters.webhook.parameters import Parameters

if TYPE_CHECKING:
    import httpx

_MAX_ANSWER = 256 * 1024


class WebhookHandler:
    """Posts to one URL."""

    def __init__(self, client: httpx.AsyncClient, parameters: Parameters) -> None:
        self._client, self._parameters = client, parameters

    async def check(self, instance: Any) -> CheckResult:
        """Ask; any status but 2xx, and an answer that can't be read, is a failure and no denial."""
        answer = await self._post({"check": body.document(instance)})
        return body.Answer.model_validate_json(answer).result()

    async def report(self, batch: Sequence[Entry]) -> None:
        """Post the batch; any status but 2xx means that it comes again."""
        await self._post({"report": [body.document(entry) for entry in batch]})

    async def _post(self, content: dict[str, Any]) -> bytes:
        data, headers = body.encoded(content, self._parameters.secret_path)
        async with self._client.stream("POST", self._parameters.url, content=data, headers=headers) as response:
            response.raise_for_status()
            answer = bytearray()
            async for part in response.aiter_bytes():
                answer += part
                if len(answer) > _MAX_ANSWER:
                    raise ValueError(f"the answer has more than {_MAX_ANSWER} bytes")
        return bytes(answer)


class WebhookAdapter:
    """The adapter as entry points name it."""

    name = "webhook"
    templates = frozenset(
        {
            "checknothing",
            "listentry",
            "authorization",
            "apikey",
            "logentry",
            "metric",
            "tracespan",
            "edge",
            "reportnothing",
        }
    )
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[WebhookHandler]:
        """Open the client."""
        async with http_client(parameters.ca_certificates, parameters.timeout / 1e9) as client:
            yield WebhookHandler(client, parameters)


ADAPTER = WebhookAdapter()
