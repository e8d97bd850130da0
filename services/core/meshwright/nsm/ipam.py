"""Point-to-point addresses: two neighbouring host addresses of a prefix for each connection.

One decision to know: a connection that comes with addresses of the prefix keeps them if nobody else has them. So an
endpoint that restarted, and knows nothing, gives back what its clients still use.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, MutableSequence

from meshwright.nsm.errors import InvalidMechanism, NoAddress
from meshwright.nsm.wire import Connection, Route

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class PointToPoint:
    """The pairs of one prefix; the lower address is the endpoint's, the upper the client's, as in the original."""

    def __init__(self, prefix: str) -> None:
        try:
            self._network: Network = ipaddress.ip_network(prefix)
        except ValueError as error:
            raise InvalidMechanism(
                f"{prefix!r}: {error}", field="prefix", remedy="for example 172.16.0.0/24"
            ) from error
        if self._network.num_addresses < 2:
            raise InvalidMechanism(f"{prefix} has no pair of addresses", field="prefix", remedy="give a wider prefix")
        self._by_connection: dict[str, int] = {}
        self._used: set[int] = set()
        self._next = 0

    def assign(self, identifier: str, connection: Connection) -> None:
        """Put the connection's addresses and routes into its context; raise NoAddress when all are in use."""
        context = connection.context.ip_context
        pair = self._by_connection.get(identifier)
        if pair is None:
            excluded = _networks(context.excluded_prefixes)
            pair = self._claimed(context.src_ip_addrs, context.dst_ip_addrs)
            if pair is None:
                pair = self._free(excluded)
            self._by_connection[identifier] = pair
            self._used.add(pair)
        endpoint, client = self._network[2 * pair], self._network[2 * pair + 1]
        _put(context.src_ip_addrs, client, self._network)
        _put(context.dst_ip_addrs, endpoint, self._network)
        _route(context.src_routes, endpoint)
        _route(context.dst_routes, client)

    def release(self, identifier: str) -> None:
        """Give a connection's addresses back."""
        pair = self._by_connection.pop(identifier, None)
        if pair is not None:
            self._used.discard(pair)

    def _claimed(self, sources: Iterable[str], destinations: Iterable[str]) -> int | None:
        clients, endpoints = set(sources), set(destinations)
        for text in clients:
            try:
                address = ipaddress.ip_interface(text).ip
            except ValueError:
                continue
            if address.version != self._network.version or address not in self._network:
                continue
            pair = (int(address) - int(self._network.network_address)) // 2
            endpoint, client = self._network[2 * pair], self._network[2 * pair + 1]
            if address == client and _host(endpoint) in endpoints and pair not in self._used:
                return pair
        return None

    def _free(self, excluded: list[Network]) -> int:
        count = self._network.num_addresses // 2
        for offset in range(min(count, len(self._used) + 65_536)):
            pair = (self._next + offset) % count
            if pair in self._used:
                continue
            addresses = self._network[2 * pair], self._network[2 * pair + 1]
            if not any(address in network for address in addresses for network in excluded):
                self._next = pair + 1
                return pair
        raise NoAddress(f"no free pair of addresses in {self._network} (close connections, or serve a wider prefix)")


def _host(address: Address) -> str:
    return f"{address}/{address.max_prefixlen}"


def _networks(prefixes: Iterable[str]) -> list[Network]:
    networks: list[Network] = []
    for position, prefix in enumerate(prefixes):
        try:
            networks.append(ipaddress.ip_network(prefix, strict=False))
        except ValueError as error:
            raise InvalidMechanism(str(error), field=f"context.ip_context.excluded_prefixes[{position}]") from error
    return networks


def _put(addresses: MutableSequence[str], address: Address, own: Network) -> None:
    """Make `address` the only one of this prefix and family, and leave those of other endpoints' prefixes."""
    kept = [text for text in addresses if ipaddress.ip_interface(text).ip not in own]
    addresses[:] = [*kept, _host(address)]


def _route(routes: MutableSequence[Route], address: Address) -> None:
    prefix = _host(address)
    if not any(route.prefix == prefix for route in routes):
        routes.append(Route(prefix=prefix))
