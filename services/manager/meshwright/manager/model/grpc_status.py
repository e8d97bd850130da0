"""gRPC's status codes by name and number (grpc.github.io/grpc/core/md_doc_statuscodes.html)."""

from __future__ import annotations

from typing import Any

CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)


def code(value: Any) -> int:
    """Accept a code's name (``UNAVAILABLE``) or its number, as a number or as text; return the number."""
    name = value.upper() if isinstance(value, str) else ""
    if name in CODES:
        return CODES.index(name)
    number = int(value) if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 4 else value
    if isinstance(number, int) and not isinstance(number, bool) and 0 <= number < len(CODES):
        return number
    raise ValueError(f"{value!r} isn't a gRPC status: write its name, such as UNAVAILABLE, or its number from 0 to 16")
