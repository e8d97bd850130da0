"""Configuration into the engine: what is good of each snapshot is loaded, and nothing is served before a first rule."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml
from rule_documents import denial, document, quota

from meshwright.core.config import FolderSource, Object, Snapshot
from meshwright.core.config.source import Latest
from meshwright.core.errors import ConfigError
from meshwright.core.health import Health, State
from meshwright.mixer import metrics
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.compiler import PolicyCompiler
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.policy import PART, PolicyFollower
from meshwright.mixer.provided_lists import ProvidedLists


class Fixture:
    """A source that tests write into, and a record of what was loaded."""

    def __init__(self) -> None:
        self.source = Latest()
        self.policies: list[bytes] = []
        self.loaded: list[Compiled] = []
        self.health = Health(PART)
        self.refuse: dict[bytes, str] = {}
        self.follower = PolicyFollower(
            self.source,  # type: ignore[arg-type]  # Latest is a source that needs no context
            PolicyLoader({}, self.check, export=False),
            self.load,
            self.health,
            ProvidedLists(self.health),
        )

    def check(self, policy: bytes) -> None:
        for part, reason in self.refuse.items():
            if part in policy:
                raise ValueError(reason)
        self.policies.append(policy)

    async def load(self, compiled: Compiled) -> None:
        self.loaded.append(compiled)

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


async def test_a_bad_document_is_left_out_of_the_policy() -> None:
    """With all that needs it; the rest is in force, and health says what is missing and why."""
    fixture = Fixture()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fixture.follower.follow())
        fixture.give(1, *denial())
        await asyncio.wait_for(fixture.follower.first.wait(), 10)
        fixture.give(2, *denial(), document("rule", "bad", {"match": "nonsense"}))
        reason = await fixture.until(State.DEGRADED)
        assert "bad.yaml#1: rule bad.meshwright-system: spec.match: unknown attribute `nonsense`" in reason
        assert fixture.health.ready()
        assert len(fixture.policies) == 2
        assert fixture.loaded[1].rules == 1
        assert metrics.POLICY_DROPPED._value.get() == 1
        fixture.give(3)
        await fixture.until(State.OK)
        assert len(fixture.policies) == 3
        assert metrics.POLICY_DROPPED._value.get() == 0
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


async def test_what_the_engine_refuses_is_left_out_too() -> None:
    fixture = Fixture()
    await fixture.follower.take(Snapshot(1, MappingProxyType({each.key: each for each in [*denial(), *quota(5)]})))
    assert fixture.loaded[0].rules == 2
    fixture.refuse = {b"deny-admin": "compiled policy refused: rules[0] (deny-admin.x): not to my taste"}
    await fixture.follower.take(Snapshot(2, MappingProxyType({each.key: each for each in [*denial(), *quota(5)]})))
    assert fixture.loaded[1].rules == 1
    assert [str(each) for each in fixture.loaded[1].dropped] == [
        "deny-admin.yaml#1: rule deny-admin.meshwright-system: spec: not to my taste"
    ]
    fixture.refuse = {b"": "something else entirely"}
    with pytest.raises(ConfigError, match="something else"):
        await fixture.follower.take(Snapshot(3))


async def test_a_failing_compiler_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong with a snapshot, the policy in force stays, and the next snapshot is tried."""
    fixture = Fixture()
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(fixture.follower.follow())
        fixture.give(1, *denial())
        await asyncio.wait_for(fixture.follower.first.wait(), 10)
        with monkeypatch.context() as patched:
            patched.setattr(PolicyCompiler, "compile", lambda *_, **__: [][1])
            fixture.give(2)
            assert "fault of mixer's: IndexError" in await fixture.until(State.DEGRADED)
        assert len(fixture.policies) == 1
        fixture.give(3)
        await fixture.until(State.OK)
        task.cancel()


async def test_a_folder_is_followed(tmp_path: Path) -> None:
    """`--config DIR`: files as people write them."""
    fixture = Fixture()
    file = tmp_path / "deny.yaml"
    file.write_text(yaml.safe_dump_all([each.document() for each in denial()]))
    async with FolderSource(tmp_path, health=fixture.health, period=0.05) as source:
        loader = PolicyLoader({}, fixture.check, export=False)
        follower = PolicyFollower(source, loader, fixture.load, fixture.health, ProvidedLists(fixture.health))
        await follower.take(source.current())
        assert fixture.loaded[0].rules == 1
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(follower.follow())
            file.write_text(file.read_text().replace("source.principal", "source.prinzipal"))
            assert "did you mean `source.principal`?" in await fixture.until(State.DEGRADED)
            task.cancel()
