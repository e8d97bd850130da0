"""Where requests and connections to a host go: the one form into which every dialect's routes are translated.

One decision to know: nothing here belongs to a dialect. A route has what any of them can say, as plain values; a
default is always "as if nothing was said". A new dialect translates into this, and is routed, explained and reviewed
at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from meshwright.core.config import Key

MESH = "mesh"
"""Where routes hold that no gateway has: in the proxies of callers."""


class Dialect(IntEnum):
    """Whose routes of one host and port win: the lowest. The losers' objects say so in their status."""

    GATEWAY_API = 1
    VIRTUAL_SERVICE = 2
    TRAFFIC_SPLIT = 3
    ROUTE_RULE = 4


class Text(Enum):
    """How a text is compared."""

    EXACT = "exact"
    PREFIX = "prefix"
    SEGMENTS = "segments"  # of paths: /shop has /shop and /shop/cart, but not /shopping
    SUFFIX = "suffix"
    REGEX = "regex"  # RE2, the whole text
    PRESENT = "present"  # any value


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A condition on one text. `negated`: the request must not fulfil it (a header that is missing then fits)."""

    kind: Text
    value: str = ""
    ignore_case: bool = False
    negated: bool = False


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """Conditions on a request, all of which must hold; a route's matches are alternatives."""

    path: TextMatch | None = None
    methods: tuple[str, ...] = ()  # any of them; none: every method
    headers: tuple[tuple[str, TextMatch], ...] = ()  # lower-case names
    query: tuple[tuple[str, TextMatch], ...] = ()
    authority: TextMatch | None = None
    scheme: TextMatch | None = None
    port: int | None = None  # the port of the host, or of the gateway
    callers: CallerMatch | None = None
    gateways: tuple[str, ...] = ()  # NAMESPACE/NAME of gateways, or "mesh"; none: the route's own


@dataclass(frozen=True, slots=True)
class CallerMatch:
    """Which workloads a route is for; it is decided when their configuration is made, not for each request."""

    namespace: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    service_account: str = ""
    service: str = ""  # the whole DNS name of a service that they answer for


@dataclass(frozen=True, slots=True)
class HeaderChanges:
    """What is done to headers: first `remove`, then `set` (which replaces), then `add` (which appends)."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Destination:
    """A host's port: `host` is a whole DNS name, `port` None means the port that the caller named."""

    host: str
    port: int | None = None
    subset: str = ""  # one that a TrafficPolicy of the host names
    labels: tuple[tuple[str, str], ...] = ()  # or any workloads of the host with these labels, sorted
    port_name: str = ""  # instead of `port`
    only_port: bool = False  # without `port`: a host that has one port only is reached there, whatever the caller named


@dataclass(frozen=True, slots=True)
class Backend:
    """A destination and its share: weight ÷ sum of weights; 0 gets nothing.

    `fault`, where not empty, is why it can't be reached (it may not be referred to): its share of the requests fails,
    as it does when the host or the port that it names doesn't exist. They are answered with 500, as the Gateway API
    says, or with 503 where `missing` may still come (SMI). A host that exists and lacks the port that the caller named
    (no `Destination.port`) gets nothing. `field` is where the origin names it, for people.
    """

    destination: Destination
    weight: int = 1
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()
    fault: str = ""
    missing: bool = False
    field: str = ""


@dataclass(frozen=True, slots=True)
class Rewrite:
    """What a request is changed to before it goes on. Of `prefix`, `path` and `regex` at most one is set."""

    prefix: str | None = None  # replaces what the match's prefix matched
    path: str | None = None  # replaces the whole path
    regex: tuple[str, str] | None = None  # RE2 pattern, substitution with \\1
    authority: str | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """Answer with another address; what is None stays as the request has it."""

    status: int = 301
    scheme: str | None = None
    authority: str | None = None
    port: int | None = None
    path: str | None = None
    prefix: str | None = None  # replaces what the match's prefix matched


