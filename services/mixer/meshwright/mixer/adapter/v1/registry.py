"""Finds adapters by entry points; nothing registers itself at import time.

One decision to know: a package that can't be used takes nobody else down. It is left out and told of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

import pydantic

from meshwright.mixer.adapter.v1.interface import Adapter

GROUP = "meshwright.adapters"


class AdapterError(Exception):
    """An installed adapter that can't be used; the message names its entry point and the remedy."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where an adapter comes from: the distribution (empty: built in), its version, and the entry point."""

    distribution: str = ""
    version: str = ""
    entry_point: str = ""


@dataclass(frozen=True, slots=True)
class Installed:
    """All adapters by name, where each comes from, and what couldn't be used."""

    adapters: Mapping[str, Adapter]
    sources: Mapping[str, Source]
    faults: tuple[AdapterError, ...] = ()


def discover(known: Iterable[Adapter] = ()) -> Installed:
    """`known` and every adapter that an installed distribution names in its entry points."""
    adapters = {adapter.name: adapter for adapter in known}
    sources = dict.fromkeys(adapters, Source())
    faults: list[AdapterError] = []
    for point in metadata.entry_points(group=GROUP):
        try:
            adapter = _load(point)
        except AdapterError as error:
            faults.append(error)
            continue
        if adapters.get(adapter.name, adapter) is not adapter:
            faults.append(AdapterError(f"two adapters are named {adapter.name!r}: uninstall one ({point.value})"))
            continue
        adapters[adapter.name] = adapter
        owner = point.dist
        sources[adapter.name] = Source(owner.name if owner else "", owner.version if owner else "", point.value)
    return Installed(adapters, sources, tuple(faults))


def _load(point: metadata.EntryPoint) -> Adapter:
    try:
        adapter: Adapter = point.load()
    except Exception as error:
        raise AdapterError(f"adapter {point.name!r} ({point.value}) can't be loaded: {error}") from error
    try:
        name, templates, parameters = adapter.name, adapter.templates, adapter.parameters
    except AttributeError as error:
        raise AdapterError(f"adapter {point.name!r} ({point.value}) lacks a part: {error}") from error
    if not isinstance(name, str) or not name:
        raise AdapterError(f"adapter {point.name!r} ({point.value}): name must be text")
    if not isinstance(templates, frozenset) or not templates:
        raise AdapterError(f"adapter {point.name!r} ({point.value}): templates must be a frozenset of names")
    if not (isinstance(parameters, type) and issubclass(parameters, pydantic.BaseModel)):
        raise AdapterError(f"adapter {point.name!r} ({point.value}): parameters must be a pydantic model's class")
    return adapter
