"""A test from a file, from options, or from a file with options in place of some of it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path

from meshwright.api.smp import smp_pb2 as smp
from meshwright.core.errors import ConfigError
from meshwright.platform.perf.smp import documents

_LARGEST = 4 << 20  # bytes


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says; None leaves the file's."""

    name: str | None = None
    url: str | None = None
    qps: int | None = None
    connections: int | None = None
    duration: str | None = None
    load_generator: str | None = None
    mesh: str | None = None
    certificate: str | None = None
    options: str | None = None
    internal: bool | None = None


def read(filename: str | None, overrides: Overrides) -> documents.Test:
    """Return the test; ConfigError when there is none."""
    if filename is None:
        if overrides.url is None:
            raise ConfigError("no test", field="--url", remedy="give --url, or a test with -f FILE")
        test = documents.Test(smp.PerformanceTestConfig())
    else:
        test = documents.read_test(_bytes(filename), filename)
    config = test.config
    if not config.clients:
        config.clients.add()
    config.name = overrides.name or config.name or ("test" if filename in (None, "-") else Path(filename).stem)
    config.duration = overrides.duration or config.duration
    for client in config.clients:
        if overrides.url is not None:
            client.endpoint_urls[:] = [overrides.url]
        client.rps = client.rps if overrides.qps is None else overrides.qps
        client.connections = client.connections if overrides.connections is None else overrides.connections
        client.load_generator = overrides.load_generator or client.load_generator
        client.ssl_certificate = overrides.certificate or client.ssl_certificate
        client.additional_options = overrides.options or client.additional_options
        client.internal = client.internal if overrides.internal is None else overrides.internal
    return replace(test, mesh=_mesh(overrides.mesh)) if overrides.mesh else test


def _mesh(name: str) -> smp.ServiceMesh:
    wanted = name.upper().replace("-", "_").replace(" ", "_")
    if wanted in ("NONE", "MESHWRIGHT"):
        return smp.ServiceMesh(labels={"name": name.lower()})
    if wanted not in smp.ServiceMesh.Type.keys():  # noqa: SIM118 - an enumeration of protobuf's, no dictionary
        raise ConfigError(
            f"{name!r} is no mesh that SMP knows",
            field="--mesh",
            remedy="known are " + ", ".join(smp.ServiceMesh.Type.keys()),
        )
    return smp.ServiceMesh(type=wanted)


def _bytes(filename: str) -> bytes:
    if filename == "-":
        return sys.stdin.buffer.read(_LARGEST)
    try:
        with Path(filename).open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise ConfigError(f"{filename}: {error.strerror}", field="-f", remedy="name a file with a test") from error
