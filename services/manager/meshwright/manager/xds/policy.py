"""What policies say of a cluster: balancing, limits, ejection, connections. What they leave out is the mesh's."""

from __future__ import annotations

from google.protobuf.wrappers_pb2 import UInt32Value, UInt64Value

from meshwright.api.envoy.config.cluster.v3.circuit_breaker_pb2 import CircuitBreakers
from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.cluster.v3.outlier_detection_pb2 import OutlierDetection
from meshwright.api.envoy.config.core.v3.address_pb2 import TcpKeepalive
from meshwright.api.envoy.extensions.upstreams.http.v3.http_protocol_options_pb2 import HttpProtocolOptions
from meshwright.api.envoy.type.v3.percent_pb2 import Percent
from meshwright.manager.model.traffic import Balancing, Ejection, Hash, Limits, Settings
from meshwright.manager.xds.quantity import duration

_MAX_REQUESTS = 4096  # in flight to one cluster; more are refused at once, so that a slow service can't fill the proxy
_MAX_RING, _MAX_TABLE = 8 << 20, 5_000_011  # Envoy's own limits
_RING = 1024  # Envoy's own least size

_POLICIES = {
    Balancing.LEAST_REQUEST: Cluster.LEAST_REQUEST,
    Balancing.ROUND_ROBIN: Cluster.ROUND_ROBIN,
    Balancing.RANDOM: Cluster.RANDOM,
}


def balance(cluster: Cluster, settings: Settings, *, headless: bool) -> None:
    """Say where endpoints come from and which is chosen; only callers of `headless` services dial one themselves."""
    wanted = settings.balancing or (Balancing.HASH if settings.hash else Balancing.LEAST_REQUEST)
    if wanted is Balancing.PASS_THROUGH and headless:
        cluster.type, cluster.lb_policy = Cluster.ORIGINAL_DST, Cluster.CLUSTER_PROVIDED
        return
    cluster.type = Cluster.EDS
    if wanted is Balancing.HASH and settings.hash:
        _hash(cluster, settings.hash)
        return
    cluster.lb_policy = _POLICIES.get(wanted, Cluster.LEAST_REQUEST)
    if settings.warmup_seconds:
        window = duration(settings.warmup_seconds)
        if cluster.lb_policy == Cluster.LEAST_REQUEST:
            cluster.least_request_lb_config.slow_start_config.slow_start_window.CopyFrom(window)
        elif cluster.lb_policy == Cluster.ROUND_ROBIN:
            cluster.round_robin_lb_config.slow_start_config.slow_start_window.CopyFrom(window)


def panic(cluster: Cluster, wanted: Ejection) -> None:
    """Say below which share of healthy endpoints all of them are used again; Envoy's own is half."""
    if wanted.min_healthy_percent is not None:
        cluster.common_lb_config.healthy_panic_threshold.CopyFrom(Percent(value=wanted.min_healthy_percent))


def _hash(cluster: Cluster, wanted: Hash) -> None:
    if wanted.table:
        cluster.lb_policy = Cluster.MAGLEV
        size = _prime(min(wanted.table, _MAX_TABLE))
        cluster.maglev_lb_config.table_size.CopyFrom(UInt64Value(value=size))
        return
    cluster.lb_policy = Cluster.RING_HASH
    size = min(max(wanted.ring, 1), _MAX_RING) if wanted.ring else _RING
    cluster.ring_hash_lb_config.minimum_ring_size.CopyFrom(UInt64Value(value=size))


def _prime(number: int) -> int:
    """Return the next prime number, which a table's size must be."""
    while number < 2 or any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number


def limits(wanted: Limits) -> CircuitBreakers:
    """Return how much may be under way at once; more is refused."""
    threshold = CircuitBreakers.Thresholds(
        max_connections=_or(wanted.connections, _MAX_REQUESTS),
        max_pending_requests=_or(wanted.pending, _MAX_REQUESTS),
        max_requests=_or(wanted.requests, _MAX_REQUESTS),
    )
    if wanted.retries is not None and wanted.retry_budget is None:
        threshold.max_retries.CopyFrom(UInt32Value(value=wanted.retries))
    else:
        # When an endpoint goes away, all that was in flight to it is tried elsewhere at once.
        percent, least = wanted.retry_budget or (100, 64)
        threshold.retry_budget.budget_percent.CopyFrom(Percent(value=percent))
        threshold.retry_budget.min_retry_concurrency.CopyFrom(UInt32Value(value=least))
    return CircuitBreakers(thresholds=[threshold])


def ejection(wanted: Ejection) -> OutlierDetection:
    """Leave out endpoints that can't be connected to, for seconds; for answers of 5xx where a policy says so."""
    made = OutlierDetection(
        interval=duration(wanted.interval_seconds or 1),
        base_ejection_time=duration(wanted.base_seconds or 2),
        max_ejection_percent=_or(wanted.max_percent, 50),
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=UInt32Value(value=wanted.consecutive_local or 3),
        enforcing_consecutive_5xx=UInt32Value(value=100 if wanted.consecutive_5xx else 0),
        enforcing_consecutive_gateway_failure=UInt32Value(value=100 if wanted.consecutive_gateway else 0),
        enforcing_success_rate=UInt32Value(value=0),
        enforcing_local_origin_success_rate=UInt32Value(value=0),
    )
    if wanted.consecutive_5xx:
        made.consecutive_5xx.CopyFrom(UInt32Value(value=wanted.consecutive_5xx))
    if wanted.consecutive_gateway:
        made.consecutive_gateway_failure.CopyFrom(UInt32Value(value=wanted.consecutive_gateway))
    if wanted.base_seconds and wanted.base_seconds > 300:  # Envoy's own longest, which must not be the shorter one
        made.max_ejection_time.CopyFrom(duration(wanted.base_seconds))
    return made


def connections(options: HttpProtocolOptions, wanted: Limits) -> None:
    """Limit what one connection carries and how long it stays."""
    common = options.common_http_protocol_options
    if wanted.idle_seconds is not None:
        common.idle_timeout.CopyFrom(duration(wanted.idle_seconds))
    if wanted.connection_seconds:
        common.max_connection_duration.CopyFrom(duration(wanted.connection_seconds))
    if wanted.requests_per_connection:
        common.max_requests_per_connection.CopyFrom(UInt32Value(value=wanted.requests_per_connection))
    explicit = options.explicit_http_config
    if wanted.streams_per_connection and explicit.WhichOneof("protocol_config") == "http2_protocol_options":
        explicit.http2_protocol_options.max_concurrent_streams.CopyFrom(
            UInt32Value(value=min(wanted.streams_per_connection, 2**31 - 1))
        )


def keep_alive(wanted: tuple[int | None, int | None, int | None]) -> TcpKeepalive:
    """Return how the kernel finds out that a peer is gone."""
    probes, idle, between = wanted
    return TcpKeepalive(
        keepalive_probes=None if probes is None else UInt32Value(value=probes),
        keepalive_time=None if idle is None else UInt32Value(value=idle),
        keepalive_interval=None if between is None else UInt32Value(value=between),
    )


def _or(number: int | None, general: int) -> UInt32Value:
    return UInt32Value(value=general if number is None else number)
