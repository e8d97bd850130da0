"""DestinationRules as traffic policies of the inner model."""

from __future__ import annotations

from collections.abc import Iterator

from meshwright.core.config import Key
from meshwright.manager.istio import names, traffic_policy
from meshwright.manager.istio.destination_rule import DestinationRuleSpec
from meshwright.manager.istio.unknown import unsupported
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.traffic import (
    Balancing,
    Ejection,
    Hash,
    Limits,
    Locality,
    Settings,
    Subset,
    Tls,
    TlsMode,
    TrafficPolicy,
)

_BALANCING = {
    "LEAST_CONN": Balancing.LEAST_REQUEST,
    "LEAST_REQUEST": Balancing.LEAST_REQUEST,
    "RANDOM": Balancing.RANDOM,
    "PASSTHROUGH": Balancing.PASS_THROUGH,
    "ROUND_ROBIN": Balancing.ROUND_ROBIN,
}
_TLS = {
    "DISABLE": TlsMode.DISABLED,
    "SIMPLE": TlsMode.SIMPLE,
    "MUTUAL": TlsMode.MUTUAL,
    "ISTIO_MUTUAL": TlsMode.MESH,
}
_HTTP2 = {"DEFAULT": None, "DO_NOT_UPGRADE": False, "UPGRADE": True}


def policy(key: Key, spec: DestinationRuleSpec) -> TrafficPolicy:
    """Return what an object says of its host."""
    labels = spec.workload_selector.match_labels if spec.workload_selector else {}
    return TrafficPolicy(
        names.whole(spec.host, key.namespace),
        key,
        settings(spec.traffic_policy),
        _ports(spec.traffic_policy),
        tuple(
            Subset(
                subset.name,
                tuple(sorted(subset.labels.items())),
                settings(subset.traffic_policy),
                _ports(subset.traffic_policy),
            )
            for subset in spec.subsets
        ),
        names.exported(spec.export_to, key.namespace),
        tuple(sorted(labels.items())),
    )


def notices(key: Key, spec: DestinationRuleSpec) -> Iterator[Notice]:
    """Tell what of it proxies don't do."""
    if spec.host.startswith("*"):
        text = (
            "a host with a wildcard is that of a ServiceEntry of the same name only; write one object for each service"
        )
        yield Notice(key, "spec.host", "Unsupported", text)
    yield from _unknown(key, spec.traffic_policy, "spec.trafficPolicy")
    for number, subset in enumerate(spec.subsets):
        yield from _unknown(key, subset.traffic_policy, f"spec.subsets[{number}].trafficPolicy")


def settings(found: traffic_policy.PortPolicy | None) -> Settings:
    """Return what a policy says, but for its ports."""
    if found is None:
        return Settings()
    balancer = found.load_balancer
    budget = found.retry_budget if isinstance(found, traffic_policy.TrafficPolicy) else None
    warmup = (balancer.warmup.duration if balancer.warmup else balancer.warmup_duration_secs) if balancer else None
    return Settings(
        _balancing(balancer),
        _hash(balancer.consistent_hash) if balancer and balancer.consistent_hash else None,
        warmup,
        _limits(found.connection_pool, budget),
        _ejection(found.outlier_detection) if found.outlier_detection else None,
        _tls(found.tls) if found.tls else None,
        _locality(balancer.locality_lb_setting) if balancer and balancer.locality_lb_setting else None,
    )


def _ports(found: traffic_policy.TrafficPolicy | None) -> tuple[tuple[int, Settings], ...]:
    if found is None:
        return ()
    return tuple((entry.port.number, settings(entry)) for entry in found.port_level_settings)


def _balancing(found: traffic_policy.LoadBalancer | None) -> Balancing | None:
    if found is None:
        return None
    return Balancing.HASH if found.consistent_hash else _BALANCING.get(found.simple or "")


