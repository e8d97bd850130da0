"""Where calls enter the mesh, or leave it: ports of proxies that stand alone, and what they do with TLS there.

One decision to know: a gateway is ports on the proxies of selected workloads, and nothing else. What happens to the
requests that come in is said by `Routes` whose `gateways` have its name (``NAMESPACE/NAME``).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshwright.core.config import Key


class Termination(Enum):
    """What a port does with TLS."""

    NONE = "none"  # plain text
    SIMPLE = "simple"  # ended here
    MUTUAL = "mutual"  # and the client must show a certificate
    OPTIONAL_MUTUAL = "optional-mutual"  # or may
    MESH = "mesh"  # mutual TLS by SPIFFE ID, as between workloads
    PASS = "pass"  # sent on as it is, by the name in the client hello


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a port shows, and what it believes: a `secret` of the proxies' node (SDS), or files of the proxies."""

    secret: str = ""
    certificate: str = ""
    key: str = ""
    authorities: str = ""


@dataclass(frozen=True, slots=True)
class ServerTls:
    """TLS of one server. `redirect`: requests in plain text are answered with the same address in https."""

    mode: Termination = Termination.NONE
    certificates: tuple[Certificate, ...] = ()
    authorities_secret: str = ""
    names: tuple[str, ...] = ()  # of clients, of which one must be in their certificate
    spki: tuple[str, ...] = ()  # base64 of the SHA-256 of clients' keys
    hashes: tuple[str, ...] = ()  # hex of the SHA-256 of clients' certificates
    oldest: str = ""  # 1.0 to 1.3
    newest: str = ""
    ciphers: tuple[str, ...] = ()
    redirect: bool = False


@dataclass(frozen=True, slots=True)
class Server:
    """One port for some hosts: (namespace of the routes that may have it or ``*``, host or wildcard).

    `protocol` is Istio's word in lower case (``http``, ``https``, ``tls``, ``grpc``, ``tcp``).
    """

    number: int
    protocol: str
    hosts: tuple[tuple[str, str], ...]
    name: str = ""
    bind: str = ""
    tls: ServerTls = ServerTls()


@dataclass(frozen=True, slots=True)
class Gateway:
    """Servers of the proxies of the workloads with these labels (in every namespace, none: all gateways' proxies)."""

    origin: Key
    namespace: str
    name: str
    selector: tuple[tuple[str, str], ...]
    servers: tuple[Server, ...]

    @property
    def reference(self) -> str:
        """What routes call it."""
        return f"{self.namespace}/{self.name}"
