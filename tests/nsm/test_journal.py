"""The journal: nothing that was answered is lost, nothing torn is believed."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.nsm import journal as journals
from meshwright.nsm.connections import ConnectionState
from meshwright.nsm.journal import Journal
from meshwright.nsm.wire import Connection


def _state(identifier: str) -> ConnectionState:
    return ConnectionState(
        identifier,
        owner="spiffe://mesh.local/ns/default/sa/shop",
        caller_id=f"client-{identifier}",
        accepted=Connection(id=identifier, network_service="vpn"),
        downstream=Connection(id=identifier, network_service_endpoint_name="e"),
        next_hop="forwarder",
        expires=datetime(2026, 1, 1, tzinfo=UTC),
    )


async def test_what_was_recorded_is_there_again(tmp_path: Path) -> None:
    """All fields come back; a closed connection doesn't; the file is for its owner only."""
    path = tmp_path / "state" / "journal"
    journal = Journal(path)
    assert journal.load() == []
    one, two = _state("one"), _state("two")
    await asyncio.gather(journal.record(one), journal.record(two))
    two.accepted = None
    await journal.record(two)
    await journal.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Journal(path)
    (loaded,) = again.load()
    assert (loaded.id, loaded.owner, loaded.caller_id, loaded.next_hop, loaded.expires) == (
        one.id, one.owner, one.caller_id, one.next_hop, one.expires,
    )  # fmt: skip
    assert (loaded.accepted, loaded.downstream) == (one.accepted, one.downstream)
    await again.close()


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    with pytest.raises(errors.Unavailable, match="in use by another process"):
        Journal(tmp_path / "journal")
    journal.load()  # writes a new file: that one is locked too
    with pytest.raises(errors.Unavailable, match="in use by another process"):
        Journal(tmp_path / "journal")
    await journal.close()


async def test_a_torn_or_spoilt_line_costs_only_itself(tmp_path: Path) -> None:
    """The machine may go down in the middle of a write."""
    path = tmp_path / "journal"
    journal = Journal(path)
    for name in ("one", "two", "three"):
        await journal.record(_state(name))
    await journal.close()
    lines = path.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"owner"', b'"OWNER"')
    path.write_bytes(b"".join(lines)[:-20])
    again = Journal(path)
    assert [state.id for state in again.load()] == ["one"]
    await again.close()


async def test_the_file_does_not_grow_with_refreshes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journals, "_COMPACT_LINES", 50)
    path = tmp_path / "journal"
    journal = Journal(path)
    for _ in range(30):
        await asyncio.gather(*(journal.record(_state(str(number))) for number in range(10)))
    assert len(path.read_bytes().splitlines()) <= 61
    await journal.close()
    again = Journal(path)
    assert len(again.load()) == 10
    await again.close()


async def test_a_disk_that_refuses_is_told_to_each_caller(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal")
    os.close(journal._file)
    journal._file = os.open("/dev/full", os.O_WRONLY)
    results = await asyncio.gather(*(journal.record(_state(str(n))) for n in range(3)), return_exceptions=True)
    assert all(isinstance(result, errors.Exhausted) and "disk full" in str(result) for result in results)
    await journal.close()


@given(st.binary(max_size=200))
def test_any_content_is_loaded_or_dropped(content: bytes) -> None:
    """A file that something else wrote over never keeps the process from starting."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        path.write_bytes(content)
        journal = Journal(path)
        assert journal.load() == []
        os.close(journal._file)
