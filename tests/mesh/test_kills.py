"""kill -9 of each part under traffic: it comes back, nothing is forgotten, and no request fails that needn't."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import pytest_asyncio
from meshwright_up import free_base_port

from meshwright.platform.demo import app, load, objects
from meshwright.platform.demo.application import Application
from meshwright.platform.demo.session import Session
from meshwright.platform.demo.settings import DemoSettings
from meshwright.platform.demo.workloads import workloads
from meshwright.platform.up.app import Start
from meshwright.platform.up.part import State

pytestmark = [pytest.mark.mesh, pytest.mark.timeout(150), pytest.mark.asyncio(loop_scope="module")]

PER_SECOND = 25.0
HARMLESS = [
    "manager", "citadel", "citadel-agent", "nsm-registry", "nsmgr", "forwarder", "etcd", "nats", "collector",
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session() -> AsyncIterator[Session]:
    """The platform with the demo's application, up for all tests of this module."""
    data = Path(tempfile.mkdtemp(prefix="mw-", dir="/tmp"))
    settings = DemoSettings(data=data, base_port=free_base_port())
    chain = workloads(settings.base_port)
    try:
        async with (
            Start(settings, [workload.port for workload in chain]).run() as platform,
            app.application(platform, Application(platform, chain)) as session,
        ):
            yield session
    finally:
        shutil.rmtree(data, ignore_errors=True)


async def configuration(session: Session) -> tuple[int, list[str]]:
    found, revision = await session.manager.list()
    return revision, sorted(entry.json for entry in found)


async def sent(tally: load.Tally, more: int) -> None:
    """Wait until so many further requests were sent."""
    target = tally.sent + more
    async with asyncio.timeout(30):
        while tally.sent < target:
            await asyncio.sleep(0.05)


async def recovered(tally: load.Tally) -> None:
    """Wait until two seconds of requests were served: every sidecar has found the mixers again, the gap is over."""
    failed = -1
    async with asyncio.timeout(30):
        while failed != tally.failed:
            failed = tally.failed
            await sent(tally, int(2 * PER_SECOND))


async def kill(session: Session, names: Iterable[str]) -> None:
    """Kill parts and wait until each runs again and is healthy."""
    supervisor = session.platform.supervisor
    killed = {name: supervisor.status(name).pid for name in names}
    for pid in killed.values():
        assert pid
        os.kill(pid, signal.SIGKILL)
    await supervisor.until(
        lambda: all(
            supervisor.status(name).pid not in (None, pid) and supervisor.status(name).state is State.HEALTHY
            for name, pid in killed.items()
        ),
        60,
        f"{', '.join(killed)} healthy again",
    )


@pytest.mark.parametrize("name", HARMLESS)
async def test_killing_a_part_fails_no_request(session: Session, name: str) -> None:
    """A part that isn't on the way of requests may die at any time."""
    before = await configuration(session)
    async with load.steady(session.shop, PER_SECOND) as tally:
        await sent(tally, 10)
        await kill(session, [name])
        await sent(tally, 50)
    assert tally.failures == []
    assert tally.sent >= 60
    assert await configuration(session) == before


async def test_killing_every_mixer_under_allow_fails_no_request(session: Session) -> None:
    """Services that say `allow` are served while no mixer answers."""
    await outage(session, "allow")
    async with load.steady(session.shop, PER_SECOND) as tally:
        await sent(tally, 10)
        await kill(session, ["mixer", "mixer-2"])
        await sent(tally, 50)
    assert tally.failures == []


async def test_killing_every_mixer_under_deny_fails_exactly_the_gap(session: Session) -> None:
    """Services that say `deny` refuse what can't be decided, and nothing before or after."""
    await outage(session, "deny")
    async with load.steady(session.shop, PER_SECOND) as tally:
        await sent(tally, 20)
        assert tally.failures == []
        await kill(session, ["mixer", "mixer-2"])
        await recovered(tally)
        refused = tally.failed
        await sent(tally, 50)
    assert refused > 0
    assert tally.failed == refused
    assert [failure for failure in tally.failures if "status 503" not in failure] == []


async def test_killing_one_of_two_mixers_fails_no_request(session: Session) -> None:
    """A question that a dying replica didn't answer is put to the other, also under `deny`."""
    await outage(session, "deny")
    async with load.steady(session.shop, PER_SECOND) as tally:
        # Who ejected a replica in an outage before this one takes it back after five seconds at most.
        await sent(tally, int(6 * PER_SECOND))
        await kill(session, ["mixer"])
        await sent(tally, 50)
    assert tally.failures == []


async def outage(session: Session, what: str) -> None:
    """Say what services do while no mixer answers, and wait until every sidecar knows."""
    path = objects.application(session.folder, session.platform.layout, session.application.workloads, outage=what)
    await session.acknowledged(await session.apply_file(path))
    # The listeners are others now. A request on a connection to the one before would be cut where it waits for mixer
    # longer than the drain time, and that isn't what is tested here.
    session.customer.shop.forget()
