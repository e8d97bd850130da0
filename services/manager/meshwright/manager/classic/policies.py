"""DestinationPolicies as traffic policies of the inner model."""

from __future__ import annotations

from meshwright.core.config import Key
from meshwright.manager.classic.destination_policy import DestinationPolicySpec, SimpleCircuitBreaker
from meshwright.manager.classic.routes import callers
from meshwright.manager.model.traffic import Balancing, Ejection, Limits, Settings, Subset, TrafficPolicy

_BALANCING = {
    "ROUND_ROBIN": Balancing.ROUND_ROBIN,
    "LEAST_CONN": Balancing.LEAST_REQUEST,
    "RANDOM": Balancing.RANDOM,
}


def policy(key: Key, spec: DestinationPolicySpec, namespace: str) -> TrafficPolicy:
    """Return what an object says of a service, or of its workloads with the destination's labels."""
    breaker = spec.circuit_breaker.simple_cb if spec.circuit_breaker else None
    balancing = _BALANCING[spec.load_balancing.name] if spec.load_balancing and spec.load_balancing.name else None
    settings = Settings(balancing, limits=_limits(breaker), ejection=_ejection(breaker))
    labels = spec.destination.sorted_labels
    source = callers(spec.source, namespace)
    return TrafficPolicy(
        spec.destination.host(namespace),
        key,
        Settings() if labels else settings,
        subsets=(Subset(",".join(f"{name}={value}" for name, value in labels), labels, settings),) if labels else (),
        exported=frozenset((source.namespace,)) if source and source.namespace else None,
        callers=source.labels if source else (),
        caller_service=source.service if source else "",
    )


def _limits(breaker: SimpleCircuitBreaker | None) -> Limits | None:
    if breaker is None:
        return None
    found = Limits(
        connections=breaker.max_connections or None,
        pending=breaker.http_max_pending_requests or None,
        requests=breaker.http_max_requests or None,
        requests_per_connection=breaker.http_max_requests_per_connection or None,
    )
    return found if found != Limits() else None


def _ejection(breaker: SimpleCircuitBreaker | None) -> Ejection | None:
    if breaker is None:
        return None
    found = Ejection(
        consecutive_5xx=breaker.http_consecutive_errors or None,
        interval_seconds=breaker.http_detection_interval,
        base_seconds=breaker.sleep_window,
        max_percent=breaker.http_max_ejection_percent or None,
    )
    return found if found != Ejection() else None
