"""Adapters whose handlers depend on documents beside their own, as roles are for `rbac`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import pydantic

Documents = Mapping[str, Mapping[tuple[str, str], Any]]
"""Kind → (namespace, name) → the document's model."""


@runtime_checkable
class Completing(Protocol):
    """A built-in adapter that puts such documents into its handlers' parameters.

    One decision to know: the parameters then are the whole of what a handler depends on. Whatever compares, opens or
    keeps handlers by their parameters notices a change of a role as it does every other.
    """

    def complete(self, parameters: Any, documents: Documents) -> pydantic.BaseModel:
        """Return the parameters with what is needed of the documents."""
        ...
