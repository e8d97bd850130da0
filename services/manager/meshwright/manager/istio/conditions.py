"""Matches of VirtualServices as conditions of the inner model, and what fits two of them at once (delegates)."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from meshwright.manager.istio import connection_route, http_route, names
from meshwright.manager.model.routing import CallerMatch, ConnectionMatch, HttpMatch, Text, TextMatch

T = TypeVar("T")


def _callers(labels: dict[str, str], namespace: str | None) -> CallerMatch | None:
    return CallerMatch(namespace or "", tuple(sorted(labels.items()))) if labels or namespace else None


def request(found: http_route.HttpMatchRequest, namespace: str) -> HttpMatch:
    """Return the condition on requests."""
    headers = [(name, match.condition()) for name, match in sorted(found.headers.items())]
    headers += [(name, match.condition(negated=True)) for name, match in sorted(found.without_headers.items())]
    method = found.method.condition() if found.method else None
    if method is not None and method.kind is not Text.EXACT:
        headers.append((":method", method))
    return HttpMatch(
        found.uri.condition(ignore_case=found.ignore_uri_case) if found.uri else None,
        (method.value,) if method is not None and method.kind is Text.EXACT else (),
        tuple(headers),
        tuple((name, match.condition()) for name, match in sorted(found.query_params.items())),
        found.authority.condition() if found.authority else None,
        found.scheme.condition() if found.scheme else None,
        found.port,
        _callers(found.source_labels, found.source_namespace),
        names.gateways(found.gateways, namespace),
    )


def client_hello(found: connection_route.TlsMatchAttributes, namespace: str) -> ConnectionMatch:
    """Return the condition on TLS connections."""
    return ConnectionMatch(
        tuple(found.sni_hosts),
        tuple(found.destination_subnets),
        port=found.port,
        callers=_callers(found.source_labels, found.source_namespace),
        gateways=names.gateways(found.gateways, namespace),
    )


def connection(found: connection_route.L4MatchAttributes, namespace: str) -> ConnectionMatch:
    """Return the condition on connections."""
    return ConnectionMatch(
        (),
        tuple(found.destination_subnets),
        (found.source_subnet,) if found.source_subnet else (),
        found.port,
        _callers(found.source_labels, found.source_namespace),
        names.gateways(found.gateways, namespace),
    )


def both(outer: tuple[HttpMatch, ...], inner: tuple[HttpMatch, ...]) -> tuple[HttpMatch, ...] | None:
    """Return what fits any of `outer` and any of `inner`; None: no request does. An empty tuple fits every request."""
    if not outer or not inner:
        return outer or inner
    found = [match for one in outer for other in inner if (match := _both(one, other)) is not None]
    return tuple(found) or None


class _ContradictionError(Exception):
    """No request fits both."""


def _both(one: HttpMatch, other: HttpMatch) -> HttpMatch | None:
    try:
        return HttpMatch(
            _narrower(one.path, other.path),
            _same(one.methods, other.methods, ()),
            _united(one.headers, other.headers),
            _united(one.query, other.query),
            _same(one.authority, other.authority, None),
            _same(one.scheme, other.scheme, None),
            _same(one.port, other.port, None),
            _joined(one.callers, other.callers),
            _same(one.gateways, other.gateways, ()),
        )
    except _ContradictionError:
        return None


def _same(one: T, other: T, nothing: T) -> T:
    if one != nothing and other != nothing and one != other:
        raise _ContradictionError
    return other if one == nothing else one


def _narrower(one: TextMatch | None, other: TextMatch | None) -> TextMatch | None:
    if one is None or other is None or one == other:
        return one or other
    if one.kind is Text.PREFIX and other.kind in (Text.PREFIX, Text.EXACT):
        fold = one.ignore_case
        begins, text = (one.value.lower(), other.value.lower()) if fold else (one.value, other.value)
        if text.startswith(begins) and other.ignore_case <= fold:
            return other
    raise _ContradictionError


def _united(
    one: tuple[tuple[str, TextMatch], ...], other: tuple[tuple[str, TextMatch], ...]
) -> tuple[tuple[str, TextMatch], ...]:
    known = dict(one)
    for name, match in other:
        if known.setdefault(name, match) != match and not match.negated and not known[name].negated:
            raise _ContradictionError
    return tuple(dict.fromkeys((*one, *other)))


def _joined(one: CallerMatch | None, other: CallerMatch | None) -> CallerMatch | None:
    if one is None or other is None:
        return one or other
    labels = dict(one.labels)
    for name, value in other.labels:
        if labels.setdefault(name, value) != value:
            raise _ContradictionError
    namespace = _same(one.namespace, other.namespace, "")
    return replace(one, namespace=namespace, labels=tuple(sorted(labels.items())))
