"""Tokens for adapters: read from a file whenever that changes, or fetched from an OAuth server and renewed in time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import structlog

from meshwright.core import clock as clocks
from meshwright.core.http_transport import HttpTransport
from meshwright.core.renewal import Backoff
from meshwright.mixer.config.models import OAuth
from meshwright.mixer.remote.handlers import Token

LOOK_SECONDS = 1.0
FETCH_SECONDS = 10.0
LIFE_SECONDS = 3600.0  # of a token whose server doesn't say
RENEWED_AT = 0.8  # of its life
MAX_TOKEN = 64 << 10
MAX_ANSWER = 256 << 10

_log = structlog.get_logger(__name__)

Set = Callable[[str | None], None]
"""Takes the value of the authorization entry; None: there is none at present."""


class TokenError(Exception):
    """No token is to be had; the message says why, and never has the secret."""


class Keeper:
    """Keeps one handler's token. `told` gets each new one, `failed` the reason when there is none."""

    def __init__(
        self, handler: str, token: Token, told: Set, failed: Callable[[str | None], None], clock: clocks.Clock
    ) -> None:
        self._handler, self._token, self._told, self._failed, self._clock = handler, token, told, failed, clock

    async def run(self) -> None:
        """Keep it for as long as the task lives."""
        if self._token.oauth is not None:
            await self._fetch(self._token.oauth)
        else:
            await self._follow(Path(self._token.path))

    async def _follow(self, path: Path) -> None:
        seen: tuple[int, int, int] | None = None
        while True:
            try:
                mark = _mark(path)
                if mark != seen:
                    self._tell(_token_in(path))
                    seen = mark
            except (OSError, TokenError) as error:
                seen = None
                self._failed(f"connection.authentication.tls.tokenPath: {error}")
            await self._clock.sleep(LOOK_SECONDS)

    async def _fetch(self, oauth: OAuth) -> None:
        backoff = Backoff(0.5, 30.0)
        ends = 0.0
        async with httpx.AsyncClient(
            transport=HttpTransport(), timeout=FETCH_SECONDS, follow_redirects=False
        ) as client:
            while True:
                try:
                    token, life = await fetch(client, oauth)
                except (TokenError, OSError, httpx.HTTPError) as error:
                    reason = str(error) or type(error).__name__
                    _log.warning("token_not_fetched", handler=self._handler, reason=reason)
                    self._failed(f"connection.authentication.tls.oauth: {reason}")
                    if ends and self._clock.monotonic() > ends:
                        self._told(None)
                        ends = 0.0
                    await self._clock.sleep(backoff.delay())
                    continue
                self._tell(token)
                backoff.reset()
                ends = self._clock.monotonic() + life
                await self._clock.sleep(max(life * RENEWED_AT, 0.5))

    def _tell(self, token: str) -> None:
        self._told(f"{self._token.prefix}{token}")
        self._failed(None)


def _mark(path: Path) -> tuple[int, int, int]:
    """Differs when the file was written or replaced."""
    status = path.stat()
    return status.st_mtime_ns, status.st_size, status.st_ino


def _token_in(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_TOKEN + 1)
    if len(content) > MAX_TOKEN:
        raise TokenError(f"{path} is longer than {MAX_TOKEN} bytes: is it a token?")
    try:
        return usable(content.decode("ascii").strip(), str(path))
    except UnicodeDecodeError as error:
        raise TokenError(f"{path} isn't ASCII: is it a token?") from error


async def fetch(client: httpx.AsyncClient, oauth: OAuth) -> tuple[str, float]:
    """A token and its life in seconds, by the client's credentials (RFC 6749, section 4.4)."""
    secret = _token_in(Path(oauth.client_secret))
    form = {**oauth.endpoint_params, "grant_type": "client_credentials"}
    if oauth.scopes:
        form["scope"] = " ".join(oauth.scopes)
    credentials = httpx.BasicAuth(oauth.client_id, secret)
    async with client.stream("POST", oauth.token_url, data=form, auth=credentials) as response:
        content = b""
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_ANSWER:
                raise TokenError(f"{oauth.token_url} answers more than {MAX_ANSWER} bytes")
    if response.status_code != httpx.codes.OK:
        raise TokenError(f"{oauth.token_url} answers {response.status_code}")
    try:
        answer: Any = httpx.Response(200, content=content).json()
    except ValueError as error:
        raise TokenError(f"{oauth.token_url} doesn't answer JSON") from error
    token = answer.get("access_token") if isinstance(answer, dict) else None
    if not isinstance(token, str):
        raise TokenError(f"{oauth.token_url} answers without an access_token")
    life = answer.get("expires_in")
    is_life = isinstance(life, int | float) and not isinstance(life, bool) and life > 0
    return usable(token, oauth.token_url), float(life) if is_life else LIFE_SECONDS


def usable(token: str, source: str) -> str:
    """The token; TokenError when no header can carry it."""
    if not token or not token.isprintable() or not token.isascii():
        raise TokenError(f"{source} holds no token that a header can carry")
    return token
