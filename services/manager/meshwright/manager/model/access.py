"""Who may call a workload, and how its callers must show who they are: enforced by the called workload's proxy.

One decision to know: a workload that no grant selects is open or closed by the mesh's setting (SMI's strict reading is
closed); as soon as one selects it, what no grant allows is denied. Denials come before grants.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from meshwright.core.config import Key
from meshwright.manager.model.routing import TextMatch


class Verdict(Enum):
    """What follows when a rule fits."""

    DENY = "deny"
    ALLOW = "allow"
    AUDIT = "audit"  # said in the access log only
    ASK = "ask"  # another service decides (`Access.provider`)


@dataclass(frozen=True, slots=True)
class Callers:
    """Whom a rule is about: all lists that aren't empty must fit, any entry of one; `not_…` must not."""

    identities: tuple[TextMatch, ...] = ()  # whole SPIFFE IDs
    namespaces: tuple[TextMatch, ...] = ()
    token_identities: tuple[TextMatch, ...] = ()  # ISSUER/SUBJECT of a JWT
    addresses: tuple[str, ...] = ()  # CIDR, of the connection
    remote_addresses: tuple[str, ...] = ()  # CIDR, of the first that X-Forwarded-For trusts
    not_identities: tuple[TextMatch, ...] = ()
    not_namespaces: tuple[TextMatch, ...] = ()
    not_token_identities: tuple[TextMatch, ...] = ()
    not_addresses: tuple[str, ...] = ()
    not_remote_addresses: tuple[str, ...] = ()
    bindings: tuple[tuple[str, str], ...] = ()  # namespace and name of `Binding`s


@dataclass(frozen=True, slots=True)
class Binding:
    """Callers under a name of a namespace: any of its workloads with `labels`, any of its accounts, any identity."""

    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...] = ()
    accounts: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()  # whole SPIFFE IDs


@dataclass(frozen=True, slots=True)
class Bound:
    """Whom a `Binding` means now: identities, and single workloads by identity and address."""

    identities: tuple[str, ...] = ()
    workloads: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Operations:
    """What a rule is about. A rule with paths, methods, hosts or headers never fits what isn't HTTP.

    `protocol` is ``tcp`` (HTTP included) or ``udp``; with `requests` it never fits what isn't HTTP either way.
    """

    ports: tuple[int, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[TextMatch, ...] = ()
    hosts: tuple[TextMatch, ...] = ()
    headers: tuple[tuple[str, TextMatch], ...] = ()
    not_ports: tuple[int, ...] = ()
    not_methods: tuple[str, ...] = ()
    not_paths: tuple[TextMatch, ...] = ()
    not_hosts: tuple[TextMatch, ...] = ()
    protocol: str = "tcp"
    requests: bool = False

    @property
    def http(self) -> bool:
        """Whether only requests can fit."""
        sides = (self.methods, self.paths, self.hosts, self.headers, self.not_methods, self.not_paths, self.not_hosts)
        return self.requests or any(sides)


@dataclass(frozen=True, slots=True)
class Condition:
    """An attribute (``request.headers[x-token]``, ``request.auth.claims[group]``) and its values."""

    attribute: str
    values: tuple[TextMatch, ...] = ()
    not_values: tuple[TextMatch, ...] = ()


@dataclass(frozen=True, slots=True)
class AccessRule:
    """Fits when any of `callers` does, any of `operations`, and all `conditions`; an empty tuple fits all."""

    callers: tuple[Callers, ...] = ()
    operations: tuple[Operations, ...] = ()
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Access:
    """What one object says of the workloads that it selects. No rules: it fits nothing.

    `selector` by labels; `accounts` by service account, where not empty; both empty: the whole namespace, or in the
    mesh's root namespace all workloads.
    """

    origin: Key
    verdict: Verdict
    rules: tuple[AccessRule, ...]
    selector: tuple[tuple[str, str], ...] = ()
    accounts: tuple[str, ...] = ()
    provider: str = ""
    dry_run: bool = False


class PeerTls(Enum):
    """What callers must show."""

    STRICT = "strict"  # a certificate of the mesh
    PERMISSIVE = "permissive"  # or nothing
    DISABLED = "disabled"  # plain text only

    @property
    def takes_tls(self) -> bool:
        """Whether callers with a certificate may come."""
        return self is not PeerTls.DISABLED

    @property
    def takes_plain(self) -> bool:
        """Whether callers without one may."""
        return self is not PeerTls.STRICT


@dataclass(frozen=True, slots=True)
class PeerRule:
    """How the callers of the selected workloads connect; `ports` by the workload's port."""

    origin: Key
    selector: tuple[tuple[str, str], ...] = ()
    mode: PeerTls | None = None
    ports: tuple[tuple[int, PeerTls], ...] = ()


@dataclass(frozen=True, slots=True)
class TokenRule:
    """A JWT that requests may carry: a wrong one is refused, none at all isn't (an AccessRule may ask for one)."""

    origin: Key
    issuer: str
    selector: tuple[tuple[str, str], ...] = ()
    audiences: tuple[str, ...] = ()
    keys: str = ""  # a JWKS document
    keys_uri: str = ""
    headers: tuple[tuple[str, str], ...] = ()  # name, prefix of the value
    parameters: tuple[str, ...] = ()
    cookies: tuple[str, ...] = ()
    forward: bool = False
    payload_header: str = ""
    claim_headers: tuple[tuple[str, str], ...] = ()  # header, claim
    timeout_seconds: float | None = None
