"""Which endpoint the forwarder asks, and what it does when one can't."""

from __future__ import annotations

import random

import pytest

from meshwright.core import errors
from meshwright.core.clock import SystemClock
from meshwright.dataplane.agent.discover import DiscoverEndpoint
from meshwright.nsm.chain import Chain, Exchange, Operation, Proceed
from meshwright.nsm.wire import Connection, Match, NetworkService, NetworkServiceEndpoint, NetworkServiceRequest


class Registry:
    """What is registered, in memory."""

    def __init__(self, services: list[NetworkService], endpoints: list[str]) -> None:
        self.services = services
        self.endpoints = [NetworkServiceEndpoint(name=name, network_service_names=["vl"]) for name in endpoints]

    async def find_services(self, wanted: NetworkService, *, timeout: float) -> list[NetworkService]:
        return [service for service in self.services if service.name == wanted.name]

    async def find_endpoints(self, wanted: NetworkServiceEndpoint, *, timeout: float) -> list[NetworkServiceEndpoint]:
        return self.endpoints


class Manager:
    """The next hop's name."""

    name = "nsmgr"


async def ask(registry: Registry, refuse: set[str], **fields: object) -> tuple[str, list[str]]:
    """The endpoint that took the connection, and all that were asked."""
    asked: list[str] = []

    async def endpoint(request: NetworkServiceRequest, exchange: Exchange, proceed: Proceed) -> Connection:
        name = request.connection.network_service_endpoint_name
        asked.append(name)
        assert [hop.name for hop in exchange.next_hops] == ["nsmgr"]
        if name in refuse:
            raise errors.Unavailable(f"{name} is away")
        return request.connection

    chain = Chain(DiscoverEndpoint(registry, Manager(), random.Random(1)), endpoint)  # type: ignore[arg-type]
    clock = SystemClock()
    request = NetworkServiceRequest(connection=Connection(network_service="vl", **fields))
    answer = await chain(request, Exchange(Operation.REQUEST, clock, clock.monotonic() + 5))
    return answer.network_service_endpoint_name, asked


VL = NetworkService(name="vl")


async def test_what_one_endpoint_can_not_do_another_does() -> None:
    taken, asked = await ask(Registry([VL], ["a", "b", "c"]), {"a", "b"})
    assert taken == "c"
    assert set(asked) <= {"a", "b", "c"}


async def test_all_reasons_are_told() -> None:
    with pytest.raises(errors.NotFound, match=r"no endpoint of vl .*is away.*is away"):
        await ask(Registry([VL], ["a", "b"]), {"a", "b"})


async def test_a_connection_stays_with_its_endpoint() -> None:
    assert await ask(Registry([], []), set(), network_service_endpoint_name="b") == ("b", ["b"])


async def test_what_is_missing_is_named() -> None:
    with pytest.raises(errors.NotFound, match="nobody registered the network service 'vl'"):
        await ask(Registry([], ["a"]), set())
    picky = NetworkService(name="vl", matches=[Match(routes=[{"destination_selector": {"app": "x"}}])])
    with pytest.raises(errors.NotFound, match="1 registered, none fits"):
        await ask(Registry([picky], ["a"]), set())
