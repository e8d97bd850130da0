"""Configuration into the engine: each good snapshot is loaded, a bad one changes nothing, none is served before one."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from rule_documents import denial, document

from meshwright.core.config import FolderSource, Object, Snapshot
from meshwright.core.config.source import Latest
from meshwright.core.errors import ConfigError
from meshwright.core.health import Health, State
from meshwright.mixer import metrics
from meshwright.mixer.config.compiler import Compiled
from meshwright.mixer.policy import PART, PolicyFollower


class Fixture:
    """A source that tests write into, and a record of what was loaded."""

    def __init__(self) -> None:
        self.source = Latest()
        self.policies: list[bytes] = []
        self.loaded: list[Compiled] = []
        self.health = Health(PART)
        self.refuse = ""
        self.follower = PolicyFollower(
            self.source,  # type: ignore[arg-type]  # Latest is a source that needs no context
            {},
            self.load,
            self.loaded.append,
            self.health,
            export=False,
        )

    def load(self, policy: bytes) -> None:
        if self.refuse:
            raise ValueError(self.refuse)
        self.policies.append(policy)

    def give(self, revision: int, *documents: Object) -> None:
        self.source.replace(Snapshot(revision, MappingProxyType({each.key: each for each in documents})))

    async def until(self, state: State) -> str:
        async with asyncio.timeout(10):
            async for conditions in self.health.changes():
                if conditions[PART].state is state and conditions[PART].reason != "starting":
                    return conditions[PART].reason
        raise AssertionError


async def test_each_good_snapshot_is_loaded() -> None:
    fixture = Fixture()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fixture.follower.follow())
        fixture.give(1, *denial())
        await asyncio.wait_for(fixture.follower.first.wait(), 10)
        assert fixture.loaded[0].rules == 1
        assert fixture.health.ready()
        assert metrics.POLICY_REVISION._value.get() == 1
        task.cancel()


async def test_a_bad_snapshot_keeps_the_last_policy() -> None:
    fixture = Fixture()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fixture.follower.follow())
        fixture.give(1, *denial())
        await asyncio.wait_for(fixture.follower.first.wait(), 10)
        fixture.give(2, document("rule", "bad", {"match": "nonsense"}))
        assert "bad.yaml#1" in await fixture.until(State.DEGRADED)
        assert fixture.health.ready()
        assert len(fixture.policies) == 1
        fixture.give(3)
        await fixture.until(State.OK)
        assert len(fixture.policies) == 2
        task.cancel()


async def test_nothing_is_served_before_a_first_policy() -> None:
    """An empty policy lets everything pass: a bad first snapshot must not become one."""
    fixture = Fixture()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fixture.follower.follow())
        fixture.give(1, document("rule", "bad", {"match": "nonsense"}))
        await fixture.until(State.FAILED)
        assert not fixture.follower.first.is_set()
        assert not fixture.health.ready()
        task.cancel()


async def test_the_engines_refusal_keeps_the_last_policy_too() -> None:
    fixture = Fixture()
    fixture.refuse = "compiled policy refused: handlers[0]: not to my taste"
    with pytest.raises(ConfigError, match=r"spec\.params: not to my taste"):
        await fixture.follower.take(Snapshot(1, MappingProxyType({each.key: each for each in denial()})))
    fixture.refuse = "something else entirely"
    with pytest.raises(ConfigError, match="something else"):
        await fixture.follower.take(Snapshot(1))


async def test_a_folder_is_followed(tmp_path: Path) -> None:
    """`--config DIR`: files as people write them."""
    fixture = Fixture()
    file = tmp_path / "deny.yaml"
    file.write_text(yaml.safe_dump_all([each.document() for each in denial()]))
    async with FolderSource(tmp_path, health=fixture.health, period=0.05) as source:
        follower = PolicyFollower(source, {}, fixture.load, fixture.loaded.append, fixture.health, export=False)
        await follower.take(source.current())
        assert fixture.loaded[0].rules == 1
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(follower.follow())
            file.write_text(file.read_text().replace("source.principal", "source.prinzipal"))
            assert "did you mean `source.principal`?" in await fixture.until(State.DEGRADED)
            task.cancel()
