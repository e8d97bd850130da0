"""RouteRules as routes of the inner model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from meshwright.core.config import Key
from meshwright.manager.classic.match import PSEUDO, MatchCondition
from meshwright.manager.classic.message import Caller
from meshwright.manager.classic.route_rule import RouteRule, RouteRuleSpec
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.routing import (
    Backend,
    CallerMatch,
    ConnectionMatch,
    ConnectionRoute,
    Cors,
    Destination,
    Dialect,
    Fault,
    HeaderChanges,
    HttpMatch,
    HttpRoute,
    Mirror,
    Redirect,
    Retries,
    Rewrite,
    Routes,
    Text,
    TextMatch,
)

_REDIRECTED = 301
_ANY = TextMatch(Text.PRESENT)


def routes(rules: Iterable[Parsed], namespace: str) -> Iterator[Routes]:
    """Give the routes of each destination, in the order of precedence."""
    by_host: dict[str, list[tuple[int, str, Parsed, RouteRuleSpec]]] = {}
    for rule in rules:
        assert isinstance(rule.document, RouteRule)
        spec = rule.document.spec
        by_host.setdefault(spec.destination.host(namespace), []).append((-spec.precedence, rule.key.name, rule, spec))
    for host, found in sorted(by_host.items()):
        ordered = [(rule.key, spec) for _, _, rule, spec in sorted(found, key=lambda each: each[:2])]
        of_connections = [(key, spec) for key, spec in ordered if _for_connections(spec)]
        http = [_http(key, spec, host, namespace) for key, spec in ordered if not (spec.match and spec.match.tcp)]
        connections = [_connection(key, spec, host, namespace) for key, spec in of_connections]
        last = ordered[-1][0]
        rest = (Backend(Destination(host)),)
        if http and http[-1].matches:
            http.append(HttpRoute(last, "rest", backends=rest))
        if connections and connections[-1].matches:
            connections.append(ConnectionRoute(last, "rest", backends=rest))
        yield Routes(host, Dialect.ROUTE_RULE, tuple(http), tuple(connections), field="spec.destination")


def notices(key: Key, spec: RouteRuleSpec) -> Iterator[Notice]:
    """Tell what of a rule is done otherwise than it says."""
    delay = spec.http_fault.delay if spec.http_fault else None
    if delay is not None and delay.exponential_delay is not None:
        message = f"every delayed request waits {delay.exponential_delay:g}s, the mean: proxies know fixed delays only"
        yield Notice(key, "spec.httpFault.delay.exponentialDelay", "Approximated", message)


def _for_connections(spec: RouteRuleSpec) -> bool:
    return not spec.http_only and not (spec.match and spec.match.request and spec.match.request.headers)


def _http(key: Key, spec: RouteRuleSpec, host: str, namespace: str) -> HttpRoute:
    match = request_match(spec.match, namespace)
    timeout = spec.http_req_timeout.simple_timeout if spec.http_req_timeout else None
    retry = spec.http_req_retries.simple_retry if spec.http_req_retries else None
    redirect = spec.redirect
    return HttpRoute(
        key,
        matches=(match,) if match else (),
        backends=() if redirect else _backends(spec, host, namespace),
        redirect=Redirect(_REDIRECTED, authority=redirect.authority, path=redirect.uri) if redirect else None,
        rewrite=_rewrite(spec, match),
        timeout_seconds=timeout.timeout if timeout else None,
        timeout_header=timeout.override_header_name or "" if timeout else "",
        retries=Retries(retry.attempts, retry.per_try_timeout) if retry else None,
        retries_header=retry.override_header_name or "" if retry else "",
        fault=_fault(spec),
        mirrors=_mirrors(spec, namespace),
        cors=_cors(spec),
        request_headers=HeaderChanges(add=tuple(sorted((k.lower(), v) for k, v in spec.append_headers.items()))),
        websocket=spec.websocket_upgrade is not False,
    )


def _connection(key: Key, spec: RouteRuleSpec, host: str, namespace: str) -> ConnectionRoute:
    backends = _backends(spec, host, namespace)
    condition = spec.match
    if condition is None or not (condition.tcp or condition.source):
        return ConnectionRoute(key, backends=backends)
    match = ConnectionMatch(
        source_subnets=tuple(condition.tcp.source_subnet) if condition.tcp else (),
        destination_subnets=tuple(condition.tcp.destination_subnet) if condition.tcp else (),
        callers=callers(condition.source, namespace),
    )
    return ConnectionRoute(key, matches=(match,), backends=backends)


def _backends(spec: RouteRuleSpec, host: str, namespace: str) -> tuple[Backend, ...]:
    if not spec.route:
        return (Backend(Destination(host)),)
    alone = len(spec.route) == 1
    return tuple(
        Backend(
            Destination(
                entry.destination.host(namespace) if entry.destination else host,
                labels=tuple(sorted(entry.labels.items())),
            ),
            100 if alone else entry.weight,
            field=f"spec.route[{number}]",
        )
        for number, entry in enumerate(spec.route)
    )


def _rewrite(spec: RouteRuleSpec, match: HttpMatch | None) -> Rewrite | None:
    if spec.rewrite is None:
        return None
    uri, authority = spec.rewrite.uri, spec.rewrite.authority
    prefixed = match is None or match.path is None or match.path.kind is Text.PREFIX
    return Rewrite(uri if prefixed else None, None if prefixed else uri, authority=authority)


def _fault(spec: RouteRuleSpec) -> Fault | None:
    if spec.http_fault is None:
        return None
    delay, abort = spec.http_fault.delay, spec.http_fault.abort
    seconds = (delay.fixed_delay or delay.exponential_delay or 0.0) if delay else 0.0
    return Fault(
        delay.percent if delay else 0.0,
        seconds,
        abort.percent if abort else 0.0,
        abort.http_status if abort else None,
        abort.grpc_status if abort else None,
        delay.override_header_name or "" if delay else "",
        abort.override_header_name or "" if abort else "",
    )


def _mirrors(spec: RouteRuleSpec, namespace: str) -> tuple[Mirror, ...]:
    if spec.mirror is None:
        return ()
    return (Mirror(Destination(spec.mirror.host(namespace), labels=spec.mirror.sorted_labels)),)


def _cors(spec: RouteRuleSpec) -> Cors | None:
    cors = spec.cors_policy
    if cors is None:
        return None
    return Cors(
        tuple(_ANY if origin == "*" else TextMatch(Text.EXACT, origin) for origin in cors.allow_origin),
        tuple(cors.allow_methods),
        tuple(cors.allow_headers),
        tuple(cors.expose_headers),
        None if cors.max_age is None else int(cors.max_age),
        cors.allow_credentials,
    )


def callers(source: Caller | None, namespace: str) -> CallerMatch | None:
    """Return whom a rule is for; a service that is named stands in the rule's namespace if it names none."""
    if source is None:
        return None
    if source.name or source.service:
        return CallerMatch(labels=source.sorted_labels, service=source.host(namespace))
    return CallerMatch(source.namespace or "", source.sorted_labels)


def request_match(condition: MatchCondition | None, namespace: str) -> HttpMatch | None:
    """Return the condition on requests; None: every one fits."""
    if condition is None:
        return None
    headers = condition.request.headers if condition.request else {}
    parts = {name.lower(): match.condition() for name, match in sorted(headers.items())}
    uri, scheme, method, authority = (parts.pop(name, None) for name in PSEUDO)
    whole = method is not None and method.kind is Text.EXACT
    others = list(parts.items())
    if method is not None and not whole:
        others.append((":method", method))
    found = HttpMatch(
        uri,
        (method.value,) if method is not None and whole else (),
        tuple(others),
        authority=authority,
        scheme=scheme,
        callers=callers(condition.source, namespace),
    )
    return found if found != HttpMatch() else None
