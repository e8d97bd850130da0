"""Lists of HTTP services: in force when they change, believed for their time, and never taken for empty."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from http_backend import HttpBackend
from hypothesis import given
from hypothesis import strategies as st
from rule_documents import action, document

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.core.config import Snapshot
from meshwright.core.config.objects import Object
from meshwright.core.config.source import Latest
from meshwright.core.health import Health, State
from meshwright.mixer.config.adapters import ListChecker
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.compiler import compile_policy
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.plugintest.recording import StillClock
from meshwright.mixer.policy import PART, PolicyFollower
from meshwright.mixer.provided_lists import ProvidedLists, parse

NAME = "callers.meshwright-system"


def documents(url: str, **params: Any) -> list[Object]:
    given = {"providerUrl": url, "refreshInterval": "5s", "ttl": "20s", **params}
    return [
        document("handler", "callers", {"compiledAdapter": "listchecker", "params": given}),
        document("instance", "caller", {"compiledTemplate": "listentry", "params": {"value": 'source.user | ""'}}),
        document("rule", "known", {"actions": [action("callers", "caller")]}),
    ]


def handler(compiled: Compiled) -> Any:
    return pb.Policy.FromString(compiled.policy).handlers[0]


@pytest.fixture
async def backend() -> AsyncIterator[HttpBackend]:
    async with HttpBackend() as running:
        running.status, running.body = 200, b"ann\nbob\n"
        yield running


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def passing(clock: StillClock, condition: Any) -> None:
    """Let time pass until the condition holds."""
    async with asyncio.timeout(10):
        while not condition():
            clock.advance(1)
            await asyncio.sleep(0.005)


async def test_without_its_list_a_handler_lets_nobody_pass() -> None:
    made = handler(compile_policy(documents("http://127.0.0.1:1/list"), {}))
    assert made.denier.code == 13
    assert "127.0.0.1:1/list" in made.denier.message


async def test_a_list_comes_into_force_and_each_change_of_it(backend: HttpBackend) -> None:
    health, clock, loaded = Health(PART), StillClock(), list[Compiled]()
    source = Latest()

    async def load(compiled: Compiled) -> None:
        loaded.append(compiled)

    async with ProvidedLists(health, clock) as lists:
        follower = PolicyFollower(source, PolicyLoader({}, lambda _: None, export=False), load, health, lists)  # type: ignore[arg-type]
        task = asyncio.create_task(follower.follow())
        given = {each.key: each for each in documents(backend.url, overrides=["eve"])}
        source.replace(Snapshot(1, given))
        await until(lambda: len(loaded) == 2)
        assert handler(loaded[0]).HasField("denier")
        assert [*handler(loaded[1]).list_checker.entries] == ["eve", "ann", "bob"]
        await passing(clock, lambda: len(backend.requests) >= 3)
        assert len(loaded) == 2  # the same again is nothing to load
        backend.body = b"[bob, carl]"
        await passing(clock, lambda: len(loaded) == 3)
        assert [*handler(loaded[2]).list_checker.entries] == ["eve", "bob", "carl"]
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_list_is_believed_for_its_time_and_no_longer(backend: HttpBackend) -> None:
    health, clock = Health(), StillClock()
    async with ProvidedLists(health, clock) as lists:
        parameters = ListChecker.model_validate(
            {"providerUrl": backend.url, "refreshInterval": "5s", "ttl": "20s", "entryType": "IP_ADDRESSES"}
        )
        backend.body = b"10.0.0.0/8\n"
        lists.follow({NAME: parameters})
        await until(lambda: lists.current() == {NAME: ("10.0.0.0/8",)})
        backend.body = b"<html>maintenance</html>"
        asked = len(backend.requests)
        await passing(clock, lambda: not lists.current())
        assert clock.monotonic() >= 20
        assert len(backend.requests) > asked
        assert health.conditions()[f"list of {NAME}"].state is State.DEGRADED
        backend.body = b"10.1.0.0/16\n"
        await passing(clock, lambda: bool(lists.current()))
        assert lists.current() == {NAME: ("10.1.0.0/16",)}
        lists.follow({})
        assert lists.current() == {}


@pytest.mark.parametrize(
    ("body", "entries"),
    [
        (b"", ()),
        (b"# none\n\n", ()),
        (b"b\r\n a \n# c\nb", ("a", "b")),
        (b"- a\n- 7\n", ("7", "a")),
        (b'["a", "b"]', ("a", "b")),
        (b"---\n- a\n", ("a",)),
    ],
)
def test_lists_are_read(body: bytes, entries: tuple[str, ...]) -> None:
    assert parse(body) == entries


@pytest.mark.parametrize("body", [b"[a", b"[[a]]", b"- {a: b}", b"---\na: b", b"\xff\xfe", b"[" * 10_000])
def test_what_is_no_list_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError):
        parse(body)


@given(st.binary())
def test_any_body_is_a_list_or_refused(body: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert all(entry.strip() == entry or body.lstrip()[:1] in b"[-" for entry in parse(body))
