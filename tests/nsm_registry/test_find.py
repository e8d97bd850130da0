"""Finding and watching (nsm.md, pitfalls 6 and 7)."""

from __future__ import annotations

import time

import grpc
import pytest

from meshwright.nsm.wire import Match, NetworkService, NetworkServiceEndpoint, NetworkServiceLabels
from meshwright.nsm_registry.registry import kinds, watchers
from meshwright.nsm_registry.registry.directory import Directory, Registered
from pki import Pki

pytestmark = pytest.mark.usefixtures("grpc_front")


def endpoint(name: str, *services: str, url: str = "tcp://10.0.0.1:5001", **labels: str) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(
        name=name,
        network_service_names=services or ("vpn",),
        url=url,
        network_service_labels={service: NetworkServiceLabels(labels=labels) for service in services or ("vpn",)},
    )


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (NetworkServiceEndpoint(), ["a", "b", "c"]),
        (NetworkServiceEndpoint(name="a"), ["a"]),
        (NetworkServiceEndpoint(name="^a"), []),
        (NetworkServiceEndpoint(network_service_names=["vpn"]), ["a", "b"]),
        (NetworkServiceEndpoint(network_service_names=["vpn", "dns"]), ["b"]),
        (NetworkServiceEndpoint(network_service_names=["vpn"], url="10.0.0.2"), ["b"]),
        (NetworkServiceEndpoint(url="tcp://10.0.0."), ["a", "b", "c"]),
        (endpoint("", "vpn", url="", zone="1"), ["a"]),
        (endpoint("", "vpn", url="", zone="9"), []),
        (NetworkServiceEndpoint(name="a", network_service_names=["dns"]), []),
    ],
)
async def test_what_a_query_finds(mesh, pki: Pki, query: NetworkServiceEndpoint, found: list[str]) -> None:
    """Names are exact, services a subset, labels a subset for each service, the URL a part."""
    caller = mesh.caller(pki.workload("vpn"))
    await caller.register(endpoint("a", zone="1"))
    await caller.register(endpoint("b", "vpn", "dns", url="tcp://10.0.0.2:5001"))
    await caller.register(endpoint("c", "dns"))
    assert sorted(message.name for message in await caller.find(query)) == found


async def test_services_are_found_by_name_payload_and_matches(mesh, pki: Pki) -> None:
    caller = mesh.caller(pki.workload("vpn"))
    match = Match(source_selector={"app": "x"})
    await caller.register(NetworkService(name="vpn", payload="IP", matches=[match]))
    await caller.register(NetworkService(name="lan", payload="ETHERNET"))
    for query, found in (
        (NetworkService(), ["lan", "vpn"]),
        (NetworkService(payload="IP"), ["vpn"]),
        (NetworkService(name="vpn", payload="ETHERNET"), []),
        (NetworkService(matches=[match]), ["vpn"]),
        (NetworkService(matches=[Match()]), []),
    ):
        assert sorted(message.name for message in await caller.find(query)) == found


async def test_a_watch_tells_the_state_then_every_change(mesh, pki: Pki) -> None:
    """Identical re-registrations are changes too; a removal carries the last object."""
    caller = mesh.caller(pki.workload("vpn"))
    await caller.register(endpoint("a"))
    stream = caller.stream(NetworkServiceEndpoint(network_service_names=["vpn"]), watch=True)
    assert (await stream.read()).network_service_endpoint.name == "a"
    await caller.register(endpoint("b"))
    await caller.register(endpoint("b"))
    await caller.register(endpoint("other", "dns"))
    await caller.unregister(endpoint("a"))
    seen = [await stream.read() for _ in range(3)]
    assert [(found.network_service_endpoint.name, found.deleted) for found in seen] == [
        ("b", False), ("b", False), ("a", True),
    ]  # fmt: skip
    assert seen[2].network_service_endpoint.url == "tcp://10.0.0.1:5001"
    stream.cancel()


async def test_what_stops_fitting_is_told_as_gone(mesh, pki: Pki) -> None:
    """The original stays silent then, and at the later deletion too."""
    caller = mesh.caller(pki.workload("vpn"))
    await caller.register(endpoint("a", zone="1"))
    stream = caller.stream(endpoint("", "vpn", url="", zone="1"), watch=True)
    await stream.read()
    await caller.register(endpoint("a", zone="2"))
    assert (await stream.read()).deleted
    stream.cancel()


async def test_expiry_is_told(mesh, pki: Pki) -> None:
    caller = mesh.caller(pki.workload("vpn"))
    stream = caller.stream(NetworkServiceEndpoint(name="a"), watch=True)
    await caller.register(endpoint("a"))
    assert not (await stream.read()).deleted
    await mesh.clock.advance(120)
    await mesh.registry.expiry.sweep()
    assert (await stream.read()).deleted
    stream.cancel()


async def test_a_slow_watcher_is_dropped_with_the_reason_and_others_go_on(mesh, pki: Pki, monkeypatch) -> None:
    """In the original one watcher that doesn't read holds up everybody."""
    monkeypatch.setattr(watchers, "_QUEUE", 8)
    caller = mesh.caller(pki.workload("vpn"))
    slow = caller.stream(NetworkServiceEndpoint(network_service_names=["vpn"]), watch=True)
    quick = caller.stream(NetworkServiceEndpoint(name="last"), watch=True)
    await caller.register(endpoint("first"))
    await slow.read()
    directory = mesh.registry.endpoints.directory
    for number in range(20):  # in one go, as after an outage: the stream's task doesn't run in between
        directory.put(f"e{number}", Registered(endpoint(f"e{number}"), "o", 1000 + number))
    directory.put("last", Registered(endpoint("last"), "o", 2000))
    with pytest.raises(grpc.aio.AioRpcError, match="changes behind") as dropped:
        while True:
            await slow.read()
    assert dropped.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await quick.read()).network_service_endpoint.name == "last"
    quick.cancel()


async def test_ended_streams_leave_no_watcher(mesh, pki: Pki) -> None:
    import asyncio

    caller = mesh.caller(pki.workload("vpn"))
    streams = [caller.stream(NetworkServiceEndpoint(name=str(number)), watch=True) for number in range(20)]
    held = mesh.registry.endpoints.directory.watchers
    async with asyncio.timeout(10):
        while len(held) < 20:
            await asyncio.sleep(0.01)
        for stream in streams:
            stream.cancel()
        while len(held):
            await asyncio.sleep(0.01)
    assert not held._by_key


def test_the_cost_of_an_operation_does_not_grow_with_the_registry() -> None:
    """Register, find and watch cost about the same among 100 endpoints and among 20,000 (the original's is O(N))."""

    def seconds(count: int) -> float:
        directory = Directory(kinds.ENDPOINTS)
        for number in range(count):
            directory.put(
                f"e{number}", Registered(endpoint(f"e{number}", f"s{number % (count // 10)}"), "o", number + 1)
            )
            directory.watchers.add(NetworkServiceEndpoint(name=f"e{number}"))
        best = 1e9
        for attempt in range(5):
            began = time.perf_counter()
            for number in range(100):
                directory.put("new", Registered(endpoint("new", "s1"), "o", count + 1000 * attempt + number + 1))
                directory.find(NetworkServiceEndpoint(network_service_names=["s1"]))
                directory.find(NetworkServiceEndpoint(name="e5"))
            best = min(best, time.perf_counter() - began)
        return best

    assert seconds(20_000) < 5 * seconds(100)
