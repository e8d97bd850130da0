"""Gateways and ServiceEntries as ports and hosts of the inner model."""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.core.config import Key
from meshwright.manager.istio import gateway as gateways
from meshwright.manager.istio import names
from meshwright.manager.istio.service_entry import ServiceEntrySpec, WorkloadEntrySpec
from meshwright.manager.istio.unknown import unsupported
from meshwright.manager.model.external import External, ExternalEndpoint, ExternalPort, Resolution
from meshwright.manager.model.gateway import Certificate, Gateway, Server, ServerTls, Termination
from meshwright.manager.model.meaning import Notice

_MODES = {
    "PASSTHROUGH": Termination.PASS,
    "SIMPLE": Termination.SIMPLE,
    "MUTUAL": Termination.MUTUAL,
    "OPTIONAL_MUTUAL": Termination.OPTIONAL_MUTUAL,
    "ISTIO_MUTUAL": Termination.MESH,
}
_RESOLUTIONS = {
    "NONE": Resolution.NONE,
    "STATIC": Resolution.STATIC,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.DNS_ROUND_ROBIN,
    "DYNAMIC_DNS": Resolution.DYNAMIC_DNS,
}
_VERSIONS = {"TLS_AUTO": "", "TLSV1_0": "1.0", "TLSV1_1": "1.1", "TLSV1_2": "1.2", "TLSV1_3": "1.3"}


def gateway(key: Key, spec: gateways.GatewaySpec) -> Gateway:
    """Return a gateway's servers."""
    servers = tuple(_server(server, key.namespace) for server in spec.servers)
    return Gateway(key, key.namespace, key.name, tuple(sorted(spec.selector.items())), servers)


def _server(found: gateways.Server, namespace: str) -> Server:
    hosts = tuple(_place(host, namespace) for host in found.hosts)
    secured = found.port.protocol in ("https", "tls")
    tls = _tls(found.tls, secured=secured) if found.tls else ServerTls()
    return Server(found.port.number, found.port.protocol, hosts, found.name or "", found.bind or "", tls)


def _place(host: str, namespace: str) -> tuple[str, str]:
    where, slash, name = host.rpartition("/")
    return (namespace if where == "." else where if slash else "*", name)


def _tls(found: gateways.ServerTls, *, secured: bool) -> ServerTls:
    if not secured:
        return ServerTls(redirect=found.https_redirect)
    named = [found.credential_name] if found.credential_name else found.credential_names
    certificates = [Certificate(name) for name in named]
    certificates += [
        Certificate("", each.server_certificate, each.private_key, each.ca_certificates or "")
        for each in found.tls_certificates
    ]
    if found.server_certificate and found.private_key:
        certificates.append(Certificate("", found.server_certificate, found.private_key, found.ca_certificates or ""))
    return ServerTls(
        _MODES[found.mode],
        tuple(certificates),
        found.ca_cert_credential_name or "",
        tuple(found.subject_alt_names),
        tuple(found.verify_certificate_spki),
        tuple(found.verify_certificate_hash),
        _VERSIONS[found.min_protocol_version],
        _VERSIONS[found.max_protocol_version],
        tuple(found.cipher_suites),
    )


def external(key: Key, spec: ServiceEntrySpec) -> External:
    """Return the hosts that an entry describes."""
    return External(
        key,
        tuple(spec.hosts),
        tuple(ExternalPort(port.number, port.protocol, port.name, port.target_port) for port in spec.ports),
        tuple(spec.addresses),
        _RESOLUTIONS[spec.resolution],
        tuple(_endpoint(entry) for entry in spec.endpoints),
        tuple(sorted(spec.workload_selector.labels.items())) if spec.workload_selector else (),
        spec.location == "MESH_INTERNAL",
        tuple(spec.subject_alt_names),
        names.exported(spec.export_to, key.namespace),
    )


def _endpoint(found: WorkloadEntrySpec) -> ExternalEndpoint:
    return ExternalEndpoint(
        found.address,
        tuple(sorted(found.ports.items())),
        tuple(sorted(found.labels.items())),
        found.locality,
        found.weight,
        found.service_account or "",
    )


def notices(key: Key, spec: ServiceEntrySpec) -> Iterator[Notice]:
    """Tell what of an entry proxies don't do."""
    for number, entry in enumerate(spec.endpoints):
        text = "the mesh has one network: give addresses that its proxies reach"
        yield from unsupported(key, [(f"spec.endpoints[{number}].network", entry.network, text)])
    for number, host in enumerate(spec.hosts):
        wild = host.startswith("*") and not spec.endpoints and spec.workload_selector is None
        text = "proxies don't know what its callers dialled: name the hosts, or write endpoints"
        yield from unsupported(key, [(f"spec.hosts[{number}]", wild, text)])
        short = "." not in host
        yield from unsupported(key, [(f"spec.hosts[{number}]", short, "a host outside has a dot in its name")])
