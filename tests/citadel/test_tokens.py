"""One-time tokens: one use, in time, by whoever got it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from meshwright.citadel import tokens
from meshwright.citadel.errors import TokenRefused
from meshwright.core import errors
from meshwright.core.clock import ManualClock
from meshwright.core.store import Entry, MemoryStore


class Slow(MemoryStore):
    """A store whose readers all have read before anybody deletes."""

    async def get(self, key: str, *, timeout: float = 5.0) -> Entry | None:
        found = await super().get(key)
        for _ in range(5):
            await asyncio.sleep(0)
        return found


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


async def test_of_two_uses_at_once_exactly_one_wins(clock: ManualClock) -> None:
    """The delete is at the revision that was read."""
    issued = tokens.Tokens(Slow(), clock)
    for _ in range(20):
        minted = await issued.mint("manager", "", tokens.DEFAULT_TTL)
        results = await asyncio.gather(*(issued.use(minted.token) for _ in range(5)), return_exceptions=True)
        grants = [result for result in results if isinstance(result, tokens.Grant)]
        assert [grant.part for grant in grants] == ["manager"]
        assert sum(isinstance(result, TokenRefused) for result in results) == 4


async def test_a_token_is_used_once(clock: ManualClock) -> None:
    issued = tokens.Tokens(MemoryStore(), clock)
    minted = await issued.mint("citadel-agent", "n1", tokens.DEFAULT_TTL)
    assert (await issued.look(minted.token)).node == "n1"
    assert (await issued.use(minted.token)).node == "n1"
    for attempt in (issued.use, issued.look):
        with pytest.raises(TokenRefused):
            await attempt(minted.token)


async def test_a_token_ends(clock: ManualClock) -> None:
    issued = tokens.Tokens(MemoryStore(), clock)
    minted = await issued.mint("manager", "", timedelta(seconds=60))
    await clock.advance(60)
    for attempt in (issued.look, issued.use):
        with pytest.raises(TokenRefused):
            await attempt(minted.token)


@pytest.mark.parametrize("token", ["", "x", "a" * 100_000, "../..", "\udcff", "\0"])
async def test_guesses_are_refused_alike(clock: ManualClock, token: str) -> None:
    with pytest.raises(TokenRefused, match="doesn't exist, was used already, or has expired"):
        await tokens.Tokens(MemoryStore(), clock).use(token)


async def test_the_store_holds_no_token(clock: ManualClock) -> None:
    store = MemoryStore()
    minted = await tokens.Tokens(store, clock).mint("manager", "", tokens.DEFAULT_TTL)
    (entry,), _ = await store.list(tokens.PREFIX)
    assert minted.token not in entry.key + entry.value.decode()


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), timedelta(days=2), timedelta.max])
async def test_lifetimes_out_of_range_are_refused(clock: ManualClock, ttl: timedelta) -> None:
    with pytest.raises(errors.ConfigError, match="ttl"):
        await tokens.Tokens(MemoryStore(), clock).mint("manager", "", ttl)


async def test_what_expired_is_swept_and_the_rest_bounded(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_OUTSTANDING", 3)
    store = MemoryStore()
    issued = tokens.Tokens(store, clock)
    for _ in range(3):
        await issued.mint("manager", "", timedelta(seconds=10))
    with pytest.raises(errors.Exhausted, match="outstanding"):
        await issued.mint("manager", "", timedelta(seconds=10))
    await clock.advance(11)
    await issued.mint("manager", "", timedelta(seconds=10))
    entries, _ = await store.list(tokens.PREFIX)
    assert len(entries) == 1
