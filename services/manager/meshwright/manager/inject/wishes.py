"""What a pod's annotations ask of the injector.

One decision to know: what can't be understood is refused, not left out. A pod whose author misspelt a port would
otherwise run with a hole in the mesh, or without what it needs.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from meshwright.core import errors
from meshwright.nsm import urls

INJECT = "meshwright.io/inject"
NETWORK_SERVICES = "networkservicemesh.io"

_QUANTITY = re.compile(r"[0-9]+(\.[0-9]+)?(m|k|M|G|Ki|Mi|Gi)?")
_MAX_SERVICES = 8


@dataclass(frozen=True, slots=True)
class Wishes:
    """A pod's own settings. `sidecar` None: as its namespace has it."""

    sidecar: bool | None = None
    network_services: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()  # of the network services
    outbound_ports: tuple[int, ...] = ()
    outbound_ranges: tuple[str, ...] = ()
    inbound_ports: tuple[int, ...] = ()
    requests: Mapping[str, str] = field(default_factory=dict)
    limits: Mapping[str, str] = field(default_factory=dict)


def read(annotations: Mapping[str, str]) -> Wishes:
    """Read a pod's annotations; raise ConfigError for one that can't be understood."""
    services = tuple(text.strip() for text in annotations.get(NETWORK_SERVICES, "").split(",") if text.strip())
    if len(services) > _MAX_SERVICES:
        raise _fault(NETWORK_SERVICES, f"{len(services)} network services", f"ask for {_MAX_SERVICES} at most")
    return Wishes(
        sidecar=_switch(annotations.get(INJECT)),
        network_services=services,
        interfaces=tuple(map(_interface, services)),
        outbound_ports=_ports(annotations, "meshwright.io/exclude-outbound-ports"),
        outbound_ranges=_ranges(annotations, "meshwright.io/exclude-outbound-ranges"),
        inbound_ports=_ports(annotations, "meshwright.io/exclude-inbound-ports"),
        requests=_quantities(annotations, ""),
        limits=_quantities(annotations, "-limit"),
    )


def _switch(text: str | None) -> bool | None:
    if text is None:
        return None
    if text not in ("true", "false"):
        raise _fault(INJECT, f"is {text!r}", "write 'true' or 'false'")
    return text == "true"


def _interface(text: str) -> str:
    asked = urls.parse(text)
    if asked.mechanism != "KERNEL":
        raise _fault(NETWORK_SERVICES, f"{text!r}: pods get kernel interfaces", "write kernel://SERVICE/INTERFACE")
    if not asked.interface:  # redirection must know which interface isn't the mesh's
        raise _fault(NETWORK_SERVICES, f"{text!r} names no interface", "write kernel://SERVICE/INTERFACE")
    return asked.interface


def _ports(annotations: Mapping[str, str], name: str) -> tuple[int, ...]:
    found = []
    for text in _listed(annotations, name):
        if not text.isdecimal() or not 0 < int(text) < 65536:
            raise _fault(name, f"{text!r} isn't a port", "write numbers from 1 to 65535, separated by commas")
        found.append(int(text))
    return tuple(found)


def _ranges(annotations: Mapping[str, str], name: str) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(text)) for text in _listed(annotations, name))
    except ValueError as error:
        raise _fault(name, str(error), "write ranges such as 10.0.0.0/8, separated by commas") from None


def _listed(annotations: Mapping[str, str], name: str) -> list[str]:
    return [text.strip() for text in annotations.get(name, "").split(",") if text.strip()]


def _quantities(annotations: Mapping[str, str], suffix: str) -> dict[str, str]:
    found = {}
    for what in ("cpu", "memory"):
        name = f"meshwright.io/sidecar-{what}{suffix}"
        text = annotations.get(name)
        if text is not None:
            if not _QUANTITY.fullmatch(text):
                raise _fault(name, f"{text!r} isn't a quantity", "write one such as 100m or 128Mi")
            found[what] = text
    return found


def _fault(name: str, what: str, remedy: str) -> errors.ConfigError:
    return errors.ConfigError(what, field=f"metadata.annotations.{name}", remedy=remedy)
