"""Every rule of Envoy's document "xDS REST and gRPC protocol" that a server has to keep, in both variants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from xds_clients import DeltaClient, SotwClient, XdsClient, cluster, endpoints, listener, routes

from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from meshwright.core import errors
from meshwright.manager.xds import subscription, types
from meshwright.manager.xds.cache import Cache
from meshwright.manager.xds.subscription import DeltaRequest, Request, Subscription

BOTH = pytest.mark.parametrize("make", [SotwClient, DeltaClient], ids=["world", "increments"])
Make = Callable[[], Any]


class Server:
    """A group's resources."""

    def __init__(self, *put: Any) -> None:
        self.cache = Cache()
        self.cache.update("g", put)

    def put(self, *messages: Any) -> Any:
        """Set resources; return what clients are to have now."""
        self.cache.update("g", messages)
        return self.cache.contents("g")

    def remove(self, type_url: str, *names: str, put: tuple[Any, ...] = ()) -> Any:
        """Remove resources."""
        self.cache.update("g", put, [(type_url, name) for name in names])
        return self.cache.contents("g")

    @property
    def now(self) -> Any:
        """What clients are to have."""
        return self.cache.contents("g")


def whole() -> Server:
    """Two clusters with endpoints, and a listener whose routes lead to the first."""
    clusters = [made for name in ("a", "b") for made in (cluster(name), endpoints(name))]
    return Server(*clusters, listener("l", "r"), routes("r", ["a"]))


def connected(make: Make, server: Server) -> Any:
    client = make()
    client.follows = True
    client.ask(types.CLUSTER)
    client.ask(types.LISTENER)
    client.settle(server.now)
    return client


# Subscribing


@BOTH
@pytest.mark.parametrize("names", [(), ("*",)], ids=["legacy", "star"])
def test_a_wildcard_gets_everything(make: Make, names: tuple[str, ...]) -> None:
    client = make()
    client.ask(types.CLUSTER, *names)
    client.settle(Server(cluster("a"), cluster("b")).now)
    assert sorted(client.have[types.CLUSTER]) == ["a", "b"]


@BOTH
def test_only_listeners_and_clusters_have_the_legacy_wildcard(make: Make) -> None:
    client = make()
    client.ask(types.ENDPOINT)
    assert client.settle(Server(endpoints("a")).now) == []


@BOTH
def test_a_star_means_everything_of_any_type(make: Make) -> None:
    client = make()
    client.ask(types.ENDPOINT, "*")
    server = Server(endpoints("a"))
    assert client.settle(server.now) == [("ClusterLoadAssignment", ["a"], [])]
    assert client.settle(server.put(endpoints("b"))) == [("ClusterLoadAssignment", ["b"], [])]


@BOTH
def test_names_get_what_they_name(make: Make) -> None:
    client = make()
    client.ask(types.CLUSTER, "a")
    server = Server(cluster("a"), cluster("b"))
    assert client.settle(server.now) == [("Cluster", ["a"], [])]
    assert client.settle(server.put(cluster("b", 2))) == [], "nobody asked for it"


@BOTH
def test_more_names_get_more(make: Make) -> None:
    client = make()
    client.ask(types.ENDPOINT, "a")
    server = Server(endpoints("a"), endpoints("b"))
    client.settle(server.now)
    client.ask(types.ENDPOINT, "a", "b") if make is SotwClient else client.ask(types.ENDPOINT, "b")
    assert client.settle() == [("ClusterLoadAssignment", ["b"], [])]


def test_world_clusters_come_whole_with_every_change() -> None:
    server = Server(cluster("a"), cluster("b"))
    client = SotwClient()
    client.ask(types.CLUSTER)
    client.settle(server.now)
    assert client.settle(server.put(cluster("a", 2))) == [("Cluster", ["a", "b"], [])]


def test_increments_have_what_changed_only() -> None:
    server = Server(cluster("a"), cluster("b"))
    client = DeltaClient()
    client.ask(types.CLUSTER)
    client.settle(server.now)
    assert client.settle(server.put(cluster("a", 2))) == [("Cluster", ["a"], [])]


