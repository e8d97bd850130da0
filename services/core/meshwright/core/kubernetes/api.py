"""Requests to the API server: a deadline for each, answers bounded, refusals as our own errors."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncGenerator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx

from meshwright.core import errors
from meshwright.core.http_transport import HttpTransport
from meshwright.core.kubernetes.cluster import Server

DEADLINE_SECONDS = 10.0
MAX_ANSWER = 16 * 1024 * 1024  # parsed it takes several times that; lists that hold more come in smaller pages
MAX_EVENT = 16 * 1024 * 1024  # one object of a watch: the server takes 3 MiB of one, and adds to it who changed what

_CONNECTIONS = 512  # each watch holds one; far above what there are kinds, so that no request waits for a watch to end

# A server that died with its machine is noticed in half a minute, however long there was nothing to say.
_KEEP_ALIVE = [
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
]

_JSON = "application/json"
_MERGE = "application/merge-patch+json"


class TooLarge(errors.Exhausted):
    """An answer has more bytes than are read: ask for less of it."""


class Api:
    """A connection pool to one API server; a context manager."""

    def __init__(self, cluster: Server) -> None:
        self._cluster = cluster
        transport = HttpTransport(
            verify=cluster.tls(),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=4),
            trust_env=False,  # the API server isn't behind a proxy that somebody set for the Internet
            socket_options=_KEEP_ALIVE,
        )
        self._client = httpx.AsyncClient(
            base_url=cluster.url,
            transport=transport,
            timeout=DEADLINE_SECONDS,
            headers={"accept": _JSON, "user-agent": "meshwright"},
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the object or list at `path`; NotFound when there is none."""
        return await self._ask("GET", path, None, query)

    async def create(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Make an object in the collection at `path`; Conflict when there is one of this name."""
        return await self._ask("POST", path, body)

    async def replace(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Replace the object at `path`; with a resourceVersion in `body`, Conflict when it was changed since."""
        return await self._ask("PUT", path, body)

    async def merge(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Change what `body` names in the object at `path` (a JSON merge patch)."""
        return await self._ask("PATCH", path, body, content=_MERGE)

    async def delete(self, path: str) -> dict[str, Any]:
        """Remove the object at `path`; NotFound when there is none."""
        return await self._ask("DELETE", path, None)

    async def watch(self, path: str, *, seconds: int, **query: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield {} once the server has begun a watch, then its events; it ends the watch after `seconds`."""
        query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)}
        timeout = httpx.Timeout(DEADLINE_SECONDS, read=seconds + DEADLINE_SECONDS)
        try:
            async with self._client.stream(
                "GET", path, params=query, headers=self._headers(), timeout=timeout
            ) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise _refusal(answer.status_code, await _bounded(answer), f"watch {path}")
                yield {}
                line = bytearray()
                async for chunk in answer.aiter_bytes():
                    *whole, rest = chunk.split(b"\n")
                    for part in whole:
                        line += part
                        if line:
                            yield _decoded(bytes(line), path)
                        line.clear()
                    line += rest
                    if len(line) > MAX_EVENT:
                        raise errors.Unavailable(f"the API server sent more than {MAX_EVENT} bytes as one event")
        except httpx.HTTPError as error:
            raise errors.Unavailable(f"the API server, watch {path}: {_reason(error)}") from error

    def _headers(self) -> dict[str, str]:
        authorization = self._cluster.authorization()
        return {"authorization": authorization} if authorization else {}

    async def _ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None,
        query: Mapping[str, str] | None = None,
        *,
        content: str = _JSON,
    ) -> dict[str, Any]:
        what = f"{method} {path}"
        headers, data = self._headers(), None
        if body is not None:
            headers["content-type"], data = content, json.dumps(body).encode()
        try:
            async with self._client.stream(method, path, params=query, content=data, headers=headers) as answer:
                text = await _bounded(answer)
        except httpx.TimeoutException as error:
            raise errors.Unavailable(f"the API server, {what}: no answer in {DEADLINE_SECONDS:.0f} s") from error
        except httpx.HTTPError as error:
            raise errors.Unavailable(f"the API server, {what}: {_reason(error)}") from error
        if not httpx.codes.is_success(answer.status_code):
            raise _refusal(answer.status_code, text, what)
        return _decoded(text, path)


async def _bounded(answer: httpx.Response) -> bytes:
    """Read an answer; TooLarge when it is larger than anything that is taken at once."""
    text = bytearray()
    async for chunk in answer.aiter_bytes():
        text += chunk
        if len(text) > MAX_ANSWER:
            raise TooLarge(f"the API server answered with more than {MAX_ANSWER} bytes")
    return bytes(text)


def _decoded(text: bytes, path: str) -> dict[str, Any]:
    try:
        decoded = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise errors.Unavailable(f"the API server sent what isn't JSON for {path}") from error
    if not isinstance(decoded, dict):
        raise errors.Unavailable(f"the API server sent no object for {path}")
    return decoded


def _refusal(status: int, text: bytes, what: str) -> errors.MeshwrightError:
    """Return the API server's refusal as one of our errors; its own words are in a Status object."""
    try:
        message = str(json.loads(text)["message"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        message = f"HTTP {status}"
    words = f"the API server, {what}: {message}"
    match status:
        case 401:
            return errors.Unauthorized(words)
        case 403:
            return errors.Forbidden(f"{words} (give this service account the right)")
        case 404:
            return errors.NotFound(words)
        case 409:
            return errors.Conflict(words)
        case 410:
            return errors.Conflict(words)  # the revision to watch from is gone: list again
        case 400 | 422:
            return errors.ConfigError(words)
        case 429:
            return errors.Exhausted(words)
    return errors.Unavailable(words)


def _reason(error: httpx.HTTPError) -> str:
    return str(error) or type(error).__name__
