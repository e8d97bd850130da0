"""Clients of the xDS protocol for tests: what they have is what they were sent, and they know the rules themselves.

They hold the server's state machine and no transport; `settle` lets both talk until neither has anything to say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from meshwright.api.envoy.config.cluster.v3.cluster_pb2 import Cluster
from meshwright.api.envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from meshwright.api.envoy.config.listener.v3.listener_pb2 import Listener
from meshwright.api.envoy.config.route.v3.route_pb2 import RouteConfiguration
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from meshwright.api.envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from meshwright.api.envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryResponse, DiscoveryResponse
from meshwright.manager.xds import types, wire
from meshwright.manager.xds.cache import Contents
from meshwright.manager.xds.subscription import DeltaRequest, Request, Subscription

_MESSAGES = {
    types.CLUSTER: Cluster,
    types.ENDPOINT: ClusterLoadAssignment,
    types.LISTENER: Listener,
    types.ROUTE: RouteConfiguration,
    types.SECRET: Secret,
}


def cluster(name: str, version: int = 1) -> Cluster:
    """Return an EDS cluster whose content tells its version."""
    made = Cluster(name=name, type=Cluster.EDS, alt_stat_name=str(version))
    made.eds_cluster_config.eds_config.ads.SetInParent()
    return made


def endpoints(name: str, version: int = 1) -> ClusterLoadAssignment:
    """Return a cluster's endpoints: one, at port `version`."""
    made = ClusterLoadAssignment(cluster_name=name)
    address = made.endpoints.add().lb_endpoints.add().endpoint.address.socket_address
    address.address, address.port_value = "127.0.0.1", version
    return made


def listener(name: str, route: str = "", version: int = 1) -> Listener:
    """Return a listener that has its routes by RDS."""
    made = Listener(name=name, stat_prefix=str(version))
    if route:
        manager = HttpConnectionManager(stat_prefix="test")
        manager.rds.route_config_name = route
        manager.rds.config_source.ads.SetInParent()
        made.filter_chains.add().filters.add().typed_config.Pack(manager)
    return made


def routes(name: str, to: Iterable[str] = (), version: int = 1) -> RouteConfiguration:
    """Return routes that lead to clusters; the first virtual host's name tells the version."""
    made = RouteConfiguration(name=name)
    host = made.virtual_hosts.add(name=str(version), domains=["*"])
    for one in to:
        found = host.routes.add()
        found.match.prefix = f"/{one}"
        found.route.cluster = one
    return made


def name_of(message: Any) -> str:
    """Return a resource's name."""
    return str(message.cluster_name if isinstance(message, ClusterLoadAssignment) else message.name)


def unpacked(packed: Any) -> Any:
    """Read a resource."""
    message = _MESSAGES[packed.type_url]()
    assert packed.Unpack(message)
    return message


class XdsClient:
    """What both variants share: what was taken, what follows from it, and the order in which it came."""

    def __init__(self) -> None:
        self.subscription = Subscription()
        self.have: dict[str, dict[str, Any]] = {type_url: {} for type_url in _MESSAGES}
        self.log: list[tuple[str, list[str], list[str]]] = []
        self.refuse: set[str] = set()
        self.broken: list[str] = []
        self.was_whole = False
        self.follows = False  # asks for what resources lead to, as Envoy does

    def offer(self, contents: Contents | None) -> None:
        """Let the server have something new for it."""
        assert contents is not None
        self.subscription.offer(contents)

    def settle(self, contents: Contents | None = None) -> list[tuple[str, list[str], list[str]]]:
        """Take what is due, answer, and go on until nothing is; return (type, resources, removed) of each response."""
        self.log = []
        if contents is not None:
            self.offer(contents)
        while responses := list(self.subscription.pending()):
            for raw in responses:
                self.take(raw)
        return self.log

    def take(self, raw: bytes) -> None:
        """Take one response."""
        raise NotImplementedError

    def follow(self, type_url: str, names: set[str]) -> None:
        """Ask for what resources lead to."""
        raise NotImplementedError

    def _took(self, type_url: str) -> None:
        if not self.follows:
            return
        if type_url == types.CLUSTER:
            self.follow(types.ENDPOINT, {name for name in self.have[types.CLUSTER]})
        if type_url == types.LISTENER:
            led = [wire.resource(name, one).leads for name, one in self.have[types.LISTENER].items()]
            self.follow(types.ROUTE, set().union(*led))
        self._check()

    def _check(self) -> None:
        """Note routes to what isn't there: traffic would be lost. Before it was whole once, there is none to lose."""
        missing = [
            to
            for configuration in self.have[types.ROUTE].values()
            for host in configuration.virtual_hosts
            for to in (route.route.cluster for route in host.routes)
            if to not in self.have[types.CLUSTER] or to not in self.have[types.ENDPOINT]
        ]
        if self.was_whole:
            self.broken += missing
        elif self.have[types.ROUTE]:
            self.was_whole = not missing


