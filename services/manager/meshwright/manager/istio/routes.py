"""VirtualServices as routes of the inner model."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import replace

from meshwright.core.config import Key
from meshwright.manager.istio import conditions, http_route, names
from meshwright.manager.istio.connection_route import RouteDestination
from meshwright.manager.istio.unknown import APPROXIMATED, unsupported
from meshwright.manager.istio.virtual_service import VirtualService
from meshwright.manager.model.meaning import Notice
from meshwright.manager.model.routing import (
    MESH,
    Backend,
    ConnectionRoute,
    Cors,
    Destination,
    Dialect,
    DirectResponse,
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


class Translation:
    """Of one VirtualService; `delegates` are the namespace's VirtualServices without hosts, by name."""

    def __init__(self, key: Key, document: VirtualService, delegates: Mapping[str, VirtualService]) -> None:
        self._key, self._spec, self._delegates = key, document.spec, delegates
        self.notices: list[Notice] = []

    def routes(self) -> Iterator[Routes]:
        """Give the routes of each host."""
        spec, namespace = self._spec, self._key.namespace
        gateways = frozenset(names.gateways(spec.gateways, namespace)) or frozenset((MESH,))
        http = tuple(each for number in range(len(spec.http)) for each in self._http(number))
        connections = (*self._tls(), *self._tcp())
        for number, host in enumerate(spec.hosts):
            yield Routes(
                names.whole(host, namespace),
                Dialect.VIRTUAL_SERVICE,
                http,
                connections,
                exported=names.exported(spec.export_to, namespace),
                gateways=gateways,
                field=f"spec.hosts[{number}]",
            )

    def _http(self, number: int) -> Iterator[HttpRoute]:
        route, where = self._spec.http[number], f"spec.http[{number}]"
        if route.delegate is None:
            yield self._route(self._key, route, where)
            return
        namespace = route.delegate.namespace or self._key.namespace
        found = self._delegates.get(route.delegate.name) if namespace == self._key.namespace else None
        root = self._matches(route)
        if found is None:
            what = f"VirtualService {namespace}/{route.delegate.name}"
            message = (
                f"{what} doesn't exist, or has hosts: its requests get 500 until it does"
                if namespace == self._key.namespace
                else f"{what} is of another namespace, whose delegates aren't followed: its requests get 500"
            )
            self.notices.append(Notice(self._key, f"{where}.delegate", "RefNotFound", message))
            yield HttpRoute(self._key, route.name or "", root)
            return
        yield from self._delegated(route.delegate.name, found, root, where)

    def _delegated(
        self, name: str, found: VirtualService, root: tuple[HttpMatch, ...], where: str
    ) -> Iterator[HttpRoute]:
        key = replace(self._key, name=name)
        for number, inner in enumerate(found.spec.http):
            made = self._route(key, inner, f"spec.http[{number}]")
            matches = conditions.both(root, made.matches)
            if matches is None:
                message = (
                    f"spec.http[{number}] of {key} fits no request that comes here: make its match a part of this one"
                )
                self.notices.append(Notice(self._key, f"{where}.delegate", "Conflicted", message))
            else:
                yield replace(made, matches=matches)

    def _matches(self, route: http_route.HttpRoute) -> tuple[HttpMatch, ...]:
        found = tuple(conditions.request(match, self._key.namespace) for match in route.match)
        return () if HttpMatch() in found else found

    def _route(self, key: Key, route: http_route.HttpRoute, where: str) -> HttpRoute:
        namespace = key.namespace
        self.notices += _unknown(key, route, where)
        retries = route.retries
        return HttpRoute(
            key,
            route.name or "",
            self._matches(route),
            tuple(
                _backend(entry, namespace, f"{where}.route[{number}]", alone=len(route.route) == 1)
                for number, entry in enumerate(route.route)
            ),
            _redirect(route.redirect) if route.redirect else None,
            _response(route.direct_response) if route.direct_response else None,
            _rewrite(route.rewrite, route.match) if route.rewrite else None,
            route.timeout,
            retries=Retries(
                retries.attempts,
                retries.per_try_timeout,
                tuple((retries.retry_on or "").split(",")) if retries.retry_on else (),
                retries.backoff,
                bool(retries.retry_remote_localities),
                retries.retry_ignore_previous_hosts is not False,
            )
            if retries
            else None,
            fault=_fault(route.fault) if route.fault else None,
            mirrors=_mirrors(route, namespace),
            cors=_cors(route.cors_policy) if route.cors_policy else None,
            request_headers=changes(route.headers.request),
            response_headers=changes(route.headers.response),
        )

    def _tls(self) -> Iterator[ConnectionRoute]:
        for number, route in enumerate(self._spec.tls):
            matches = tuple(conditions.client_hello(match, self._key.namespace) for match in route.match)
            yield ConnectionRoute(self._key, "", matches, self._backends(route.route, f"spec.tls[{number}]"))

    def _tcp(self) -> Iterator[ConnectionRoute]:
        for number, route in enumerate(self._spec.tcp):
            matches = tuple(conditions.connection(match, self._key.namespace) for match in route.match)
            yield ConnectionRoute(self._key, "", matches, self._backends(route.route, f"spec.tcp[{number}]"))

    def _backends(self, route: list[RouteDestination], where: str) -> tuple[Backend, ...]:
        return tuple(
            Backend(
                destination(entry.destination, self._key.namespace),
                1 if len(route) == 1 else entry.weight,
                field=f"{where}.route[{number}]",
            )
            for number, entry in enumerate(route)
        )


