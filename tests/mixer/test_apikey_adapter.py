"""Adapter apikey: known keys by digest, what they are good for, and until when."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from meshwright.mixer.adapter.v1 import ApiKey, Code
from meshwright.mixer.adapters.apikey import ADAPTER
from meshwright.mixer.plugintest import RecordingHost, running


def key(text: str, name: str = "ann", **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest().upper(), **more}


def asked(text: str, api: str = "shop", operation: str = "list") -> ApiKey:
    return ApiKey(instance="key.default", api=api, api_operation=operation, api_key=text)


async def test_keys_are_known_by_their_digest() -> None:
    keys = [key("secret"), key("narrow", "bob", apis=["shop", "cart*"], operations=["list"])]
    async with running(ADAPTER, {"keys": keys}) as handler:
        for question, code in (
            (asked("secret", "any"), Code.OK),
            (asked(""), Code.UNAUTHENTICATED),
            (asked("wrong"), Code.UNAUTHENTICATED),
            (asked("narrow"), Code.OK),
            (asked("narrow", "carts-v2"), Code.OK),
            (asked("narrow", "orders"), Code.PERMISSION_DENIED),
            (asked("narrow", operation="drop"), Code.PERMISSION_DENIED),
        ):
            found = await handler.check(question)
            assert found.code == code, question
            assert "secret" not in found.message
            assert "narrow" not in found.message


async def test_a_key_ends_and_no_answer_outlives_it() -> None:
    host = RecordingHost()
    end = host.clock.now() + timedelta(seconds=10)
    async with running(ADAPTER, {"keys": [key("k", notAfter=end.isoformat())]}, host) as handler:
        found = await handler.check(asked("k"))
        assert found.code == Code.OK
        assert found.valid_duration <= timedelta(seconds=10)
    past = datetime(2020, 1, 1, tzinfo=UTC).isoformat()
    async with running(ADAPTER, {"keys": [key("k", notAfter=past)]}) as handler:
        assert (await handler.check(asked("k"))).code == Code.UNAUTHENTICATED


def test_a_key_is_not_shown() -> None:
    assert "secret" not in repr(asked("secret"))


@pytest.mark.parametrize(
    "keys",
    [
        [],
        [{"name": "a", "sha256": "secret"}],
        [key("a"), key("a", "again")],
        [key("a", notAfter="2026-01-01T00:00:00")],
    ],
)
def test_bad_parameters_are_refused(keys: list[dict[str, Any]]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.parameters.model_validate({"keys": keys})
