"""The mesh CA in the store: one for all replicas, sealed, and never replaced by a new one."""

from __future__ import annotations

import asyncio
import json

import pytest

from meshwright.citadel import custody
from meshwright.citadel.ca import seal
from meshwright.citadel.errors import NoAuthority
from meshwright.core.clock import SystemClock
from meshwright.core.store import Entry, MemoryStore

KEY = seal.SealKey(b"k" * 32)
CLOCK = SystemClock()


class Meeting(MemoryStore):
    """A store in which `count` readers see the same state before any of them writes."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._barrier = asyncio.Barrier(count)

    async def get(self, key: str, *, timeout: float = 5.0) -> Entry | None:
        found = await super().get(key)
        if found is None:
            await self._barrier.wait()
        return found


async def test_replicas_that_start_together_make_one_ca() -> None:
    """Two citadels overwriting each other's root broke meshes (istio#17677)."""
    store = Meeting(3)
    opened = [custody.open_or_create(store, KEY, "mesh.local", CLOCK) for _ in range(3)]
    assert len({authority.certificate_pem for authority in await asyncio.gather(*opened)}) == 1


async def test_the_same_ca_is_opened_again() -> None:
    store = MemoryStore()
    first = await custody.open_or_create(store, KEY, "mesh.local", CLOCK)
    again = await custody.open_or_create(store, seal.SealKey(b"k" * 32), "mesh.local", CLOCK)
    assert again.certificate_pem == first.certificate_pem
    assert again.key_der() == first.key_der()


async def test_the_key_rests_sealed() -> None:
    """Whoever reads the store reads no key."""
    store = MemoryStore()
    authority = await custody.open_or_create(store, KEY, "mesh.local", CLOCK)
    entry = await store.get(custody.KEY)
    assert entry is not None
    assert authority.key_der() not in entry.value
    assert b"PRIVATE KEY" not in entry.value
    assert json.loads(entry.value)["key"]["sealedBy"] == KEY.key_id


async def test_another_seal_key_is_an_error_and_no_reason_for_a_new_ca() -> None:
    store = MemoryStore()
    await custody.open_or_create(store, KEY, "mesh.local", CLOCK)
    before = await store.get(custody.KEY)
    with pytest.raises(NoAuthority, match="start citadel with the seal key that this store was made with"):
        await custody.open_or_create(store, seal.SealKey(b"x" * 32), "mesh.local", CLOCK)
    assert await store.get(custody.KEY) == before


async def test_another_trust_domain_is_named() -> None:
    store = MemoryStore()
    await custody.open_or_create(store, KEY, "mesh.local", CLOCK)
    with pytest.raises(NoAuthority, match=r"--trust-domain mesh\.local"):
        await custody.open_or_create(store, KEY, "other.domain", CLOCK)


@pytest.mark.parametrize(
    "damage",
    [
        lambda record: b"",
        lambda record: b"[]",
        lambda record: b"\xff\xfe",
        lambda record: json.dumps(record | {"version": 9}).encode(),
        lambda record: json.dumps(record | {"key": {}}).encode(),
        lambda record: json.dumps(record | {"key": record["key"] | {"nonce": "!"}}).encode(),
        lambda record: json.dumps(record | {"key": record["key"] | {"ciphertext": "AAAA"}}).encode(),
        lambda record: json.dumps(record | {"certificate": record["certificate"][:99]}).encode(),
        lambda record: json.dumps(record | {"certificate": 7}).encode(),
    ],
)
async def test_a_damaged_record_is_an_error(damage) -> None:
    store = MemoryStore()
    await custody.open_or_create(store, KEY, "mesh.local", CLOCK)
    entry = await store.get(custody.KEY)
    assert entry is not None
    await store.put(custody.KEY, damage(json.loads(entry.value)))
    with pytest.raises(NoAuthority):
        await custody.open_or_create(store, KEY, "mesh.local", CLOCK)


async def test_the_certificate_cant_be_swapped_under_a_sealed_key() -> None:
    """The seal covers the certificate: a root of somebody else isn't taken with our key."""
    mine, theirs = MemoryStore(), MemoryStore()
    await custody.open_or_create(mine, KEY, "mesh.local", CLOCK)
    other = await custody.open_or_create(theirs, KEY, "mesh.local", CLOCK)
    entry = await mine.get(custody.KEY)
    assert entry is not None
    swapped = json.loads(entry.value) | {"certificate": other.certificate_pem.decode()}
    await mine.put(custody.KEY, json.dumps(swapped).encode())
    with pytest.raises(NoAuthority):
        await custody.open_or_create(mine, KEY, "mesh.local", CLOCK)
