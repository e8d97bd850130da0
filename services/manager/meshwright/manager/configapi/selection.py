"""Which objects a request is about: a key whose empty fields fit everything."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager.model import kinds


@dataclass(frozen=True, slots=True)
class Selection:
    """Of one kind in any case, a namespace, a name; each empty: all. Of versions of one kind any means the kind."""

    wanted: Key

    @classmethod
    def of(cls, wanted: Key, field: str = "filter.kind") -> Selection:
        """Read a filter; raise ConfigError, which names `field`, when there is no such kind."""
        known = any(kind.name.lower() == wanted.kind.lower() for kind in kinds.KINDS)
        if wanted.kind and not known and kinds.find(wanted.api_version, wanted.kind) is None:
            near = kinds.nearest(wanted.api_version, wanted.kind)
            hint = f"did you mean {near.name}?" if near else f"there are {', '.join(kind.name for kind in kinds.KINDS)}"
            raise errors.ConfigError(f"unknown kind {wanted.kind}: {hint}", field=field)
        kind = kinds.find(wanted.api_version, wanted.kind)
        return cls(replace(wanted, api_version=kind.api_version, kind=kind.name) if kind else wanted)

    def fits(self, key: Key) -> bool:
        """Return whether an object is meant."""
        wanted = self.wanted
        return (
            wanted.api_version in ("", key.api_version)
            and wanted.kind.lower() in ("", key.kind.lower())
            and wanted.namespace in ("", key.namespace)
            and wanted.name in ("", key.name)
        )

    def pages(self, keys: Iterable[Key], after: str) -> list[tuple[str, Key]]:
        """Return the objects that fit, behind the one that `after` names, with their names, in the order of lists."""
        named = (("\n".join(_order(key)), key) for key in sorted(keys, key=_order))
        return [(name, key) for name, key in named if name > after and self.fits(key)]


def _order(key: Key) -> tuple[str, ...]:
    return key.kind, key.api_version, key.namespace, key.name
