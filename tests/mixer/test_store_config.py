"""Mixer on the manager's store: committed rules are served, while etcd is away too, and changes follow later."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import servers
from mixers import Mixer
from rule_documents import MALLORY, denial, document

from meshwright.core.config import Ledger
from meshwright.core.store import EtcdStore
from pki import Pki

pytestmark = pytest.mark.timeout(150)  # processes start slowly on a busy machine

ADMIN_PATH = {"request.url_path": "/admin", "source.principal": MALLORY}


async def test_committed_rules_are_served_through_an_outage_of_etcd(tmp_path: Path, pki: Pki) -> None:
    infrastructure = servers.InfrastructurePki()
    etcd = servers.etcd(tmp_path / "etcd", infrastructure)
    etcd.start()
    tls = infrastructure.write(tmp_path / "client", "root")
    mixer = Mixer(tmp_path / "mixer", pki, "--etcd", etcd.address, "--etcd-tls", str(tls))
    sidecar = pki.workload("shop")

    async def until_code(code: int) -> None:
        async with asyncio.timeout(30):
            while (await mixer.check(sidecar, ADMIN_PATH))["code"] != code:
                await asyncio.sleep(0.05)

    try:
        await mixer.start()
        await until_code(0)
        async with EtcdStore([etcd.address], tls) as store:
            ledger = Ledger(store)
            await ledger.commit({each.key: each.json for each in denial()}, [], 0)
            await until_code(7)
            # Past the manager's validation, say by an older version: it is left out, the others decide on.
            bad = document("rule", "bad", {"match": "nonsense"})
            await ledger.commit({bad.key: bad.json}, [], 1)
            health = await mixer.until(lambda health: health["parts"]["policy"]["state"] == "degraded")
            assert "unknown attribute `nonsense`" in health["parts"]["policy"]["reason"]
            assert (await mixer.check(sidecar, ADMIN_PATH))["code"] == 7

            etcd.kill()
            await mixer.until(lambda health: health["parts"]["config"]["state"] == "degraded")
            assert (await mixer.check(sidecar, ADMIN_PATH))["code"] == 7
            await asyncio.to_thread(etcd.start)
            await ledger.commit({}, [bad.key, denial()[2].key], 2)
            await until_code(0)
        await mixer.until(lambda health: health["state"] == "ok", 40)
        assert await asyncio.to_thread(mixer.stop) == 0
    finally:
        mixer.kill()
        etcd.kill()