class SotwClient(XdsClient):
    """State of the world."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, set[str]] = {}
        self.versions: dict[str, str] = {}
        self.nonces: dict[str, str] = {}

    def ask(self, type_url: str, *names: str) -> None:
        """Send a request with these names."""
        self.names[type_url] = set(names)
        self.subscription.request(
            Request(type_url, frozenset(names), self.versions.get(type_url, ""), self.nonces.get(type_url, ""))
        )

    def reconnect(self) -> None:
        """Begin a new stream, with the versions of the last."""
        self.subscription, self.nonces = Subscription(), {}
        for type_url, names in self.names.items():
            self.ask(type_url, *names)

    def take(self, raw: bytes) -> None:
        """Take one response."""
        response = DiscoveryResponse.FromString(raw)
        type_url, found = response.type_url, {}
        for packed in response.resources:
            message = unpacked(packed)
            assert name_of(message) not in found, "one resource twice in one response"
            found[name_of(message)] = message
        self.log.append((types.short(type_url), sorted(found), []))
        self.nonces[type_url] = response.nonce
        if type_url in self.refuse:
            self._answer(type_url, error=f"{', '.join(found)} refused by the test")
            return
        self.versions[type_url] = response.version_info
        if type_url in types.WILDCARD:
            self.have[type_url] = found
        else:
            self.have[type_url] |= {name: one for name, one in found.items() if name in self.names[type_url]}
        self._answer(type_url)
        self._took(type_url)

    def follow(self, type_url: str, names: set[str]) -> None:
        """Ask for what resources lead to."""
        if type_url not in self.names and not names:
            return
        if names != self.names.get(type_url):
            self.have[type_url] = {name: one for name, one in self.have[type_url].items() if name in names}
            self.ask(type_url, *names)

    def _answer(self, type_url: str, error: str = "") -> None:
        request = Request(
            type_url,
            frozenset(self.names[type_url]),
            self.versions.get(type_url, ""),
            self.nonces[type_url],
            error,
        )
        self.subscription.request(request)


class DeltaClient(XdsClient):
    """Increments."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[str, set[str]] = {}
        self.known: dict[str, dict[str, str]] = {type_url: {} for type_url in _MESSAGES}

    def ask(
        self,
        type_url: str,
        *subscribe: str,
        unsubscribe: Iterable[str] = (),
        versions: Mapping[str, str] | None = None,
        nonce: str = "",
    ) -> None:
        """Send a request."""
        names = self.names.setdefault(type_url, set())
        names |= set(subscribe)
        names -= set(unsubscribe)
        self.subscription.request(
            DeltaRequest(type_url, frozenset(subscribe), frozenset(unsubscribe), dict(versions or {}), nonce)
        )

    def reconnect(self) -> None:
        """Begin a new stream with what it has."""
        self.subscription = Subscription()
        for type_url, names in self.names.items():
            self.ask(type_url, *names, versions=self.known[type_url])

    def take(self, raw: bytes) -> None:
        """Take one response."""
        response = DeltaDiscoveryResponse.FromString(raw)
        type_url = response.type_url
        found = [one.name for one in response.resources]
        assert len({*found, *response.removed_resources}) == len(found) + len(response.removed_resources)
        self.log.append((types.short(type_url), sorted(found), sorted(response.removed_resources)))
        error = f"{', '.join(found)} refused by the test" if type_url in self.refuse else ""
        if not error:
            for one in response.resources:
                message = unpacked(one.resource)
                assert name_of(message) == one.name
                self.have[type_url][one.name] = message
                self.known[type_url][one.name] = one.version
            for name in response.removed_resources:
                self.have[type_url].pop(name, None)
                self.known[type_url].pop(name, None)
        self.subscription.request(DeltaRequest(type_url, nonce=response.nonce, error=error))
        if not error:
            self._took(type_url)

    def follow(self, type_url: str, names: set[str]) -> None:
        """Ask for what resources lead to."""
        before = self.names.get(type_url, set())
        if names != before:
            gone = before - names
            for name in gone:
                self.have[type_url].pop(name, None)
                self.known[type_url].pop(name, None)
            self.ask(type_url, *(names - before), unsubscribe=gone)
