"""A registered instance, and the WorkloadEntry that it is in the mesh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

from meshwright.core import errors
from meshwright.manager.istio.workload_entry import WorkloadEntry
from meshwright.manager.model import kinds, parse

PREFIX = "/meshwright/manager/registrations/"
SOURCE = "registration"
MAX_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Instance:
    """What an owner says of itself; namespace and service account are its certificate's."""

    namespace: str
    service_account: str
    name: str
    address: str
    ports: Mapping[str, int] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """The key in the store."""
        return f"{PREFIX}{quote(self.namespace, safe='')}/{quote(self.name, safe='')}"

    def document(self) -> str:
        """Return the WorkloadEntry as JSON."""
        return json.dumps(
            {
                "apiVersion": kinds.WORKLOAD_ENTRY.api_version,
                "kind": kinds.WORKLOAD_ENTRY.name,
                "metadata": {
                    "name": self.name,
                    "namespace": self.namespace,
                    "annotations": {parse.SOURCE: SOURCE},
                },
                "spec": {
                    "address": self.address,
                    "ports": dict(self.ports),
                    "labels": dict(self.labels),
                    "serviceAccount": self.service_account,
                },
            },
            sort_keys=True,
            separators=(",", ":"),
        )

    def checked(self) -> parse.Parsed:
        """Return the WorkloadEntry; raise ConfigError for the first fault."""
        text = self.document()
        if len(text) > MAX_BYTES:
            raise errors.Exhausted(f"the instance has {len(text)} bytes: at most {MAX_BYTES} are taken")
        found = parse.parse(text)
        if isinstance(found, parse.Parsed):
            return found
        raise errors.ConfigError(found[0].message, field=found[0].field.rpartition(".")[2] or "name")


def read(value: bytes) -> Instance | None:
    """Read what the store holds; None when it isn't an instance."""
    found = parse.parse(value.decode(errors="replace"))
    if not isinstance(found, parse.Parsed) or not isinstance(found.document, WorkloadEntry):
        return None
    spec, key = found.document.spec, found.key
    return Instance(key.namespace, spec.service_account, key.name, spec.address, spec.ports, spec.labels)