def test_world_star_and_names_of_one_stream() -> None:
    """The document's own example of four requests: nothing, `*` and A, A, nothing again."""
    server = Server(cluster("a"), cluster("b"))
    client = SotwClient()
    client.ask(types.CLUSTER)
    assert client.settle(server.now) == [("Cluster", ["a", "b"], [])]
    client.ask(types.CLUSTER, "*", "a")
    client.settle()
    assert sorted(client.have[types.CLUSTER]) == ["a", "b"]
    client.ask(types.CLUSTER, "a")
    assert client.settle() == []
    assert client.settle(server.put(cluster("b", 2))) == [], "it is no longer asked for"
    assert client.settle(server.put(cluster("a", 2))) == [("Cluster", ["a"], [])]
    client.ask(types.CLUSTER)
    assert client.settle(server.put(cluster("a", 3))) == [], "no name is no longer all of them"


def test_increments_star_and_names_of_one_stream() -> None:
    """The document's own example: nothing, +A, -`*`, -A."""
    server = Server(cluster("a"), cluster("b"))
    client = DeltaClient()
    client.ask(types.CLUSTER)
    assert client.settle(server.now) == [("Cluster", ["a", "b"], [])]
    client.ask(types.CLUSTER, "a")
    assert client.settle() == [("Cluster", ["a"], [])], "what is asked for is sent, whatever was sent before"
    client.ask(types.CLUSTER, unsubscribe=["*"])
    assert client.settle(server.put(cluster("b", 2))) == []
    assert client.settle(server.put(cluster("a", 2))) == [("Cluster", ["a"], [])]
    client.ask(types.CLUSTER, unsubscribe=["a"])
    assert client.settle(server.put(cluster("a", 3), cluster("b", 3))) == []


@BOTH
def test_a_star_can_be_added_to_names(make: Make) -> None:
    server = Server(cluster("a"), cluster("b"))
    client = make()
    client.ask(types.CLUSTER, "a")
    client.settle(server.now)
    client.ask(types.CLUSTER, *(("*", "a") if make is SotwClient else ("*",)))
    client.settle()
    assert sorted(client.have[types.CLUSTER]) == ["a", "b"]


# Unsubscribing


@BOTH
def test_unsubscribing_is_not_answered_and_ends_updates(make: Make) -> None:
    server = Server(endpoints("a"), endpoints("b"))
    client = make()
    client.ask(types.ENDPOINT, "a", "b")
    client.settle(server.now)
    client.ask(types.ENDPOINT, "a") if make is SotwClient else client.ask(types.ENDPOINT, unsubscribe=["b"])
    assert client.settle() == []
    assert client.settle(server.put(endpoints("b", 2))) == []
    client.ask(types.ENDPOINT) if make is SotwClient else client.ask(types.ENDPOINT, unsubscribe=["a"])
    assert client.settle(server.put(endpoints("a", 2))) == []


@BOTH
def test_what_is_asked_for_again_is_sent_again(make: Make) -> None:
    """Although it didn't change: the client has forgotten it meanwhile."""
    server = Server(endpoints("a"), endpoints("b"))
    client = make()
    client.ask(types.ENDPOINT, "a", "b")
    client.settle(server.now)
    client.ask(types.ENDPOINT, "a") if make is SotwClient else client.ask(types.ENDPOINT, unsubscribe=["b"])
    client.settle()
    client.ask(types.ENDPOINT, "a", "b") if make is SotwClient else client.ask(types.ENDPOINT, "b")
    assert client.settle() == [("ClusterLoadAssignment", ["b"], [])]


def test_increments_resubscribing_sends_again() -> None:
    client = DeltaClient()
    client.ask(types.ENDPOINT, "a")
    client.settle(Server(endpoints("a")).now)
    client.ask(types.ENDPOINT, "a")
    assert client.settle() == [("ClusterLoadAssignment", ["a"], [])]


def test_increments_unsubscribing_beside_a_wildcard_tells_what_becomes_of_it() -> None:
    """The client can't know whether the wildcard has it too."""
    client = DeltaClient()
    client.ask(types.CLUSTER, "*", "a", "missing")
    client.settle(Server(cluster("a")).now)
    client.ask(types.CLUSTER, unsubscribe=["a", "missing"])
    assert client.settle() == [("Cluster", ["a"], ["missing"])]


def test_increments_phantom_unsubscriptions_are_ignored() -> None:
    client = DeltaClient()
    client.ask(types.ENDPOINT, "a")
    client.settle(Server(endpoints("a")).now)
    client.ask(types.ENDPOINT, unsubscribe=["never"])
    assert client.settle() == []


# What isn't there


def test_world_says_nothing_of_what_does_not_exist() -> None:
    client = SotwClient()
    client.ask(types.ENDPOINT, "a")
    assert client.settle(Server().now) == []


