"""Injection into files: pods, and the pod templates of what makes pods."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from meshwright.core import errors
from meshwright.manager.inject.options import Options
from meshwright.manager.inject.pod import inject

_TEMPLATE = ("spec", "template")
_PLACES = {
    "Pod": (),
    **dict.fromkeys(
        ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Job"), _TEMPLATE
    ),
    "CronJob": ("spec", "jobTemplate", *_TEMPLATE),
}


def inject_manifest(document: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """Return the object with its pods injected; an object that makes no pods as it is."""
    kind = document.get("kind")
    if kind == "List":
        items = document.get("items") or []
        return {**document, "items": [inject_manifest(item, options) for item in items]}
    if kind not in _PLACES:
        return dict(document)
    made = copy.deepcopy(dict(document))
    place, parent = made, None
    for field in _PLACES[str(kind)]:
        parent = place
        place = place.get(field)  # type: ignore[assignment]
        if not isinstance(place, dict):
            raise errors.ConfigError("is missing", field=field, remedy=f"write a whole {kind}")
    injected = inject(place, options)
    if parent is None:
        return injected
    parent["template"] = injected
    return made
