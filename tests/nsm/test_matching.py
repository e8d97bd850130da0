"""Which endpoints a client gets (nsm.md, pitfall 11), with weights that count."""

from __future__ import annotations

import random
from collections import Counter

from meshwright.nsm import matching
from meshwright.nsm.wire import Match, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels

SERVICE = "vpn"


def _endpoint(name: str, **labels: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=[SERVICE],
        network_service_labels={SERVICE: NetworkServiceLabels(labels=labels)},
    )


def _names(matches: list[Match], endpoints: list[NetworkServiceEndpoint], seed: int = 0, **labels: str) -> list[str]:
    service = NetworkService(name=SERVICE, matches=matches)
    return [found.name for found in matching.candidates(service, endpoints, labels, random.Random(seed))]


def _to(weight: int = 0, **selector: str):
    return Match(routes=[{"destination_selector": selector, "weight": weight}]).routes[0]


def test_without_matches_every_endpoint_fits() -> None:
    assert sorted(_names([], [_endpoint("a"), _endpoint("b")])) == ["a", "b"]


def test_the_first_source_that_fits_decides() -> None:
    matches = [
        Match(source_selector={"app": "fw"}, routes=[_to(app="gw")]),
        Match(routes=[_to(app="fw")]),
    ]
    endpoints = [_endpoint("fw", app="fw"), _endpoint("gw", app="gw")]
    assert _names(matches, endpoints) == ["fw"]
    assert _names(matches, endpoints, app="fw") == ["gw"]
    assert _names(matches, endpoints[:1], app="fw") == []


def test_falling_through_only_when_said() -> None:
    matches = [Match(routes=[_to(app="x")], fallthrough=True), Match(routes=[_to(app="fw")])]
    assert _names(matches, [_endpoint("fw", app="fw")]) == ["fw"]
    matches[0].fallthrough = False
    assert _names(matches, [_endpoint("fw", app="fw")]) == []


def test_templates_and_their_literal_text() -> None:
    matches = [Match(routes=[_to(node="{{.node}}")])]
    endpoints = [_endpoint("n1", node="n1"), _endpoint("n2", node="n2"), _endpoint("odd", node="{{.node}}")]
    assert sorted(_names(matches, endpoints, node="n2")) == ["n2", "odd"]
    assert _names([Match(routes=[_to(node="{{broken")])], endpoints, node="n2") == []


def test_an_endpoint_of_two_routes_is_one_candidate() -> None:
    matches = [Match(routes=[_to(app="a"), _to()])]
    assert sorted(_names(matches, [_endpoint("a", app="a"), _endpoint("b")])) == ["a", "b"]


def test_an_empty_match_selects_none_and_metadata_alone_all() -> None:
    assert _names([Match()], [_endpoint("a")]) == []
    only_forwarder = Match()
    only_forwarder.metadata.labels["fast"] = "yes"
    assert _names([only_forwarder], [_endpoint("a")]) == ["a"]
    service = NetworkService(name=SERVICE, matches=[only_forwarder])
    assert matching.forwarder_labels(service, {}) == {"fast": "yes"}
    assert matching.forwarder_labels(NetworkService(), {}) == {"p2p": "true"}


def test_weights_are_shares() -> None:
    """A route of weight 3 comes first three times as often as one of weight 1."""
    matches = [Match(routes=[_to(3, app="a"), _to(1, app="b")])]
    endpoints = [_endpoint("a", app="a"), _endpoint("b", app="b")]
    first = Counter(_names(matches, endpoints, seed)[0] for seed in range(2000))
    assert 0.70 < first["a"] / 2000 < 0.80
