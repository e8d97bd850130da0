"""MW501–MW506: services that nobody answers for, and workloads that nobody reaches."""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.core.config import Key
from meshwright.manager.analyze.finding import Finding, Severity, Subject
from meshwright.manager.model import kinds
from meshwright.manager.model.mesh import Area, Port, Protocol, Proxy, Service


def unanswered(subject: Subject) -> Iterator[Finding]:
    """Find services and ports behind which there is nobody."""
    for area in subject.mesh.areas.values():
        for service in area.services.values():
            key = _key(kinds.SERVICE, area, service.name)
            if key not in subject.objects:
                continue  # the cluster's: its own tools tell
            if not service.selector:
                message = "selects no workload, so that every request fails"
                yield Finding("MW501", Severity.ERROR, key, "spec.selector", message, "name labels of its workloads")
            elif not any(area.endpoints.get((service.name, port.number)) for port in service.ports):
                labels = ", ".join(f"{name}={value}" for name, value in service.selector)
                message = f"no workload has its labels {labels} and answers on its ports: every request fails"
                remedy = "correct the selector, or apply a WorkloadEntry with these labels"
                yield Finding("MW502", Severity.WARNING, key, "spec.selector", message, remedy)
            else:
                yield from _ports(area, service, key)


def _ports(area: Area, service: Service, key: Key) -> Iterator[Finding]:
    for number, port in enumerate(service.ports):
        field = f"spec.ports[{number}]"
        if not area.endpoints.get((service.name, port.number)):
            message = f"no workload of it answers on port {_say(port)}: requests to it fail"
            remedy = "name the port in the workloads' ports, or put targetPort right"
            yield Finding("MW503", Severity.WARNING, key, field, message, remedy)
        if port.protocol is Protocol.OTHER and not service.clustered:
            message = (
                f"port {_say(port)} isn't HTTP by its name or appProtocol: sidecars on Unix sockets don't route it"
            )
            remedy = "name it http, http2 or grpc (a suffix such as http-admin is fine)"
            yield Finding("MW504", Severity.WARNING, key, field, message, remedy)


def unreached(subject: Subject) -> Iterator[Finding]:
    """Find workloads whose proxy serves nothing, or that no service selects although they serve something."""
    for area in subject.mesh.areas.values():
        for workload in area.workloads.values():
            key = _key(kinds.WORKLOAD_ENTRY, area, workload.name)
            if key not in subject.objects or workload.proxy is not Proxy.SOCKETS:
                continue
            sidecars = area.sidecars_of.get(workload.name, ())
            if not sidecars:
                message = "no Sidecar selects this workload: its proxy serves nothing"
                yield Finding(
                    "MW505", Severity.WARNING, key, "", message, "apply a Sidecar whose selector has its labels"
                )
            elif any(area.sidecars[name].ingress for name in sidecars) and not area.services_of.get(workload.name):
                message = "its Sidecar serves a port, but no Service selects it: nobody can call it by a name"
                yield Finding("MW506", Severity.INFO, key, "", message, "apply a Service whose selector has its labels")


def _say(port: Port) -> str:
    return f"{port.number} ({port.name})" if port.name else str(port.number)


def _key(kind: kinds.Kind, area: Area, name: str) -> Key:
    return Key(kind.api_version, kind.name, area.namespace, name)
