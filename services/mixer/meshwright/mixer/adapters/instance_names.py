"""How handlers' parameters name instances: in full, as `name.namespace`, or by the name alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")


def lookup(table: Mapping[str, T], instance: str) -> T | None:
    """What `table` has for the instance `name.namespace`: by its full name, else by its name without the namespace.

    Istio's own three-part names (`requestcount.metric.istio-system`) fit as well.
    """
    name, _, namespace = instance.rpartition(".")
    for key in (instance, *(f"{name}.{kind}.{namespace}" for kind in ("metric", "instance", "quota")), name):
        if key in table:
            return table[key]
    return None