@dataclass(frozen=True, slots=True)
class DirectResponse:
    """Answer at once."""

    status: int
    body: str = ""
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Retries:
    """How often and when a request is tried again. `on` are Envoy's words (``connect-failure``, ``503``)."""

    attempts: int
    per_try_seconds: float | None = None
    on: tuple[str, ...] = ()
    backoff_seconds: float | None = None
    remote_localities: bool = False
    another_host: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """Requests that are held up or refused on purpose; shares in percent, 0 to 100."""

    delay_percent: float = 0.0
    delay_seconds: float = 0.0
    abort_percent: float = 0.0
    http_status: int | None = None
    grpc_status: int | None = None
    delay_header: str = ""  # a header by which a request sets them itself
    abort_header: str = ""


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where a copy of a share of the requests goes; nobody waits for its answer."""

    destination: Destination
    percent: float = 100.0


@dataclass(frozen=True, slots=True)
class Cors:
    """Which other origins' pages may call (fetch specification, CORS protocol)."""

    origins: tuple[TextMatch, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age_seconds: int | None = None
    credentials: bool = False
    unmatched_preflights: bool = True  # go on to the service


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """What happens to the requests that fulfil any of `matches` (none: every request). The first that fits decides.

    Exactly one of `backends`, `redirect` and `response` says it; no backends and neither of the others is answered with
    500 (Gateway API) — a route is never left out, for then another would take its requests.
    """

    origin: Key  # the object that says so
    name: str = ""  # its name there, for people
    matches: tuple[HttpMatch, ...] = ()
    backends: tuple[Backend, ...] = ()
    redirect: Redirect | None = None
    response: DirectResponse | None = None
    rewrite: Rewrite | None = None
    timeout_seconds: float | None = None  # 0: none at all; None: the mesh's
    timeout_header: str = ""  # a header by which a request sets it itself, in milliseconds
    attempt_seconds: float | None = None
    retries: Retries | None = None
    retries_header: str = ""
    fault: Fault | None = None
    mirrors: tuple[Mirror, ...] = ()
    cors: Cors | None = None
    request_headers: HeaderChanges = HeaderChanges()
    response_headers: HeaderChanges = HeaderChanges()
    websocket: bool = True  # upgrades pass


@dataclass(frozen=True, slots=True)
class ConnectionMatch:
    """Conditions on a connection, all of which must hold."""

    server_names: tuple[str, ...] = ()  # TLS only: names of the client hello, ``*.`` allowed in front
    destination_subnets: tuple[str, ...] = ()
    source_subnets: tuple[str, ...] = ()
    port: int | None = None
    callers: CallerMatch | None = None
    gateways: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectionRoute:
    """Where connections go, as bytes: TCP, or TLS that isn't ended here (`ConnectionMatch.server_names`)."""

    origin: Key
    name: str = ""
    matches: tuple[ConnectionMatch, ...] = ()
    backends: tuple[Backend, ...] = ()


@dataclass(frozen=True, slots=True)
class Routes:
    """What one dialect says of a host, in the order in which it is tried. `ports` None: of all its ports.

    `exported`: None for callers of every namespace, else those of these only (``.`` is resolved already). `gateways`
    are those at which it holds, ``mesh`` being the proxies of callers. `field` is where the origins name the host.
    """

    host: str  # a whole DNS name; ``*.example.com`` and ``*`` at gateways
    dialect: Dialect
    http: tuple[HttpRoute, ...] = ()
    connections: tuple[ConnectionRoute, ...] = ()
    ports: frozenset[int] | None = None
    exported: frozenset[str] | None = None
    gateways: frozenset[str] = frozenset((MESH,))
    field: str = ""

    @property
    def origins(self) -> frozenset[Key]:
        """The objects that it was made from."""
        return frozenset(route.origin for route in self.all)

    @property
    def all(self) -> tuple[HttpRoute | ConnectionRoute, ...]:
        """Routes of requests, then those of connections."""
        return (*self.http, *self.connections)

    @property
    def destinations(self) -> frozenset[Destination]:
        """All that its routes lead to."""
        backends = {backend.destination for route in self.all for backend in route.backends}
        return frozenset(backends | {mirror.destination for route in self.http for mirror in route.mirrors})
