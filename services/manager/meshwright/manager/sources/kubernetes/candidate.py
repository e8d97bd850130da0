"""A custom resource as the cluster holds it: a document that may come into force, and what its status says of that."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from meshwright.core.config import Key
from meshwright.manager.model import kinds
from meshwright.manager.model.parse import CLUSTER, SOURCE
from meshwright.manager.sources.kubernetes.reflector import Name, Raw

_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"  # a second copy of the object, of no use to the mesh


@dataclass(frozen=True, slots=True)
class Candidate:
    """`text` is the document as it would be stored; `conditions` are those of its status, by type."""

    key: Key
    uid: str
    generation: int
    created: str
    text: str
    conditions: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def age(self) -> tuple[str, str, str]:
        """What objects are ordered by where the older one wins."""
        return self.created, self.key.namespace, self.key.name


def read(raw: Raw, kind: kinds.Kind) -> Candidate:
    """Read a custom resource: what a person wrote of it, without what the API server added."""
    metadata = raw["metadata"]
    annotations = {key: value for key, value in (metadata.get("annotations") or {}).items() if key != _APPLIED}
    written = {
        "name": metadata["name"],
        "namespace": metadata.get("namespace"),
        "labels": metadata.get("labels"),
        "annotations": {**annotations, SOURCE: CLUSTER},
    }
    rest = {name: value for name, value in raw.items() if name not in ("apiVersion", "kind", "metadata", "status")}
    document = {
        "apiVersion": kind.api_version,  # as it was asked for; items of a list needn't repeat it
        "kind": kind.name,
        "metadata": {name: value for name, value in written.items() if value is not None},
        **rest,
    }
    conditions = (raw.get("status") or {}).get("conditions") or ()
    return Candidate(
        Key(kind.api_version, kind.name, metadata.get("namespace") or "", metadata["name"]),
        metadata.get("uid") or "",
        int(metadata.get("generation") or 0),
        metadata.get("creationTimestamp") or "",
        json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False),
        {found["type"]: found for found in conditions if isinstance(found, dict) and "type" in found},
    )


class Candidates:
    """All custom resources, of all kinds; each kind's reflector has its own entrance."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self.found: dict[Key, Candidate] = {}
        self._changed = changed

    def sink(self, kind: kinds.Kind) -> _Entrance:
        """Return where objects of a kind go in."""
        return _Entrance(self, kind)

    def counts(self) -> dict[str, int]:
        """Return how many objects there are of each kind."""
        found = Counter(key.kind for key in self.found)
        return {kind.name: found[kind.name] for kind in kinds.CUSTOM}

    def set(self, key: Key, value: Candidate | None) -> None:
        """Put or take away one object."""
        before = self.found.get(key)
        if before == value:
            return
        if value is None:
            del self.found[key]
        else:
            self.found[key] = value
        self._changed()


class _Entrance:
    def __init__(self, candidates: Candidates, kind: kinds.Kind) -> None:
        self._candidates, self._kind = candidates, kind

    def replace(self, found: Mapping[Name, Candidate]) -> None:
        known = [key for key in self._candidates.found if (key.api_version, key.kind) == self._of]
        for key in known:
            if (key.namespace, key.name) not in found:
                self._candidates.set(key, None)
        for name, value in found.items():
            self.put(name, value)

    def put(self, name: Name, value: Candidate) -> None:
        self._candidates.set(self._key(name), value)

    def drop(self, name: Name) -> None:
        self._candidates.set(self._key(name), None)

    @property
    def _of(self) -> tuple[str, str]:
        return self._kind.api_version, self._kind.name

    def _key(self, name: Name) -> Key:
        return Key(*self._of, *name)
