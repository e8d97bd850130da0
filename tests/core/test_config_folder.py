"""core.config.FolderSource: a service's configuration without the manager."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from meshwright.core import clock, config, errors, health
from meshwright.core.config import documents

TEXT = "apiVersion: v1\nkind: Namespace\nmetadata: {name: %s}\n"


def names(snapshot: config.Snapshot) -> list[str]:
    return sorted(key.name for key in snapshot.objects)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.yaml").write_text(TEXT % "one")
    return tmp_path


async def test_first_snapshot_is_there_on_entering(folder: Path) -> None:
    conditions = health.Health("config")
    async with config.FolderSource(folder, health=conditions) as source:
        assert names(source.current()) == ["one"]
        assert source.current().revision == 1
        assert conditions.ready()


async def test_change_is_seen_at_the_next_look(folder: Path) -> None:
    time = clock.ManualClock()
    async with config.FolderSource(folder, clock=time) as source:
        seen = source.changes()
        assert names(await anext(seen)) == ["one"]
        (folder / "b.yaml").write_text(TEXT % "two")
        following = asyncio.ensure_future(anext(seen))
        async with asyncio.timeout(5):
            while not following.done():
                await time.advance(1.0)
        snapshot = await following
        assert (names(snapshot), snapshot.revision) == (["one", "two"], 2)


async def test_broken_file_keeps_the_last_good_snapshot_and_degrades(folder: Path) -> None:
    conditions = health.Health()
    async with config.FolderSource(folder, health=conditions, clock=clock.ManualClock()) as source:
        good = source.current()
        (folder / "b.yaml").write_text("a: [")
        await source.look()
        assert source.current() is good
        condition = conditions.conditions()["config"]
        assert condition.state is health.State.DEGRADED
        assert "b.yaml#1, line 1" in condition.reason
        (folder / "b.yaml").write_text(TEXT % "two")
        await source.look()
        assert names(source.current()) == ["one", "two"]
        assert conditions.state() is health.State.OK


async def test_folder_that_disappears_keeps_the_last_good_snapshot(folder: Path) -> None:
    conditions = health.Health()
    moved = folder.with_name("moved")
    async with config.FolderSource(folder, health=conditions, clock=clock.ManualClock()) as source:
        folder.rename(moved)
        await source.look()
        assert names(source.current()) == ["one"]
        assert conditions.state() is health.State.DEGRADED
        moved.rename(folder)
        await source.look()
        assert conditions.state() is health.State.OK


async def test_touched_files_that_say_the_same_are_no_change(folder: Path) -> None:
    async with config.FolderSource(folder, clock=clock.ManualClock()) as source:
        before = source.current()
        os.utime(folder / "a.yaml", ns=(1, 1))
        await source.look()
        assert source.current() is before


async def test_fault_at_the_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: [")
    with pytest.raises(errors.ConfigError, match=r"a\.yaml#1"):
        await config.FolderSource(tmp_path).__aenter__()


def test_asking_too_early_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(errors.Unavailable):
        config.FolderSource(tmp_path).current()


async def test_a_file_that_did_not_change_is_not_parsed_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a large configuration only what changed costs anything; a file that is gone is forgotten."""
    parsed: list[str] = []
    original = documents.parse

    def counted(data: bytes, name: str, **options: Any) -> list[config.Object]:
        parsed.append(Path(name).name)
        return original(data, name, **options)

    monkeypatch.setattr(documents, "parse", counted)
    text = "apiVersion: v1\nkind: Service\nmetadata: {{name: {}}}\n"
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text(text.format(name))
    async with config.FolderSource(folder, clock=clock.ManualClock()) as source:
        parsed.clear()
        (folder / "two.yaml").write_text(text.format("three"))
        await source.look()
        assert parsed == ["two.yaml"]
        assert {"one", "three"} <= {key.name for key in source.current().objects}
        (folder / "two.yaml").unlink()
        await source.look()
        (folder / "two.yaml").write_text(text.format("three"))
        await source.look()
        assert parsed == ["two.yaml", "two.yaml"]
