"""Prefixes as etcd's half-open ranges of bytes."""

from __future__ import annotations


def key_range(prefix: str) -> tuple[bytes, bytes]:
    """Return the first key and the end of the range that holds all keys beginning with `prefix`."""
    if not prefix:
        return b"\0", b"\0"  # etcd's way to say "every key"
    key = prefix.encode()
    stem = key.rstrip(b"\xff")
    return key, stem[:-1] + bytes([stem[-1] + 1]) if stem else b"\0"