def destination(found: http_route.Destination, namespace: str) -> Destination:
    """Return where a route leads; without a port a host that has only one is reached there."""
    port = found.port.number if found.port else None
    return Destination(names.whole(found.host, namespace), port, found.subset or "", only_port=port is None)


def changes(operations: http_route.HeaderOperations) -> HeaderChanges:
    """Return what is done to headers."""
    return HeaderChanges(
        tuple(sorted(operations.set.items())), tuple(sorted(operations.add.items())), tuple(operations.remove)
    )


def _backend(entry: http_route.HttpRouteDestination, namespace: str, where: str, *, alone: bool) -> Backend:
    return Backend(
        destination(entry.destination, namespace),
        1 if alone else entry.weight,
        changes(entry.headers.request),
        changes(entry.headers.response),
        field=where,
    )


def _redirect(found: http_route.HttpRedirect) -> Redirect:
    port = found.port
    if found.derive_port == "FROM_PROTOCOL_DEFAULT":
        port = 443 if found.scheme == "https" else 80
    return Redirect(found.redirect_code, found.scheme, found.authority, port, found.uri, found.prefix_rewrite)


def _response(found: http_route.HttpDirectResponse) -> DirectResponse:
    body = found.body
    text = base64.b64decode(body.bytes).decode() if body and body.bytes is not None else body.string if body else ""
    return DirectResponse(found.status, text or "")


def _rewrite(found: http_route.HttpRewrite, matches: list[http_route.HttpMatchRequest]) -> Rewrite:
    prefixed = all(match.uri is None or match.uri.prefix is not None for match in matches)
    regex = found.uri_regex_rewrite
    return Rewrite(
        found.uri if prefixed else None,
        None if prefixed else found.uri,
        (regex.match, regex.rewrite) if regex else None,
        found.authority,
    )


def _share(percentage: http_route.Percent | None, percent: int | None = None) -> float:
    return percentage.value if percentage else float(percent) if percent is not None else 100.0


def _fault(found: http_route.HttpFaultInjection) -> Fault:
    delay, abort = found.delay, found.abort
    return Fault(
        _share(delay.percentage, delay.percent) if delay else 0.0,
        (delay.fixed_delay or delay.exponential_delay or 0.0) if delay else 0.0,
        _share(abort.percentage) if abort else 0.0,
        abort.http_status if abort else None,
        abort.grpc_status if abort else None,
    )


def _mirrors(route: http_route.HttpRoute, namespace: str) -> tuple[Mirror, ...]:
    found = [(each.destination, _share(each.percentage)) for each in route.mirrors]
    if route.mirror is not None:
        found.append((route.mirror, _share(route.mirror_percentage, route.mirror_percent)))
    return tuple(Mirror(destination(where, namespace), percent) for where, percent in found)


def _cors(found: http_route.CorsPolicy) -> Cors:
    old = (TextMatch(Text.PRESENT) if origin == "*" else TextMatch(Text.EXACT, origin) for origin in found.allow_origin)
    origins = (TextMatch(Text.PRESENT) if match.exact == "*" else match.condition() for match in found.allow_origins)
    return Cors(
        (*old, *origins),
        tuple(found.allow_methods),
        tuple(found.allow_headers),
        tuple(found.expose_headers),
        None if found.max_age is None else int(found.max_age),
        found.allow_credentials,
        found.unmatched_preflights != "IGNORE",
    )


def _unknown(key: Key, route: http_route.HttpRoute, where: str) -> Iterator[Notice]:
    named = [number for number, match in enumerate(route.match) if match.stat_prefix]
    for number in named:
        text = "proxies count by service, not by route"
        yield from unsupported(key, [(f"{where}.match[{number}].statPrefix", True, text)])
    delay = route.fault.delay if route.fault else None
    if delay is not None and delay.exponential_delay is not None:
        message = f"every delayed request waits {delay.exponential_delay:g}s, the mean: proxies know fixed delays only"
        yield Notice(key, f"{where}.fault.delay.exponentialDelay", APPROXIMATED, message)
    if (
        route.redirect is not None
        and route.redirect.derive_port == "FROM_PROTOCOL_DEFAULT"
        and not route.redirect.scheme
    ):
        message = "without a scheme the port is 80, plain HTTP's: write scheme too"
        yield Notice(key, f"{where}.redirect.derivePort", APPROXIMATED, message)
