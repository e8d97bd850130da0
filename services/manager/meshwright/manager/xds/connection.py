"""What is done with connections that carry bytes: filter chains of a listener, and the TCP proxy in each.

One decision to know: a connection that no route takes is closed, as a request that none takes is refused; only a port
of which nothing is said leads to its service.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence

from google.protobuf.wrappers_pb2 import UInt32Value

from meshwright.api.envoy.config.core.v3.address_pb2 import CidrRange
from meshwright.api.envoy.config.listener.v3.listener_components_pb2 import Filter, FilterChain, FilterChainMatch
from meshwright.api.envoy.extensions.filters.network.tcp_proxy.v3.tcp_proxy_pb2 import TcpProxy
from meshwright.manager.model.routing import ConnectionMatch, ConnectionRoute
from meshwright.manager.xds import names, wire
from meshwright.manager.xds.action import Place
from meshwright.manager.xds.quantity import duration, weights
from meshwright.manager.xds.subject import NOWHERE

_IDLE_SECONDS = 3600
_EVERYTHING = ConnectionMatch()


def chains(place: Place) -> list[FilterChain]:
    """Return a chain for each condition under which connections to a port go somewhere."""
    stated = place.subject.connection_routes(place.port, place.who)
    if not stated:
        return [FilterChain(filters=[_filter(place, [(names.outbound(place.subject.service, place.port), 1)])])]
    # Envoy takes no listener without a chain: where all routes are for others, all connections are closed.
    return list(_stated(stated, place)) or [FilterChain(filters=[_filter(place, [])])]


def _stated(stated: Iterable[ConnectionRoute], place: Place) -> Iterator[FilterChain]:
    seen = set()
    for route in stated:
        for condition in route.matches or (_EVERYTHING,):
            for matched in _matches(condition, place):
                key = matched.SerializeToString(deterministic=True)
                if key not in seen:  # Envoy takes no two chains for the same; the first was to have it
                    seen.add(key)
                    chain = FilterChain(filters=[_filter(place, list(_shares(route, place)))])
                    if matched != FilterChainMatch():
                        chain.filter_chain_match.CopyFrom(matched)
                    yield chain
                    if matched == FilterChainMatch():
                        return  # it takes all, and Envoy would let a later one with conditions come before it


def _matches(condition: ConnectionMatch, place: Place) -> Iterator[FilterChainMatch]:
    if condition.port not in (None, place.port.number) or not place.who.is_any([condition.callers]):
        return
    if condition.gateways and place.gateway not in condition.gateways:
        return
    server_names = [name for name in condition.server_names if name != "*"]
    # One chain for each name and subnet: two routes may share one of them, and the first has it.
    for server_name in server_names or [""]:
        for destination in condition.destination_subnets or ("",):
            for source in condition.source_subnets or ("",):
                yield FilterChainMatch(
                    server_names=[server_name.lower()] if server_name else [],
                    prefix_ranges=[_range(destination)] if destination else [],
                    source_prefix_ranges=[_range(source)] if source else [],
                    transport_protocol="tls" if condition.server_names else "",
                )


def _range(subnet: str) -> CidrRange:
    network = ipaddress.ip_network(subnet, strict=False)
    return CidrRange(address_prefix=str(network.network_address), prefix_len=UInt32Value(value=network.prefixlen))


def _shares(route: ConnectionRoute, place: Place) -> Iterator[tuple[str, int]]:
    for backend in route.backends:
        cluster = NOWHERE if backend.fault else place.subject.cluster(backend.destination, place.port)
        if cluster is not None and backend.weight:
            yield cluster, backend.weight


def _filter(place: Place, shares: list[tuple[str, int]]) -> Filter:
    limits = place.subject.settings(place.port, place.who).limits
    idle = limits.tcp_idle_seconds if limits else None
    return to(f"outbound_{place.port.number}", *shares, idle_seconds=idle)


def to(stat_prefix: str, *shares: tuple[str, int] | str, idle_seconds: float | None = None) -> Filter:
    """Pass bytes on to a cluster, or to one of several by their weights; none: nowhere."""
    proxy = TcpProxy(
        stat_prefix=stat_prefix, idle_timeout=duration(_IDLE_SECONDS if idle_seconds is None else idle_seconds)
    )
    weighted = [share if isinstance(share, tuple) else (share, 1) for share in shares]
    if len(weighted) > 1:
        _weigh(proxy, weighted)
    else:
        proxy.cluster = weighted[0][0] if weighted else NOWHERE
    return Filter(name="envoy.filters.network.tcp_proxy", typed_config=wire.pack(proxy))


def _weigh(proxy: TcpProxy, shares: Sequence[tuple[str, int]]) -> None:
    fitting = weights([weight for _, weight in shares])
    for (cluster, _), weight in zip(shares, fitting, strict=True):
        proxy.weighted_clusters.clusters.add(name=cluster, weight=weight)
