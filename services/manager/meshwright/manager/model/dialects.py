"""The dialects that the mesh understands, and what all of them make of a namespace's objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from meshwright.manager.model.meaning import Context, Meaning, Translate
from meshwright.manager.model.parse import Parsed
from meshwright.manager.smi.translate import translate as smi

DIALECTS: Mapping[str, Translate] = {"smi": smi}
"""By folder. Each is shown all objects of a namespace and takes those that it knows."""


def translate(members: Collection[Parsed], context: Context) -> Meaning:
    """Return what all dialects together say."""
    found = [dialect(members, context) for dialect in DIALECTS.values()]
    return Meaning(
        tuple(each for meaning in found for each in meaning.routes),
        tuple(each for meaning in found for each in meaning.policies),
        tuple(each for meaning in found for each in meaning.access),
        tuple(each for meaning in found for each in meaning.peers),
        tuple(each for meaning in found for each in meaning.tokens),
        tuple(each for meaning in found for each in meaning.notices),
    )
