"""The platform's own parts, one function each, in the order in which they start."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from meshwright.platform.up import probes
from meshwright.platform.up.layout import Layout
from meshwright.platform.up.part import Part
from meshwright.platform.up.ports import Port, Ports, mixer_name
from meshwright.platform.up.settings import UpSettings
from meshwright.platform.up.trust import Citadel


@dataclass(frozen=True, slots=True)
class Catalog:
    """What the parts' descriptions are made from."""

    settings: UpSettings
    layout: Layout
    ports: Ports
    citadel: Citadel

    def parts(self) -> Iterator[Part]:
        """Every part of ours; etcd and NATS are in servers.py."""
        yield self.citadel_part()
        yield self.collector()
        yield self.manager()
        yield from map(self.mixer, range(self.settings.mixers))
        yield self.nsm_registry()
        yield self.citadel_agent()
        yield self.nsmgr()
        yield self.forwarder()

    def citadel_part(self) -> Part:
        """The certificate authority; it signs its own identity."""
        return self._part(
            "citadel",
            "meshwright.citadel",
            self.ports.citadel,
            "--admin-socket", f"unix:{self.layout.socket('citadel-admin')}",
            "--seal-key", str(self.layout.seal_key),
            *self._otlp(),
            *self._store("citadel"),
            *self._bus("citadel"),
            needs=("etcd", "nats"),
        )  # fmt: skip

    def collector(self) -> Part:
        """The embedded trace collector."""
        forward = self.settings.otlp_endpoint
        return self._part(
            "collector",
            "meshwright.platform.collector",
            self.ports.collector,
            *self._identity("collector"),
            *(("--otlp-endpoint", forward) if forward else ()),
            token="collector",
        )

    def manager(self) -> Part:
        """Configuration, discovery and distribution."""
        return self._part(
            "manager",
            "meshwright.manager",
            self.ports.manager,
            *self._identity("manager"),
            *self._otlp(),
            *self._store("manager"),
            *self._bus("manager"),
            "--mixer", self._mixers(),
            token="manager",
        )  # fmt: skip

    def mixer(self, index: int) -> Part:
        """One replica of policy and telemetry."""
        name = mixer_name(index)
        return self._part(
            name,
            "meshwright.mixer",
            self.ports.mixers[index],
            *self._identity(name),
            *self._otlp(),
            *self._store("mixer"),
            *self._bus("mixer"),
            token="mixer",
        )

    def nsm_registry(self) -> Part:
        """Network services and their endpoints."""
        return self._part(
            "nsm-registry",
            "meshwright.nsm_registry",
            self.ports.nsm_registry,
            *self._identity("nsm-registry"),
            *self._otlp(),
            *self._store("nsm-registry"),
            token="nsm-registry",
        )

    def citadel_agent(self) -> Part:
        """The node's Workload API and SDS."""
        return self._part(
            "citadel-agent",
            "meshwright.citadel.agent",
            None,
            "--listen", f"unix:{self.layout.socket('agent')}",
            *self._identity("citadel-agent"),
            *self._otlp(),
            token="citadel-agent",
            sockets=(self.layout.socket("agent"),),
        )  # fmt: skip

    def nsmgr(self) -> Part:
        """The node's network service manager."""
        return self._part(
            "nsmgr",
            "meshwright.nsm_registry.manager",
            self.ports.nsmgr,
            "--socket", f"unix:{self.layout.socket('nsmgr')}",
            "--registry", self.ports.nsm_registry.address,
            "--mixer", self._mixers(),
            "--journal", str(self.layout.journal("nsmgr")),
            *self._identity("nsmgr"),
            *self._otlp(),
            token="nsmgr",
            sockets=(self.layout.socket("nsmgr"),),
        )  # fmt: skip

    def forwarder(self) -> Part:
        """The node's dataplane, the only part with network administration rights."""
        return self._part(
            "forwarder",
            "meshwright.dataplane",
            None,
            "--listen", f"unix:{self.layout.socket('forwarder')}",
            "--connect-to", f"unix:{self.layout.socket('nsmgr')}",
            "--journal", str(self.layout.journal("forwarder")),
            *self._identity("forwarder"),
            *self._otlp(),
            token="forwarder",
            sockets=(self.layout.socket("forwarder"),),
            optional=True,  # without its rights there are no network services, and all else works
        )  # fmt: skip

    def _part(
        self,
        name: str,
        module: str,
        port: Port | None,
        *arguments: str,
        needs: tuple[str, ...] = ("citadel",),
        token: str | None = None,
        sockets: tuple[Path, ...] = (),
        optional: bool = False,
    ) -> Part:
        listen = ("--listen", port.address) if port else ()
        admin = self.layout.health_socket(name)

        async def mint() -> None:
            await self.citadel.mint(token or name, self.layout.token(name))

        return Part(
            name=name,
            rank=2 if name == "collector" else 1,  # everybody's last spans go there
            # -P: the working directory isn't a place to import from.
            argv=(
                sys.executable, "-P", "-m", module, *listen,
                "--admin", f"unix:{admin}",
                "--trust-domain", self.settings.trust_domain,
                "--log-level", self.settings.log_level,
                *arguments,
            ),
            ports=(port,) if port else (),
            sockets=tuple(map(str, sockets)),
            probe=probes.ready(admin),
            needs=needs,
            before_start=mint if token else None,
            optional=optional,
        )  # fmt: skip

    def _identity(self, name: str) -> tuple[str, ...]:
        return (
            "--citadel", self.ports.citadel.address,
            "--citadel-socket", f"unix:{self.layout.socket('citadel-admin')}",
            "--citadel-token", str(self.layout.token(name)),
        )  # fmt: skip

    def _mixers(self) -> str:
        return ",".join(port.address for port in self.ports.mixers)

    def _otlp(self) -> tuple[str, ...]:
        return "--otlp", self.ports.collector.address

    def _store(self, service: str) -> tuple[str, ...]:
        return "--etcd", self.ports.etcd.address, "--etcd-tls", str(self.layout.client(service))

    def _bus(self, service: str) -> tuple[str, ...]:
        return "--nats", self.ports.nats.address, "--nats-tls", str(self.layout.client(service))
