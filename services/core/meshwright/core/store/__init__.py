"""The platform's state: a `Store` on etcd, or in memory for a service that runs alone.

`connect(settings)` picks one; `follow` keeps a reader up to date; `etcd_auth.enable` is for who administers etcd.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from meshwright.core.settings import ServiceSettings
from meshwright.core.store.api import Change, Compare, Delete, Entry, Lease, Put, Resync, Store
from meshwright.core.store.etcd import EtcdStore
from meshwright.core.store.follow import follow
from meshwright.core.store.memory import MemoryStore

__all__ = [
    "Change",
    "Compare",
    "Delete",
    "Entry",
    "EtcdStore",
    "Lease",
    "MemoryStore",
    "Put",
    "Resync",
    "Store",
    "connect",
    "follow",
]


@contextlib.asynccontextmanager
async def connect(settings: ServiceSettings) -> AsyncIterator[Store]:
    """Open the store that the settings name; in memory when they name none."""
    if not settings.etcd:
        yield MemoryStore()
        return
    async with EtcdStore(settings.etcd, settings.etcd_tls) as store:
        yield store
