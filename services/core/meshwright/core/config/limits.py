"""How much configuration is read; checked before the work that they bound is done."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on input. Sizes are bytes as written; nodes and depth count what aliases expand to."""

    document_bytes: int = MIB  # etcd takes 1.5 MiB a transaction
    total_bytes: int = 32 * MIB  # of all files of one call
    files: int = 10_000
    documents: int = 20_000
    depth: int = 64
    nodes: int = 100_000  # scalars, lists and maps of one document


LIMITS = Limits()


def size(count: int) -> str:
    """Return a size for people: ``11.0 MiB``, ``900 KiB``, ``7 bytes``."""
    if count >= MIB:
        return f"{count / MIB:.1f} MiB"
    return f"{count / 1024:.0f} KiB" if count >= 1024 else f"{count} bytes"