def test_increments_tell_at_once_what_does_not_exist() -> None:
    client = DeltaClient()
    client.ask(types.ENDPOINT, "a", "b")
    assert client.settle(Server(endpoints("b")).now) == [("ClusterLoadAssignment", ["b"], ["a"])]
    assert client.settle() == [], "once"


@BOTH
def test_what_was_missing_is_sent_when_it_is_created(make: Make) -> None:
    server = Server()
    client = make()
    client.ask(types.ENDPOINT, "a")
    client.settle(server.now)
    assert client.settle(server.put(endpoints("a"))) == [("ClusterLoadAssignment", ["a"], [])]


@BOTH
def test_a_wildcard_on_nothing_is_told_so(make: Make) -> None:
    """Envoy's start waits for the first answer."""
    client = make()
    client.ask(types.CLUSTER)
    assert client.settle(Server().now) == [("Cluster", [], [])]
    assert client.settle() == []


@BOTH
def test_who_comes_before_the_first_resources_waits(make: Make) -> None:
    client = make()
    client.ask(types.CLUSTER)
    assert list(client.subscription.pending()) == []
    assert client.settle(Server(cluster("a")).now) == [("Cluster", ["a"], [])]


# What is removed


@BOTH
def test_a_removed_cluster_goes(make: Make) -> None:
    server = Server(cluster("a"), cluster("b"))
    client = make()
    client.ask(types.CLUSTER)
    client.settle(server.now)
    sent = client.settle(server.remove(types.CLUSTER, "a"))
    assert sent == ([("Cluster", ["b"], [])] if make is SotwClient else [("Cluster", [], ["a"])])
    assert sorted(client.have[types.CLUSTER]) == ["b"]


@BOTH
def test_the_last_one_can_be_removed(make: Make) -> None:
    server = Server(listener("l"))
    client = make()
    client.ask(types.LISTENER)
    client.settle(server.now)
    client.settle(server.remove(types.LISTENER, "l"))
    assert client.have[types.LISTENER] == {}


def test_world_has_no_words_for_removed_routes() -> None:
    server = Server(routes("r"))
    client = SotwClient()
    client.ask(types.ROUTE, "r")
    client.settle(server.now)
    assert client.settle(server.remove(types.ROUTE, "r")) == []
    assert client.settle(server.put(routes("r"))) == [("RouteConfiguration", ["r"], [])], "it came back"


def test_increments_remove_by_name_and_send_what_comes_back() -> None:
    server = Server(routes("r"))
    client = DeltaClient()
    client.ask(types.ROUTE, "r")
    client.settle(server.now)
    assert client.settle(server.remove(types.ROUTE, "r")) == [("RouteConfiguration", [], ["r"])]
    assert client.settle(server.put(routes("r"))) == [("RouteConfiguration", ["r"], [])]


# Reconnecting


def test_increments_send_nothing_that_is_current_after_a_reconnect() -> None:
    client = connected(DeltaClient, whole())
    client.reconnect()
    assert client.settle(whole().now) == [], "another replica has the same resources at the same versions"


def test_increments_send_the_difference_after_a_reconnect() -> None:
    server = whole()
    client = connected(DeltaClient, server)
    server.remove(types.CLUSTER, "b")
    server.put(routes("r", ["a"], 2))
    client.reconnect()
    assert client.settle(server.now) == [("RouteConfiguration", ["r"], []), ("Cluster", [], ["b"])]


def test_increments_of_a_reconnecting_client_that_lost_everything_elsewhere_are_empty() -> None:
    """What it claims to have and doesn't ask for isn't mentioned."""
    client = DeltaClient()
    client.ask(types.ENDPOINT, "a", versions={"a": "1", "other": "1"})
    assert client.settle(Server(endpoints("a")).now) == [("ClusterLoadAssignment", ["a"], [])]


def test_versions_are_of_the_bytes() -> None:
    """Each resource has its own, the same in every replica, and another with every change."""

    def version(server: Server) -> str:
        client = DeltaClient()
        client.ask(types.CLUSTER)
        client.settle(server.now)
        return client.known[types.CLUSTER]["a"]

    first = Server(cluster("a"))
    again = Server(cluster("b"), cluster("a", 2))
    again.put(cluster("a"))
    assert version(first) == version(again) != version(Server(cluster("a", 2)))


def test_world_version_changes_with_its_type_only() -> None:
    server = Server(cluster("a"), listener("l"))
    before = server.now.version(types.CLUSTER), server.now.version(types.LISTENER)
    server.put(listener("l", version=2))
    assert server.now.version(types.CLUSTER) == before[0]
    assert server.now.version(types.LISTENER) != before[1]


