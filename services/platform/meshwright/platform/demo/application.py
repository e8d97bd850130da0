"""The demo's application as parts for the supervisor: each workload is a service and its sidecar.

One decision to know: both processes of a workload get its identity by a registration of exactly that process (id and
start time), made right after each start: no other process of this user can have it.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from datetime import timedelta

from meshwright.platform.demo import sidecar
from meshwright.platform.demo.workloads import Workload
from meshwright.platform.up import probes
from meshwright.platform.up.app import Platform
from meshwright.platform.up.part import Part

LIFETIME = timedelta(minutes=1)  # of certificates, so that a rotation is seen in every run


class Application:
    """Makes the parts of the workloads and keeps their registrations."""

    def __init__(self, platform: Platform, workloads: tuple[Workload, ...]) -> None:
        self.workloads = workloads
        self._platform = platform
        self._registrations: dict[str, str] = {}

    def parts(self) -> Iterator[Part]:
        """Every service and every sidecar."""
        for workload in self.workloads:
            yield self._service(workload)
            yield self._sidecar(workload)

    async def register(self, name: str, spiffe_id: str, pid: int) -> None:
        """Register a process as a workload, in place of the process that had the same part before."""
        self._registrations[name] = await self._platform.citadel.register(
            spiffe_id, pid, LIFETIME, replace=self._registrations.get(name, "")
        )

    def _service(self, workload: Workload) -> Part:
        layout, settings = self._platform.layout, self._platform.settings
        upstream = ("--upstream", workload.upstream) if workload.upstream else ()
        return Part(
            name=workload.name,
            argv=(
                sys.executable, "-P", "-m", "meshwright.platform.demo.service",
                "--name", workload.app,
                "--version", workload.version,
                "--listen", f"unix:{workload.inbound(layout)}",
                "--insecure-loopback",
                *upstream,
                "--outbound", str(workload.outbound(layout)),
                "--workload-api", str(layout.socket("agent")),
                "--otlp", self._platform.ports.collector.address,
                "--trust-domain", settings.trust_domain,
                "--log-level", settings.log_level,
            ),
            sockets=(str(workload.inbound(layout)),),
            probe=probes.http(workload.inbound(layout), "/healthz"),
            needs=("citadel-agent",),
            after_start=functools.partial(self.register, workload.name, workload.spiffe_id(settings.trust_domain)),
        )  # fmt: skip

    def _sidecar(self, workload: Workload) -> Part:
        layout, name = self._platform.layout, f"{workload.name} sidecar"
        config = sidecar.write_bootstrap(self._platform, workload)
        trust_domain = self._platform.settings.trust_domain
        return Part(
            name=name,
            argv=sidecar.argv(config),
            ports=(workload.port,),
            sockets=(str(workload.outbound(layout)),),
            probe=probes.http(workload.envoy_admin(layout), "/ready"),
            needs=("manager", "citadel-agent"),
            after_start=functools.partial(self.register, name, workload.spiffe_id(trust_domain)),
        )
