"""All that a service's clusters, listeners and routes are made from, and nothing else.

One decision to know: equal subjects give equal resources, so a subject is both the translators' input and what tells
whether they must be asked again. It holds no area: resources that stay must not keep old namespaces in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from meshwright.core.config import Key
from meshwright.manager.model.claims import Claim, Labels, Spoken
from meshwright.manager.model.mesh import Area, Known, Port, Protocol, Service
from meshwright.manager.model.routing import ConnectionRoute, Destination, Dialect, DirectResponse, HttpRoute, Routes
from meshwright.manager.model.traffic import Settings, Subset, TrafficPolicy, settings_of, subsets_of
from meshwright.manager.xds import names
from meshwright.manager.xds.caller import Caller, for_whom

_NO_PORTS: frozenset[int] = frozenset()
NOWHERE = "none"
"""No cluster has this name."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A service. `known` are the services that its routes lead to, by host; one that is missing doesn't exist.

    `http` are the numbers of ports whose connections redirecting proxies take for requests.
    """

    service: Service
    accounts: tuple[str, ...]
    spoken: Spoken
    known: Mapping[str, Known]
    http: frozenset[int]

    @property
    def of_clusters(self) -> Subject:
        """What its clusters are made from: routes are no matter."""
        spoken = Spoken(self.spoken.owner, (), self.spoken.advice, self.spoken.groups)
        return Subject(self.service, self.accounts, spoken, {}, _NO_PORTS)

    @property
    def of_hosts(self) -> Subject:
        """What its virtual hosts are made from."""
        return Subject(self.service, (), self.spoken, self.known, _NO_PORTS)

    @property
    def of_routes(self) -> Subject:
        """What the route configurations of redirecting proxies are made from."""
        return Subject(self.service, (), self.spoken, self.known, self.http)

    @property
    def of_listeners(self) -> Subject:
        """What the listeners of redirecting proxies are made from: routes of connections, if there are any."""
        if all(port.number in self.http for port in self.ports):
            return Subject(self.service, (), Spoken(self.spoken.owner), {}, self.http)
        return self.of_routes

    def refusing(self, why: str) -> Subject:
        """Return the same service with nothing said of it, but that requests and connections are refused."""
        origin = Key("v1", "Service", self.service.namespace, self.service.name)
        http = HttpRoute(origin, response=DirectResponse(503, why))
        routes = Routes(self.service.host, Dialect.GATEWAY_API, (http,), (ConnectionRoute(origin),))
        spoken = Spoken(self.spoken.owner, (Claim(self.spoken.owner, routes),))
        return replace(self, spoken=spoken, known={})

    @property
    def ports(self) -> Iterator[Port]:
        """The ports that proxies carry: all of a cluster's services, else those that speak HTTP."""
        return carried(self.service)

    def policies(self, who: Caller) -> tuple[TrafficPolicy, ...]:
        """Return the policies that hold for a caller."""
        return _policies(self.spoken, who)

    def settings(self, port: Port, who: Caller, subset: str = "") -> Settings:
        """Return the settings of connections to a port."""
        return settings_of(self.policies(who), port.number, subset)

    def subsets(self, who: Caller) -> list[Subset]:
        """Return the subsets that a caller's routes may name, and those that they name by labels."""
        named = subsets_of(self.policies(who))
        groups = (Subset(names.group(labels), labels) for labels in sorted(self.spoken.groups))
        return [*named.values(), *(group for group in groups if group.name not in named)]

    def http_routes(self, port: Port, who: Caller) -> tuple[HttpRoute, ...]:
        """Return the routes of requests to a port."""
        return self.spoken.http(port.number, who.namespace)

    def connection_routes(self, port: Port, who: Caller) -> tuple[ConnectionRoute, ...]:
        """Return the routes of connections to a port."""
        return self.spoken.connections(port.number, who.namespace)

    def cluster(self, destination: Destination, port: Port) -> str | None:
        """Return the cluster of a destination; None: the host exists and has no port of the caller's number.

        A cluster that doesn't exist (yet) is named all the same, so that its share fails.
        """
        found = self.known.get(destination.host)
        wanted = self._port(destination, port, found)
        if wanted is None:
            return None if destination.port is None and not destination.port_name else NOWHERE
        return names.outbound_to(destination.host, wanted, destination.subset or names.group(destination.labels))

    def led_to(self, destination: Destination, port: Port, who: Caller) -> Settings:
        """Return the settings of connections to a destination."""
        found = self.known.get(destination.host)
        wanted = self._port(destination, port, found)
        if found is None or wanted is None:
            return Settings()
        return settings_of(_policies(found.spoken, who), wanted, destination.subset)

    def _port(self, destination: Destination, port: Port, found: Known | None) -> int | None:
        if found is None:
            return destination.port or port.number
        ports = [each for each in carried(found.service) if _alike(each.protocol, port.protocol)]
        if destination.port_name:
            return next((each.number for each in ports if each.name == destination.port_name), None)
        if destination.port is None and destination.only_port and len(found.service.ports) == 1:
            return ports[0].number if ports else None
        wanted = destination.port or port.number
        return wanted if any(each.number == wanted for each in ports) else None


def subject(area: Area, service: Service, http: frozenset[int]) -> Subject:
    """Collect what a service's resources are made from."""
    spoken = area.said_of(service.name)
    hosts = {each.host for claim in spoken.claims for each in claim.routes.destinations}
    found = {host: area.find(host) for host in sorted(hosts)}
    known = {host: _of_interest(each) for host, each in found.items() if each is not None}
    return Subject(service, area.accounts.get(service.name, ()), spoken, known, http)


def carried(service: Service) -> Iterator[Port]:
    """Yield the ports that proxies carry."""
    return (port for port in service.ports if port.protocol is not Protocol.OTHER or service.clustered)


def groups(spoken: Spoken) -> frozenset[Labels]:
    """Return the labels of all parts of a service that need endpoints of their own, whoever calls them."""
    subsets = (subset.labels for _, policy in spoken.advice for subset in policy.subsets)
    return spoken.groups | frozenset(subsets)


def _of_interest(known: Known) -> Known:
    """Leave out the routes of a destination: routes don't lead on from there."""
    spoken = known.spoken
    return Known(known.service, Spoken(spoken.owner, (), spoken.advice)) if spoken.claims or spoken.groups else known


def _policies(spoken: Spoken, who: Caller) -> tuple[TrafficPolicy, ...]:
    return tuple(each for each in spoken.policies(who.namespace) if who.is_any([for_whom(each)]))


def _alike(one: Protocol, other: Protocol) -> bool:
    """Whether what is sent to a port of one protocol may go to one of the other: all of HTTP, or bytes to bytes."""
    return (one is Protocol.OTHER) is (other is Protocol.OTHER)