# Answers


@BOTH
def test_what_did_not_change_is_never_sent(make: Make) -> None:
    server = whole()
    client = connected(make, server)
    assert client.settle() == []
    assert client.settle(server.put(cluster("a"), endpoints("b"))) == [], "set as it was before"


@BOTH
def test_one_response_of_a_type_is_under_way_and_the_next_has_the_sum(make: Make) -> None:
    server = Server(endpoints("a"), endpoints("b"))
    client = make()
    client.ask(types.ENDPOINT, "a", "b")
    client.offer(server.now)
    [first] = client.subscription.pending()
    for version in (2, 3, 4):
        client.offer(server.put(endpoints("a", version)))
        assert list(client.subscription.pending()) == [], "the first isn't acknowledged yet"
    client.take(first)
    [second] = client.subscription.pending()
    client.take(second)
    assert client.have[types.ENDPOINT]["a"] == endpoints("a", 4)
    assert client.log[-1] == ("ClusterLoadAssignment", ["a"], [])


@BOTH
def test_a_refusal_is_kept_with_the_clients_words_and_sent_again_with_the_next_response(make: Make) -> None:
    server = Server(routes("r"), routes("s"))
    client = make()
    client.ask(types.ROUTE, "r", "s")
    client.settle(server.now)
    client.refuse = {types.ROUTE}
    assert client.settle(server.put(routes("r", version=2))) == [("RouteConfiguration", ["r"], [])], "and not in a loop"
    state = client.subscription.types[types.ROUTE]
    assert state.refused == {"r": "r refused by the test"}
    client.refuse = set()
    assert client.settle(server.put(routes("s", version=2))) == [("RouteConfiguration", ["r", "s"], [])]
    assert (state.refused, state.error) == ({}, "")


@BOTH
def test_a_refusal_is_over_when_what_was_refused_is_no_more(make: Make) -> None:
    server = Server(routes("r"))
    client = make()
    client.ask(types.ROUTE, "r")
    client.refuse = {types.ROUTE}
    client.settle(server.now)
    client.refuse = set()
    client.settle(server.remove(types.ROUTE, "r"))
    state = client.subscription.types[types.ROUTE]
    assert (state.refused, state.error) == ({}, "")


@BOTH
def test_a_refusal_names_whom_the_client_names(make: Make) -> None:
    server = Server(endpoints("one"), endpoints("two"))
    client = make()
    client.ask(types.ENDPOINT, "one", "two")
    client.offer(server.now)
    [raw] = client.subscription.pending()
    if make is SotwClient:
        response: Any = DiscoveryResponse.FromString(raw)
        answer: Any = Request(types.ENDPOINT, frozenset(["one", "two"]), "", response.nonce, "two is malformed")
    else:
        response = DeltaDiscoveryResponse.FromString(raw)
        answer = DeltaRequest(types.ENDPOINT, nonce=response.nonce, error="two is malformed")
    client.subscription.request(answer)
    assert client.subscription.types[types.ENDPOINT].refused == {"one": "", "two": "two is malformed"}


def test_world_stale_nonces_are_ignored_with_what_they_ask_for() -> None:
    server = Server(endpoints("a"), endpoints("b"))
    client = SotwClient()
    client.ask(types.ENDPOINT, "a")
    client.settle(server.now)
    stale = client.nonces[types.ENDPOINT]
    client.offer(server.put(endpoints("a", 2)))
    [raw] = client.subscription.pending()
    client.subscription.request(Request(types.ENDPOINT, frozenset(["a", "b"]), "x", stale))
    assert list(client.subscription.pending()) == []
    client.take(raw)
    assert client.settle() == []
    client.ask(types.ENDPOINT, "a", "b")
    assert client.settle() == [("ClusterLoadAssignment", ["b"], [])]


def test_increments_honour_subscriptions_of_any_nonce() -> None:
    server = Server(endpoints("a"), endpoints("b"))
    client = DeltaClient()
    client.ask(types.ENDPOINT, "a")
    client.settle(server.now)
    client.ask(types.ENDPOINT, "b", nonce="stale")
    assert client.settle() == [("ClusterLoadAssignment", ["b"], [])]


