"""What is done with requests that a route takes: envoy.config.route.v3.Route.

A route becomes one of Envoy's for each of its matches, and two where nobody says which requests may be repeated: then
their method decides (`retry`). One decision to know: a route that leads nowhere still takes its requests, and fails
them; left out, it would let another route have them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from google.protobuf.duration_pb2 import Duration
from google.protobuf.wrappers_pb2 import BoolValue, UInt32Value

from meshwright.api.envoy.config.core.v3.base_pb2 import DataSource, RuntimeFractionalPercent
from meshwright.api.envoy.config.route.v3.route_components_pb2 import (
    DirectResponseAction,
    RedirectAction,
    Route,
    RouteAction,
    RouteMatch,
    WeightedCluster,
)
from meshwright.api.envoy.type.matcher.v3.regex_pb2 import RegexMatchAndSubstitute
from meshwright.manager.model.mesh import Port, Protocol
from meshwright.manager.model.routing import (
    MESH,
    Backend,
    HeaderChanges,
    HttpMatch,
    HttpRoute,
    Mirror,
    Redirect,
    Rewrite,
    Text,
    TextMatch,
)
from meshwright.manager.model.traffic import Balancing, Hash
from meshwright.manager.xds import headers, match, names, per_route, retry
from meshwright.manager.xds.caller import Caller
from meshwright.manager.xds.quantity import duration, fraction, weights
from meshwright.manager.xds.subject import NOWHERE, Subject

_REQUEST_SECONDS = 60  # for HTTP/1.1 services; those of HTTP/2 carry calls of any length and their own deadlines
_UPGRADE = "websocket"
_REDIRECTS = {
    301: RedirectAction.MOVED_PERMANENTLY,
    302: RedirectAction.FOUND,
    303: RedirectAction.SEE_OTHER,
    307: RedirectAction.TEMPORARY_REDIRECT,
    308: RedirectAction.PERMANENT_REDIRECT,
}


class Place(NamedTuple):
    """Where requests come by: a service's port, and who calls it; or the port of a `gateway` (NAMESPACE/NAME)."""

    subject: Subject
    port: Port
    who: Caller
    gateway: str = MESH


def default(place: Place) -> list[Route]:
    """Route everything to the service itself."""
    action = RouteAction(cluster=names.outbound(place.subject.service, place.port))
    _deadline(action, None, place.port.protocol)
    return list(_twice(Route(match=match.route_match(match.EVERYTHING), route=action), None, None))


def routes(route: HttpRoute, place: Place) -> Iterator[Route]:
    """Translate a route, as far as it is for the place."""
    for condition in _conditions(route, place):
        if route.cors is not None and condition.methods and "OPTIONS" not in condition.methods:
            # A browser asks before it sends such a request, by a method that the route doesn't name.
            preflight = match.route_match(condition, methods=False)
            preflight.headers.append(match.header(":method", TextMatch(Text.EXACT, "OPTIONS")))
            preflight.headers.append(match.header("access-control-request-method", TextMatch(Text.PRESENT)))
            yield from _routes(route, condition, preflight, place)
        yield from _routes(route, condition, match.route_match(condition), place)


def _conditions(route: HttpRoute, place: Place) -> Iterator[HttpMatch]:
    for condition in route.matches or (match.EVERYTHING,):
        here = condition.port in (None, place.port.number)
        meant = not condition.gateways or place.gateway in condition.gateways
        if here and meant and place.who.is_any([condition.callers]):
            yield condition


def _routes(route: HttpRoute, condition: HttpMatch, matched: RouteMatch, place: Place) -> Iterator[Route]:
    made = Route(name=route.name, match=matched)
    headers.change(made, route.request_headers, route.response_headers)
    for name, configuration in per_route.configurations(route):
        made.typed_per_filter_config[name].CopyFrom(configuration)
    if route.redirect is not None:
        made.redirect.CopyFrom(_redirect(route.redirect, condition.path))
    elif route.response is not None:
        made.direct_response.CopyFrom(response(route.response.status, route.response.body))
        if route.response.content_type:
            made.response_headers_to_add.append(headers.option("content-type", route.response.content_type))
    else:
        action = _action(route, condition, place)
        if isinstance(action, RouteAction):
            made.route.CopyFrom(action)
            yield from _twice(made, route, place)
            return
        made.direct_response.CopyFrom(action)
    yield made


