"""What an analysis finds. Codes are stable: docs/analyze.md has a paragraph for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum

from meshwright.core.config import Key
from meshwright.manager.model.mesh import Mesh
from meshwright.manager.model.parse import Parsed


class Severity(IntEnum):
    """An error is refused or fails requests, a warning is probably not meant, an info is worth knowing."""

    ERROR = 1
    WARNING = 2
    INFO = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about one field of one object."""

    code: str
    severity: Severity
    key: Key
    field: str
    message: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Subject:
    """What is analyzed: a mesh, and the objects that it was made from."""

    mesh: Mesh
    objects: Mapping[Key, Parsed]
    existing: frozenset[str]  # namespaces