def _hash(found: traffic_policy.ConsistentHash) -> Hash:
    cookie = found.http_cookie
    ring = found.ring_hash.minimum_ring_size if found.ring_hash else found.minimum_ring_size or 0
    return Hash(
        found.http_header_name or "",
        found.http_query_parameter_name or "",
        cookie.name if cookie else "",
        bool(found.use_source_ip),
        cookie.path if cookie else "",
        cookie.ttl if cookie else None,
        ring,
        found.maglev.table_size if found.maglev else 0,
    )


def _limits(found: traffic_policy.ConnectionPool | None, budget: traffic_policy.RetryBudget | None) -> Limits | None:
    tcp = found.tcp if found and found.tcp else traffic_policy.TcpSettings()
    http = found.http if found and found.http else traffic_policy.HttpSettings()
    alive = tcp.tcp_keepalive
    made = Limits(
        tcp.max_connections,
        http.http1_max_pending_requests or None,
        http.http2_max_requests or None,
        http.max_requests_per_connection or None,
        http.max_retries or None,
        http.max_concurrent_streams or None,
        tcp.connect_timeout,
        http.idle_timeout,
        tcp.idle_timeout,
        tcp.max_connection_duration,
        (alive.probes, _whole(alive.time), _whole(alive.interval)) if alive else None,
        _HTTP2[http.h2_upgrade_policy],
        (budget.percent, budget.min_retry_concurrency) if budget else None,
    )
    return made if made != Limits() else None


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds))


def _ejection(found: traffic_policy.OutlierDetection) -> Ejection:
    gateway = found.consecutive_gateway_errors if found.consecutive_errors is None else found.consecutive_errors
    return Ejection(
        found.consecutive_5xx_errors or None,
        gateway or None,
        found.consecutive_local_origin_failures or None,
        found.split_external_local_origin_errors,
        found.interval,
        found.base_ejection_time,
        found.max_ejection_percent,
        found.min_health_percent,
    )


def _tls(found: traffic_policy.ClientTls) -> Tls:
    return Tls(
        _TLS[found.mode],
        found.client_certificate or "",
        found.private_key or "",
        found.ca_certificates or "",
        tuple(found.subject_alt_names),
        found.sni or "",
        found.insecure_skip_verify,
    )


def _locality(found: traffic_policy.LocalityLb) -> Locality:
    return Locality(
        found.enabled is not False,
        tuple((entry.from_, tuple(sorted(entry.to.items()))) for entry in found.distribute),
        tuple((entry.from_, entry.to) for entry in found.failover),
        tuple(found.failover_priority),
    )


def _unknown(key: Key, found: traffic_policy.TrafficPolicy | None, where: str) -> Iterator[Notice]:
    if found is None:
        return
    yield from _unknown_of(key, found, where)
    for number, entry in enumerate(found.port_level_settings):
        yield from _unknown_of(key, entry, f"{where}.portLevelSettings[{number}]")
    if found.retry_budget and found.retry_budget.budget_interval:
        text = "the budget is of the requests under way, not of those of a time"
        yield from unsupported(key, [(f"{where}.retryBudget.budgetInterval", True, text)])


def _unknown_of(key: Key, found: traffic_policy.PortPolicy, where: str) -> Iterator[Notice]:
    http = found.connection_pool.http if found.connection_pool and found.connection_pool.http else None
    balancer = found.load_balancer
    warmup = balancer.warmup if balancer else None
    cookie = balancer.consistent_hash.http_cookie if balancer and balancer.consistent_hash else None
    pool, chosen = f"{where}.connectionPool.http", f"{where}.loadBalancer"
    yield from unsupported(
        key,
        [
            (
                f"{pool}.useClientProtocol",
                http and http.use_client_protocol,
                "proxies speak as the port's protocol says",
            ),
            (f"{pool}.http2KeepAlive", http and http.http2_keep_alive, "proxies ask every 30s and wait for 5s"),
            (
                f"{chosen}.warmup",
                warmup and (warmup.minimum_percent is not None or warmup.aggression is not None),
                "of a warm-up only the duration counts, shares grow evenly",
            ),
            (
                f"{chosen}.consistentHash.httpCookie.attributes",
                cookie and cookie.attributes,
                "only name, path and ttl count",
            ),
        ],
    )