@BOTH
def test_nonces_of_a_stream_never_repeat_although_clients_share_responses(make: Make) -> None:
    server, seen = Server(endpoints("a")), []
    client, other = make(), make()
    other.subscription = Subscription(client.subscription._responses)
    for one in (client, other):
        one.ask(types.ENDPOINT, "a")
        one.offer(server.now)
    assert list(client.subscription.pending()) == list(other.subscription.pending()), "the same bytes for both"
    state = client.subscription.types[types.ENDPOINT]
    for _ in range(3):
        seen.append(state.last_nonce)
        answers = Request(types.ENDPOINT, nonce=state.nonce), Request(types.ENDPOINT, frozenset("a"), nonce=state.nonce)
        if make is SotwClient:
            for answer in answers:
                client.subscription.request(answer)
        else:
            client.subscription.request(DeltaRequest(types.ENDPOINT, frozenset("a"), nonce=state.nonce))
        assert len(list(client.subscription.pending())) == 1
    assert len({*seen, state.last_nonce}) == 4


@BOTH
def test_a_type_that_nobody_serves_is_answered_with_silence(make: Make) -> None:
    client = make()
    client.names["type.googleapis.com/nobody.Knows"] = set()
    client.ask("type.googleapis.com/nobody.Knows", "x")
    sent = client.settle(Server().now) if make is SotwClient else []
    assert sent == []


@BOTH
def test_types_and_names_of_a_stream_are_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscription, "MAX_NAMES", 10)
    client = make()
    client.ask(types.ENDPOINT, *"abcdef")
    with pytest.raises(errors.Exhausted, match="10 resources"):
        client.ask(types.ROUTE, *"ghijk")
    client = make()
    with pytest.raises(errors.Exhausted, match="64 resource types"):
        for number in range(100):
            client.ask(f"type.googleapis.com/x.T{number}")


# Order


@BOTH
def test_first_contact_comes_in_order(make: Make) -> None:
    client = make()
    client.follows = True
    client.ask(types.CLUSTER)
    client.settle(whole().now)
    client.ask(types.LISTENER)
    sent = [*client.log, *client.settle()]
    assert [kind for kind, *_ in sent] == ["Cluster", "ClusterLoadAssignment", "Listener", "RouteConfiguration"]


@BOTH
def test_routes_wait_for_new_clusters_and_old_clusters_for_new_routes(make: Make) -> None:
    server = whole()
    client = connected(make, server)
    moved = server.remove(types.CLUSTER, "a", put=(cluster("c"), endpoints("c"), routes("r", ["c"], 2)))
    server.cache.update("g", remove=[(types.ENDPOINT, "a")])
    sent = client.settle(server.now)
    assert moved is not server.now
    kinds = [kind for kind, *_ in sent]
    assert kinds[:3] == ["Cluster", "ClusterLoadAssignment", "RouteConfiguration"]
    assert "a" not in client.have[types.CLUSTER]
    assert kinds[3] == "Cluster"
    assert client.broken == []


@BOTH
def test_a_changed_cluster_gets_its_endpoints_again(make: Make) -> None:
    """Envoy uses it only then (resource warming)."""
    server = whole()
    client = connected(make, server)
    sent = client.settle(server.put(cluster("a", 2)))
    assert [(kind, names) for kind, names, _ in sent][1] == ("ClusterLoadAssignment", ["a"])
    assert len(sent) == 2


@BOTH
def test_refused_clusters_hold_back_routes(make: Make) -> None:
    server = whole()
    client = connected(make, server)
    client.refuse = {types.CLUSTER}
    sent = client.settle(server.put(cluster("c"), endpoints("c"), routes("r", ["c"], 2)))
    assert [kind for kind, *_ in sent] == ["Cluster"]
    client.refuse = set()
    sent = client.settle(server.put(cluster("c", 2)))
    assert [kind for kind, *_ in sent] == ["Cluster", "ClusterLoadAssignment", "RouteConfiguration"]
    assert client.broken == []


@BOTH
def test_who_asks_for_single_clusters_is_not_waited_for(make: Make) -> None:
    """gRPC's clients ask for routes first, and then for the clusters that these name."""
    client = make()
    server = whole()
    client.ask(types.LISTENER, "l")
    client.ask(types.ROUTE, "r")
    client.settle(server.now)
    client.ask(types.CLUSTER, "a")
    client.settle()
    sent = client.settle(server.put(cluster("c"), endpoints("c"), routes("r", ["c"], 2)))
    assert [kind for kind, *_ in sent] == ["RouteConfiguration"]


def test_clients_of_both_variants_have_the_same() -> None:
    server = whole()
    world: XdsClient = connected(SotwClient, server)
    increments: XdsClient = connected(DeltaClient, server)
    assert world.have == increments.have