def _twice(made: Route, route: HttpRoute | None, place: Place | None) -> Iterator[Route]:
    """Repeat what may be repeated: as the route says, or else by the request's method."""
    retries = route.retries if route else None
    seconds = (
        retries.per_try_seconds if retries and retries.per_try_seconds else route.attempt_seconds if route else None
    )
    if retries is not None and (retries.on or not retries.attempts):
        if retries.attempts:
            made.route.retry_policy.CopyFrom(retry.stated(retries, seconds))
        yield made
        return
    repeatable = Route()
    repeatable.CopyFrom(made)
    repeatable.match.headers.append(retry.idempotent_methods())
    repeatable.route.retry_policy.CopyFrom(retry.idempotent(retries, seconds))
    made.route.retry_policy.CopyFrom(retry.unreached(retries, seconds))
    yield repeatable
    yield made


def _action(route: HttpRoute, condition: HttpMatch, place: Place) -> RouteAction | DirectResponseAction:
    shares = list(_shares(route.backends, place))
    if not shares:
        status = 503 if any(backend.missing for backend in route.backends) else 500
        host = place.subject.service.host
        return response(status, f"no route of {host} leads to a service that has port {place.port.number}\n")
    action = RouteAction(hash_policy=_hashes(route.backends, place))
    if len(shares) == 1 and not _changes(shares[0][1]):
        action.cluster = shares[0][0]
    else:
        fitting = weights([backend.weight for _, backend in shares])
        for (cluster, backend), weight in zip(shares, fitting, strict=True):
            action.weighted_clusters.clusters.append(_weighted(cluster, backend, weight))
    if not any(backend.missing for backend in route.backends):
        action.cluster_not_found_response_code = RouteAction.INTERNAL_SERVER_ERROR
    _rewrite(action, route.rewrite or Rewrite(), condition.path, headers.authority(route.request_headers))
    _deadline(action, route.timeout_seconds, place.port.protocol)
    action.request_mirror_policies.extend(_mirrors(route.mirrors, place))
    if not route.websocket:
        action.upgrade_configs.add(upgrade_type=_UPGRADE, enabled=BoolValue(value=False))
    return action


def _shares(backends: Iterable[Backend], place: Place) -> Iterator[tuple[str, Backend]]:
    for backend in backends:
        cluster = NOWHERE if backend.fault else place.subject.cluster(backend.destination, place.port)
        if cluster is not None and backend.weight:
            yield cluster, backend


def _changes(backend: Backend) -> bool:
    return HeaderChanges() != backend.request_headers or HeaderChanges() != backend.response_headers


def _weighted(cluster: str, backend: Backend, weight: int) -> WeightedCluster.ClusterWeight:
    made = WeightedCluster.ClusterWeight(name=cluster, weight=UInt32Value(value=weight))
    if authority := headers.authority(backend.request_headers):
        made.host_rewrite_literal = authority
    headers.change(made, backend.request_headers, backend.response_headers)
    return made


def _hashes(backends: Iterable[Backend], place: Place) -> list[RouteAction.HashPolicy]:
    made = []
    for backend in backends:
        settings = place.subject.led_to(backend.destination, place.port, place.who)
        if settings.hash and settings.balancing in (None, Balancing.HASH) and backend.weight:
            policy = _hash(settings.hash)
            if policy is not None and policy not in made:
                made.append(policy)
    return made


