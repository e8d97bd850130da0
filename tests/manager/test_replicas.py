"""Several managers: each knows the others' addresses, and status covers the proxies of all."""

from __future__ import annotations

import asyncio
from pathlib import Path

from envoys import eventually
from managers import client, objects, running
from meshes import SHOP

from meshwright.core.health import Health
from meshwright.core.identity import StaticIdentity
from meshwright.core.store import MemoryStore
from meshwright.manager.configapi.catalogue import Catalogue
from meshwright.manager.configapi.status import StatusBoard
from meshwright.manager.replicas import Replicas
from meshwright.manager.xds.hub import Hub
from pki import Pki


async def test_replicas_announce_themselves_while_they_run() -> None:
    store = MemoryStore()
    first, second = Replicas(store, "first", Health()), Replicas(store, "second", Health())
    task = asyncio.create_task(second.announce("127.0.0.1:2"))

    async def known() -> bool:
        return list(await first.others()) == [("second", "127.0.0.1:2")]

    await eventually(known, "the second replica")
    assert list(await second.others()) == []
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert list(await first.others()) == []


async def test_status_asks_the_other_replicas_and_names_the_silent(pki: Pki, tmp_path: Path) -> None:
    async with running(pki, tmp_path) as address, client(pki, address) as admin:
        await admin.apply(objects(SHOP))

        async def others() -> list[tuple[str, str]]:
            return [("other", address), ("dead", "127.0.0.1:1")]

        board = StatusBoard(
            "this",
            Hub(),
            Catalogue(Health(), strict=False, on_change=lambda _: None),
            credentials=StaticIdentity(pki.part("manager")),
            trust_domain="mesh.local",
            replicas=others,
        )
        response = board.here()
        assert response.revision == 0
        await board.add_others(response)
        assert response.revision == 1
        assert list(response.unreachable) == ["dead (127.0.0.1:1)"]
