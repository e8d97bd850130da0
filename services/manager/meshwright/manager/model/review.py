"""Faults that show only between objects: names that don't exist, and two objects that claim the same thing.

What refers to something that may still come (a backend, as SMI says) is a warning that states the consequence; what
could only ever be wrong is a violation.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from meshwright.core.config import Key
from meshwright.core.identity import SYSTEM_NAMESPACE
from meshwright.manager.model import kinds
from meshwright.manager.model.document import DEFAULT_NAMESPACE
from meshwright.manager.model.fault import Fault, Findings
from meshwright.manager.model.mesh import Area, Mesh, Protocol, Proxy
from meshwright.manager.model.notices import notices
from meshwright.manager.model.parse import Parsed

PERMANENT = (DEFAULT_NAMESPACE, SYSTEM_NAMESPACE)
"""Namespaces that exist without being applied, and can't be deleted."""


def namespaces(objects: Iterable[Key]) -> set[str]:
    """Return the namespaces that exist."""
    return {*PERMANENT, *(key.name for key in objects if key.kind == kinds.NAMESPACE.name and key.api_version == "v1")}


def review(mesh: Mesh, changed: Mapping[Key, Parsed], existing: Collection[str]) -> Findings:
    """Judge a mesh as it would be after a change, looking only at what the change touches."""
    findings = Findings()
    for key in changed:
        if key.namespace and key.namespace not in existing:
            findings.violations.append(
                Fault(
                    key,
                    "metadata.namespace",
                    f"namespace {key.namespace} doesn't exist: apply a Namespace {key.namespace} first or in the same "
                    f"request (there are {', '.join(sorted(existing)[:10])})",
                )
            )
    for namespace in sorted({key.namespace for key in changed if key.namespace}):
        area = mesh.areas.get(namespace)
        if area is not None:
            findings.violations += _claims(area, changed)
            findings.warnings += _consequences(area, changed)
    findings.warnings += (Fault(each.key, each.field, each.message) for each in notices(mesh, changed))
    return findings


def _claims(area: Area, changed: Collection[Key]) -> Iterator[Fault]:
    told: set[tuple[str, ...]] = set()
    for workload, names in area.sidecars_of.items():
        if len(names) > 1 and names not in told:
            told.add(names)
            keys = [_key(kinds.SIDECAR, area, name) for name in names]
            for key in _blamed([*keys, _key(kinds.WORKLOAD_ENTRY, area, workload)], changed):
                yield Fault(
                    key,
                    "spec.workloadSelector" if key.kind == kinds.SIDECAR.name else "spec.labels",
                    f"workload {workload} would be selected by the sidecars {', '.join(names)}: one workload has one",
                )


def _blamed(keys: list[Key], changed: Collection[Key]) -> list[Key]:
    """The objects of this change; none of them means that the fault was there before, which blames nobody now."""
    return [key for key in keys if key in changed][:1]


def _consequences(area: Area, changed: Mapping[Key, Parsed]) -> Iterator[Fault]:
    for service in area.services.values():
        key = _key(kinds.SERVICE, area, service.name)
        if key not in changed:
            continue
        if not service.selector:
            yield Fault(key, "spec.selector", "selects no workload, so that every request fails: name labels")
        for number, port in enumerate(service.ports):
            if port.protocol is Protocol.OTHER:
                yield Fault(
                    key,
                    f"spec.ports[{number}]",
                    f"port {port.number} isn't HTTP by its name {port.name!r} or appProtocol, and sidecars on Unix "
                    "sockets route only HTTP: name it http, http2 or grpc (a suffix such as http-admin is fine)",
                )
    for workload in area.workloads.values():
        key = _key(kinds.WORKLOAD_ENTRY, area, workload.name)
        if workload.proxy is Proxy.SOCKETS and key in changed and not area.sidecars_of.get(workload.name):
            yield Fault(key, "", "no Sidecar selects this workload, so that its proxy serves nothing until one does")


def _key(kind: kinds.Kind, area: Area, name: str) -> Key:
    return Key(kind.api_version, kind.name, area.namespace, name)