def _hash(wanted: Hash) -> RouteAction.HashPolicy | None:
    policy = RouteAction.HashPolicy()
    if wanted.header:
        policy.header.header_name = wanted.header
    elif wanted.cookie:
        policy.cookie.name, policy.cookie.path = wanted.cookie, wanted.cookie_path
        if wanted.cookie_seconds is not None:
            policy.cookie.ttl.CopyFrom(duration(wanted.cookie_seconds))
    elif wanted.query:
        policy.query_parameter.name = wanted.query
    elif wanted.source_address:
        policy.connection_properties.source_ip = True
    else:
        return None
    return policy


def _rewrite(action: RouteAction, rewrite: Rewrite, path: TextMatch | None, authority: str) -> None:
    if rewrite.authority or authority:
        action.host_rewrite_literal = rewrite.authority or authority
    if rewrite.path is not None:
        action.regex_rewrite.CopyFrom(_substitution("^.*$", _literal(rewrite.path)))
    elif rewrite.regex is not None:
        action.regex_rewrite.CopyFrom(_substitution(*rewrite.regex))
    elif rewrite.prefix is not None:
        if (substitution := _segments(path, rewrite.prefix)) is not None:
            action.regex_rewrite.CopyFrom(substitution)
        else:
            action.prefix_rewrite = rewrite.prefix or "/"


def _segments(path: TextMatch | None, prefix: str) -> RegexMatchAndSubstitute | None:
    """Replace whole segments where Envoy's plain replacement would leave two slashes, or none."""
    if path is None or path.kind is not Text.SEGMENTS or not path.value.rstrip("/") or prefix.rstrip("/"):
        return None
    matched = re.escape(path.value.rstrip("/"))
    return _substitution(f"^(?i:{matched})/*" if path.ignore_case else f"^{matched}/*", "/")


def _redirect(wanted: Redirect, path: TextMatch | None) -> RedirectAction:
    made = RedirectAction(response_code=_REDIRECTS.get(wanted.status, RedirectAction.FOUND))
    if wanted.scheme is not None:
        made.scheme_redirect = wanted.scheme
    if wanted.authority is not None:
        made.host_redirect = wanted.authority
    if wanted.port is not None:
        made.port_redirect = wanted.port
    if wanted.path is not None:
        made.path_redirect = wanted.path
    elif wanted.prefix is not None:
        if (substitution := _segments(path, wanted.prefix)) is not None:
            made.regex_rewrite.CopyFrom(substitution)
        else:
            made.prefix_rewrite = wanted.prefix or "/"
    return made


def _substitution(pattern: str, substitution: str) -> RegexMatchAndSubstitute:
    made = RegexMatchAndSubstitute(substitution=substitution)
    made.pattern.regex = pattern
    return made


def _literal(text: str) -> str:
    return text.replace("\\", "\\\\")


def _mirrors(mirrors: Iterable[Mirror], place: Place) -> Iterator[RouteAction.RequestMirrorPolicy]:
    for mirror in mirrors:
        cluster = place.subject.cluster(mirror.destination, place.port)
        if cluster is not None and cluster != NOWHERE and mirror.percent > 0:
            share = RuntimeFractionalPercent(default_value=fraction(mirror.percent))
            yield RouteAction.RequestMirrorPolicy(cluster=cluster, runtime_fraction=share)


def _deadline(action: RouteAction, seconds: float | None, protocol: Protocol) -> None:
    if seconds is not None:
        action.timeout.CopyFrom(duration(seconds))
    elif protocol is Protocol.HTTP1:
        action.timeout.CopyFrom(duration(_REQUEST_SECONDS))
    else:
        action.timeout.CopyFrom(Duration())
    if protocol is not Protocol.HTTP1:
        action.max_stream_duration.grpc_timeout_header_max.CopyFrom(Duration())


def default_deadline(action: RouteAction, protocol: Protocol) -> None:
    """Give a route the mesh's deadline for a protocol."""
    _deadline(action, None, protocol)


def response(status: int, text: str) -> DirectResponseAction:
    """Answer at once."""
    return DirectResponseAction(status=status, body=DataSource(inline_string=text) if text else None)
