"""How connections to a host are made: balancing, limits, ejection, TLS; for all of it, or for some of its workloads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from enum import Enum

from meshwright.core.config import Key


class Balancing(Enum):
    """How one of the endpoints is chosen."""

    LEAST_REQUEST = "least-request"
    ROUND_ROBIN = "round-robin"
    RANDOM = "random"
    PASS_THROUGH = "pass-through"  # the address that the caller dialled
    HASH = "hash"


@dataclass(frozen=True, slots=True)
class Hash:
    """What of a request chooses its endpoint; one of the first four. `table` > 0: Maglev of that size, else a ring."""

    header: str = ""
    query: str = ""
    cookie: str = ""
    source_address: bool = False
    cookie_path: str = ""
    cookie_seconds: float | None = None  # 0: until the browser ends; None: never made here
    ring: int = 0
    table: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be under way to a host at once from one proxy, and for how long; None: the mesh's own."""

    connections: int | None = None
    pending: int | None = None
    requests: int | None = None
    requests_per_connection: int | None = None
    retries: int | None = None
    streams_per_connection: int | None = None
    connect_seconds: float | None = None
    idle_seconds: float | None = None
    tcp_idle_seconds: float | None = None
    connection_seconds: float | None = None
    keep_alive: tuple[int | None, int | None, int | None] | None = None  # probes, idle seconds, seconds between
    http2: bool | None = None  # speak it to the endpoints; None: as the port says
    retry_budget: tuple[float, int] | None = None  # percent of the active requests, at least so many


@dataclass(frozen=True, slots=True)
class Ejection:
    """When an endpoint is left out for a while; None: never for this reason."""

    consecutive_5xx: int | None = None
    consecutive_gateway: int | None = None
    consecutive_local: int | None = None
    split_local: bool = False
    interval_seconds: float | None = None
    base_seconds: float | None = None
    max_percent: int | None = None
    min_healthy_percent: int | None = None


class TlsMode(Enum):
    """How a host is spoken to."""

    MESH = "mesh"  # mutual TLS by SPIFFE ID, as between workloads
    DISABLED = "disabled"
    SIMPLE = "simple"
    MUTUAL = "mutual"  # with certificates from files of the proxy


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards a host outside of the mesh. Files are the proxy's own."""

    mode: TlsMode
    certificate: str = ""
    key: str = ""
    authorities: str = ""
    names: tuple[str, ...] = ()
    server_name: str = ""
    unverified: bool = False


@dataclass(frozen=True, slots=True)
class Locality:
    """Where a caller's requests go by where it is (``region/zone/subzone``)."""

    enabled: bool = True
    distribute: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = ()  # from, (to, weight)
    failover: tuple[tuple[str, str], ...] = ()
    priority_labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it; None: as if nothing was said."""

    balancing: Balancing | None = None
    hash: Hash | None = None
    warmup_seconds: float | None = None
    limits: Limits | None = None
    ejection: Ejection | None = None
    tls: Tls | None = None
    locality: Locality | None = None


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of a host's workloads; its settings lie over the host's, field by field."""

    name: str
    labels: tuple[tuple[str, str], ...]
    settings: Settings = Settings()
    ports: tuple[tuple[int, Settings], ...] = ()


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """What one object says of a host. `exported` as in `Routes`; `callers`: the labels of those that it is for."""

    host: str
    origin: Key
    settings: Settings = Settings()
    ports: tuple[tuple[int, Settings], ...] = ()
    subsets: tuple[Subset, ...] = ()
    exported: frozenset[str] | None = None
    callers: tuple[tuple[str, str], ...] = ()
    caller_service: str = ""  # whole DNS name of a service that they answer for; empty: no matter


def settings_of(policies: Iterable[TrafficPolicy], port: int, subset: str = "") -> Settings:
    """Lay policies over each other, the first on top: what a subset says of a port, of itself, the host of both."""
    layers: list[Settings] = []
    for policy in policies:
        named = next((each for each in policy.subsets if each.name == subset), None) if subset else None
        for each in (named, policy):
            if each is not None:
                layers += [dict(each.ports).get(port, _NOTHING), each.settings]
    merged = {}
    for each_field in fields(Settings):
        found = (getattr(layer, each_field.name) for layer in layers)
        merged[each_field.name] = next((value for value in found if value is not None), None)
    return Settings(**merged)


def subsets_of(policies: Iterable[TrafficPolicy]) -> dict[str, Subset]:
    """Return a host's subsets by name: of two of one name the first policy's."""
    found: dict[str, Subset] = {}
    for policy in policies:
        for subset in policy.subsets:
            found.setdefault(subset.name, subset)
    return found


_NOTHING = Settings()
