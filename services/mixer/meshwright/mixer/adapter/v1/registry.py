"""Finds adapters by entry points; nothing registers itself at import time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import metadata

from meshwright.mixer.adapter.v1.interface import Adapter

GROUP = "meshwright.adapters"


class AdapterError(Exception):
    """An installed adapter that can't be used; the message names its entry point."""


def discover(known: Iterable[Adapter] = ()) -> Mapping[str, Adapter]:
    """`known` and every installed adapter by name; AdapterError when one can't be loaded or two share a name."""
    adapters = {adapter.name: adapter for adapter in known}
    for point in metadata.entry_points(group=GROUP):
        try:
            adapter: Adapter = point.load()
        except Exception as error:
            raise AdapterError(f"adapter {point.name!r} ({point.value}) can't be loaded: {error}") from error
        if adapters.get(adapter.name, adapter) is not adapter:
            raise AdapterError(f"two adapters are named {adapter.name!r}: uninstall one ({point.value})")
        adapters[adapter.name] = adapter
    return adapters
