"""Redirection: the kernel sends a pod's TCP connections to the proxy beside its application.

One decision to know: connections of the proxy's own user aren't redirected, or they would come back to it for ever; but
when it calls its own pod's address, the connection goes in by the front door like everybody's, and only from 127.0.0.6
(::6) past it to the application.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import subprocess
from collections.abc import Iterable, Sequence

OUTBOUND, INBOUND = 15001, 15006
OWN_PORTS = (OUTBOUND, INBOUND, 15020)
USER = 1337
_SECONDS = 20.0
_SIOCSIFADDR = 0x8916
_SIXTH = "::6"


def rules(
    *,
    outbound_ports: Iterable[int] = (),
    outbound_ranges: Iterable[str] = (),
    inbound_ports: Iterable[int] = (),
    interfaces: Iterable[str] = (),
) -> str:
    """Return the rules as nft reads them; applied again they replace themselves.

    Excluded are connections to `outbound_ports` and `outbound_ranges`, those to this pod's `inbound_ports`, and all on
    `interfaces` (of network services, which are no part of the HTTP mesh).
    """
    networks = [ipaddress.ip_network(text) for text in outbound_ranges]
    inbound = [
        'iifname "lo" return',
        *_each("iifname", [f'"{name}"' for name in sorted(interfaces)]),
        *_each("tcp dport", sorted({*OWN_PORTS, *inbound_ports})),
        f"meta l4proto tcp redirect to :{INBOUND}",
    ]
    called_itself = f'oifname "lo" meta skuid {USER}'
    outbound = [
        f"{called_itself} ip daddr != 127.0.0.0/8 ip saddr != 127.0.0.6 meta l4proto tcp redirect to :{INBOUND}",
        f"{called_itself} ip6 daddr != ::1 ip6 saddr != {_SIXTH} meta l4proto tcp redirect to :{INBOUND}",
        f"meta skuid {USER} return",
        'oifname "lo" return',  # an application that calls itself by its own address needs no proxy
        *_each("oifname", [f'"{name}"' for name in sorted(interfaces)]),
        *_each("tcp dport", sorted(set(outbound_ports))),
        *_each("ip daddr", [str(network) for network in networks if network.version == 4]),
        *_each("ip6 daddr", [str(network) for network in networks if network.version == 6]),
        f"meta l4proto tcp redirect to :{OUTBOUND}",
    ]
    chains = (_chain("inbound", "prerouting", inbound), _chain("outbound", "output", outbound))
    table = "table inet meshwright"
    return f"{table}\ndelete {table}\n{table} {{\n{''.join(chains)}}}\n"


def apply(text: str) -> int:
    """Put the rules into force in this network namespace."""
    _own_sixth_address()
    done = subprocess.run(["nft", "-f", "-"], input=text, text=True, timeout=_SECONDS, check=False)
    return done.returncode


def _chain(name: str, hook: str, lines: Sequence[str]) -> str:
    body = "".join(f"    {line}\n" for line in lines)
    return f"  chain {name} {{\n    type nat hook {hook} priority -100; policy accept;\n{body}  }}\n"


def _each(what: str, values: Sequence[object]) -> list[str]:
    return [f"{what} {{ {', '.join(map(str, values))} }} return"] if values else []


def _own_sixth_address() -> None:
    """Give the loopback interface ::6: unlike 127.0.0.6 it isn't there by itself."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as control:
            address = socket.inet_pton(socket.AF_INET6, _SIXTH)
            fcntl.ioctl(control, _SIOCSIFADDR, struct.pack("=16sIi", address, 128, socket.if_nametoindex("lo")))
    except FileExistsError:
        pass  # applied before
    except OSError:
        if socket.has_ipv6 and _has_sixth():
            raise


def _has_sixth() -> bool:
    """Whether this namespace speaks IPv6 at all."""
    try:
        with open("/proc/sys/net/ipv6/conf/lo/disable_ipv6") as file:
            return file.read().strip() == "0"
    except OSError:
        return False
