"""What SMI's objects mean, in the words of the inner model."""

from __future__ import annotations

from collections.abc import Iterable

from meshwright.manager.model.meaning import Context, Meaning
from meshwright.manager.model.parse import Parsed
from meshwright.manager.smi import splits, targets
from meshwright.manager.smi.objects import sort


def translate(members: Iterable[Parsed], context: Context) -> Meaning:
    """Translate a namespace's objects."""
    objects = sort(members, context)
    routes = tuple(splits.translate(objects))
    access = tuple(targets.translate(objects))
    bindings = tuple(targets.bindings(objects))
    return Meaning(routes, access=access, bindings=bindings, notices=tuple(dict.fromkeys(objects.notices)))
