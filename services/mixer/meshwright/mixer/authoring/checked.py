"""Policies read and judged without a server, on the path that a configuration takes when it is served."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshwright.core.config import objects
from meshwright.core.config.documents import read_documents
from meshwright.dataplane.policy import Engine
from meshwright.mixer import adapters
from meshwright.mixer.adapter.v1 import discover
from meshwright.mixer.config import documents
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.compiler import GLOBAL_NAMESPACE
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.config.violation import Violation


@dataclass(frozen=True, slots=True)
class Checked:
    """`made` is what policies became, `faults` why documents are left out; `engine` runs the rest."""

    made: Sequence[objects.Object]
    faults: Sequence[Violation]
    compiled: Compiled
    engine: Engine


def read(files: Iterable[Path]) -> list[objects.Object]:
    """All documents of files and folders."""
    return [document for file in files for document in read_documents(file)]


def check(given: Sequence[objects.Object]) -> Checked:
    """Compile, and let an engine of its own load the result."""
    engine = Engine()
    compiled = PolicyLoader(discover(adapters.BUILT_IN).adapters, engine.load, export=False).load(given)
    found = documents.read(given)
    documents.add_policies(found, GLOBAL_NAMESPACE)
    made = [found.objects[identity] for identity in found.origins]
    return Checked(made, compiled.dropped, compiled, engine)
