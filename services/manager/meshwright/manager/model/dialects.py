"""The dialects that the mesh understands, and what all of them make of a namespace's objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields

from meshwright.manager.classic.translate import translate as classic
from meshwright.manager.istio.translate import translate as istio
from meshwright.manager.model.meaning import Context, Meaning, Translate
from meshwright.manager.model.parse import Parsed
from meshwright.manager.smeagol.translate import translate as smeagol
from meshwright.manager.smi.translate import translate as smi

DIALECTS: Mapping[str, Translate] = {"smi": smi, "istio": istio, "classic": classic, "smeagol": smeagol}
"""By folder. Each is shown all objects of a namespace and takes those that it knows."""


def translate(members: Collection[Parsed], context: Context) -> Meaning:
    """Return what all dialects together say."""
    found = [dialect(members, context) for dialect in DIALECTS.values()]
    parts = [field.name for field in fields(Meaning)]
    return Meaning(**{part: tuple(each for meaning in found for each in getattr(meaning, part)) for part in parts})
