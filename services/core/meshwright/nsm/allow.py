"""Lists of SPIFFE IDs that may do something; a trailing ``*`` fits any ending."""

from __future__ import annotations

from collections.abc import Iterable


def allows(patterns: Iterable[str], spiffe_id: str) -> bool:
    """Return whether one of the patterns fits; nothing fits a caller without identity."""
    return bool(spiffe_id) and any(
        spiffe_id.startswith(pattern[:-1]) if pattern.endswith("*") else spiffe_id == pattern for pattern in patterns
    )
