"""Call credentials of grpcio: metadata that plugins make for each call, e.g. a token (gRPC, "Authentication").

One decision to know: grpcio's own objects are taken, so that a plugin written for it works here. It keeps what is in
them to itself (`_credentials`); a version that keeps it otherwise is refused by name, not passed over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc.aio

from meshwright.dataplane.grpc import calls

_Pair = tuple[str, str | bytes]
_Plugin = Callable[[str, str, Callable[[Any, int, Any], None]], None]


async def metadata(credentials: grpc.CallCredentials, authority: str, path: str) -> list[_Pair]:
    """Ask the plugins of `credentials` for a call of `path` ("/package.Service/Method"); return what they add.

    As in grpcio, they run in a thread, may answer later, and are told the service as "https://host/package.Service".
    AioRpcError UNAVAILABLE when one fails.
    """
    service, _, method = path.rpartition("/")
    host = authority.removesuffix(":443")
    pairs: list[_Pair] = []
    for plugin in _plugins(getattr(credentials, "_credentials", credentials)):
        pairs += await _asked(plugin, f"https://{host}{service}", method)
    return pairs


def _plugins(credentials: Any) -> Iterator[_Plugin]:
    parts: Sequence[Any] | None = getattr(credentials, "_call_credentialses", None)
    if parts is not None:
        for part in parts:
            yield from _plugins(part)
        return
    plugin: _Plugin | None = getattr(credentials, "_metadata_plugin", None)
    if plugin is None:
        raise grpc.aio.UsageError(
            f"credentials: {credentials!r} has no metadata plugin; make it by grpc.metadata_call_credentials, "
            "grpc.access_token_call_credentials or grpc.composite_call_credentials"
        )
    yield plugin


async def _asked(plugin: _Plugin, url: str, method: str) -> Sequence[_Pair]:
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[Any, int, Any]] = loop.create_future()

    def answered(pairs: Any, code: int, details: Any) -> None:
        loop.call_soon_threadsafe(_complete, answer, (pairs, code, details))

    await loop.run_in_executor(None, plugin, url, method, answered)
    pairs, code, details = await answer
    if code != grpc.StatusCode.OK.value[0]:
        reason = details.decode(errors="replace") if isinstance(details, bytes) else details
        text = f"Getting metadata from plugin failed with error: {reason}"  # grpcio's words
        raise calls.failure(grpc.StatusCode.UNAVAILABLE, text)
    return [(key, value) for key, value in pairs or ()]


def _complete(answer: asyncio.Future[Any], value: Any) -> None:
    if not answer.done():
        answer.set_result(value)
