"""Configuration: documents that people write, and snapshots that services serve.

`read_documents` reads what people wrote; `connect(settings, store, health)` gives a service its source: a folder
(`FolderSource`) or what the manager committed (`StoreSource`). Only the manager has a `Ledger`,
and reads its `History`.
"""

from __future__ import annotations

from meshwright.core.config.committed import StoreSource
from meshwright.core.config.documents import parse, read_documents
from meshwright.core.config.errors import DocumentError
from meshwright.core.config.folder import FolderSource
from meshwright.core.config.history import History
from meshwright.core.config.ledger import Ledger
from meshwright.core.config.limits import LIMITS, Limits
from meshwright.core.config.objects import Key, Object, from_document, from_json, named
from meshwright.core.config.source import Snapshot, Source
from meshwright.core.health import Health
from meshwright.core.settings import ServiceSettings
from meshwright.core.store import Store

__all__ = [
    "LIMITS",
    "DocumentError",
    "FolderSource",
    "History",
    "Key",
    "Ledger",
    "Limits",
    "Object",
    "Snapshot",
    "Source",
    "StoreSource",
    "connect",
    "from_document",
    "from_json",
    "named",
    "parse",
    "read_documents",
]


def connect(settings: ServiceSettings, store: Store, health: Health | None = None) -> Source:
    """Return the source that the settings name; enter it to use it."""
    if settings.config is not None:
        return FolderSource(settings.config, health=health)
    return StoreSource(store, health=health)
