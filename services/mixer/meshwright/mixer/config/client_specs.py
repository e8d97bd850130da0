"""Documents → what clients of mixer are configured with (meshwright.mixer.specs)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from meshwright.core.config.objects import Object
from meshwright.mixer.config.documents import Documents, read
from meshwright.mixer.specs.client import ClientSpecs


def client_specs(given: Iterable[Object] | Documents) -> ClientSpecs:
    """The specs and bindings of a configuration, without those that were left out."""
    found = given if isinstance(given, Documents) else read(given)

    def kind(name: str) -> dict[tuple[str, str], Any]:
        return {
            (identity.namespace, identity.name): model
            for identity, model in found.models.get(name, {}).items()
            if identity not in found.dropped
        }

    return ClientSpecs(kind("QuotaSpec"), kind("QuotaSpecBinding"), kind("HTTPAPISpec"), kind("HTTPAPISpecBinding"))
