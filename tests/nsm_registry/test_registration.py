"""Registering: who may, what is refused and why, how long it lives (nsm.md, pitfalls 2, 3, 5)."""

from __future__ import annotations

import json
from datetime import UTC, timedelta

import grpc
import pytest

from meshwright.nsm import registry_path, tokens
from meshwright.nsm.registry_path import RegistryPath
from meshwright.nsm.wire import NetworkService, NetworkServiceEndpoint
from pki import Pki

pytestmark = pytest.mark.usefixtures("grpc_front")

PATH = '{"Index":0,"PathSegments":[{"token":""}]}'


def endpoint(name: str = "vpn-1", **fields: object) -> NetworkServiceEndpoint:
    return NetworkServiceEndpoint(name=name, network_service_names=["vpn"], url="tcp://10.0.0.1:5001", **fields)


async def test_what_is_registered_is_found_and_gone_after_unregister(mesh, pki: Pki) -> None:
    """Service and endpoint, with the hops' identities and the time of registration."""
    caller = mesh.caller(pki.workload("vpn"))
    await caller.register(NetworkService(name="vpn", payload="IP"))
    registered = await caller.register(endpoint())
    assert list(registered.path_ids) == [caller.svid.spiffe_id, mesh.svid.spiffe_id]
    assert registered.initial_registration_time.ToDatetime(tzinfo=UTC) == mesh.clock.now()
    assert await caller.find(NetworkService(name="vpn")) == await caller.find(NetworkService(payload="IP"))
    assert await caller.find(NetworkServiceEndpoint(name="vpn-1")) == [registered]
    await caller.unregister(registered)
    assert await caller.find(NetworkServiceEndpoint()) == []
    await caller.unregister(registered)


async def test_the_path_comes_back_in_the_headers(mesh, pki: Pki) -> None:
    """With the caller's token in its place, the registry's after it, and the index unchanged."""
    caller = mesh.caller(pki.workload("vpn"))
    call = caller.stub(endpoint()).Register(endpoint(), metadata=caller.metadata())
    await call
    answered = json.loads(dict(await call.initial_metadata())["path"])
    assert answered["Index"] == 0
    subjects = [tokens.parse(segment["token"]).subject for segment in answered["PathSegments"]]
    assert subjects == [caller.svid.spiffe_id, mesh.svid.spiffe_id]


@pytest.mark.parametrize(
    ("change", "code", "reason"),
    [
        ({"path": None}, "PERMISSION_DENIED", "metadata path is missing"),
        ({"token": False}, "PERMISSION_DENIED", "nsm-client-token is missing"),
        ({"audience": "spiffe://mesh.local/ns/x/sa/x"}, "PERMISSION_DENIED", "not for spiffe"),
        ({"lifetime": timedelta(seconds=-1)}, "PERMISSION_DENIED", "expired at"),
        ({"path": '{"Index":0,"PathSegments":[null]}'}, "INVALID_ARGUMENT", r"PathSegments\[0\]: isn't an object"),
        ({"path": "["}, "INVALID_ARGUMENT", "isn't JSON"),
        ({"path": '{"Index":7,"PathSegments":[{"token":"t"}]}'}, "INVALID_ARGUMENT", "is 7 in a path of 1"),
    ],
)
async def test_without_proof_nothing_is_registered(mesh, pki: Pki, change, code: str, reason: str) -> None:
    """Each refusal says what is missing; the registry goes on (a null segment kills the original)."""
    caller = mesh.caller(pki.workload("vpn"))
    with pytest.raises(grpc.aio.AioRpcError, match=reason) as refused:
        await caller.register(endpoint(), **change)
    assert refused.value.code().name == code
    assert await caller.find(NetworkServiceEndpoint()) == []


async def test_a_token_of_another_member_is_refused(mesh, pki: Pki) -> None:
    """The subject must be the certificate's (an upstream defect lets one act as another)."""
    caller = mesh.caller(pki.workload("vpn"))
    with pytest.raises(grpc.aio.AioRpcError, match="not signed by the certificate"):
        await caller.register(endpoint(), signer=pki.workload("other"))


async def test_the_first_who_registers_a_name_owns_it(mesh, pki: Pki) -> None:
    """Nobody else changes or removes it, also after it expired; unregistering frees the name."""
    owner, other = mesh.caller(pki.workload("vpn")), mesh.caller(pki.workload("other"))
    registered = await owner.register(endpoint())
    for attempt in (other.register, other.unregister):
        with pytest.raises(grpc.aio.AioRpcError, match=r"vpn-1 belongs to .*/sa/vpn, not to .*/sa/other") as refused:
            await attempt(endpoint())
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    await mesh.clock.advance(3000)
    await mesh.registry.expiry.sweep()
    assert await owner.find(NetworkServiceEndpoint()) == []
    with pytest.raises(grpc.aio.AioRpcError, match="belongs to"):
        await other.register(endpoint())
    await owner.unregister(registered)
    await other.register(endpoint())


async def test_only_a_manager_registers_for_others(mesh, pki: Pki) -> None:
    """The owner is the first hop; a path that anybody else makes up is refused."""
    workload, manager, stranger = pki.workload("vpn"), mesh.caller(pki.part("nsmgr")), mesh.caller(pki.workload("x"))
    for caller in (manager, stranger):
        first = tokens.issue(workload, caller.svid.spiffe_id, mesh.clock.now() + timedelta(minutes=1))
        caller.path = RegistryPath(1, (first.text, ""))
    registered = await manager.register(endpoint())
    assert registered.path_ids[0] == workload.spiffe_id
    with pytest.raises(grpc.aio.AioRpcError, match="may not register for others"):
        await stranger.register(endpoint("another"))
    mine = mesh.caller(workload)
    await mine.unregister(registered)
    assert await mine.find(NetworkServiceEndpoint()) == []
    wrong = tokens.issue(workload, stranger.svid.spiffe_id, mesh.clock.now() + timedelta(minutes=1))
    manager.path = RegistryPath(1, (wrong.text, ""))
    with pytest.raises(grpc.aio.AioRpcError, match="wasn't made for"):
        await manager.register(endpoint())


async def test_life_is_the_shortest_of_wish_and_tokens_and_not_the_deadline(mesh, pki: Pki) -> None:
    """The original takes the call's remaining deadline off the registration's life."""
    caller = mesh.caller(pki.workload("vpn"))
    now = mesh.clock.now()

    async def life(name: str, wish: timedelta | None, **change: object) -> timedelta:
        message = endpoint(name)
        if wish is not None:
            message.expiration_time.FromDatetime(now + wish)
        call = caller.stub(message).Register(message, metadata=caller.metadata(**change), timeout=5.0)
        return (await call).expiration_time.ToDatetime(tzinfo=UTC) - now

    assert await life("a", None) == timedelta(seconds=60)
    assert await life("b", timedelta(seconds=6)) == timedelta(seconds=6)
    assert timedelta(minutes=9) < await life("c", timedelta(hours=5)) <= timedelta(minutes=10)
    assert await life("d", timedelta(minutes=5), lifetime=timedelta(seconds=30)) <= timedelta(seconds=30)
    with pytest.raises(grpc.aio.AioRpcError, match="expiration_time: has passed"):
        await life("e", timedelta(seconds=-1))


async def test_a_refresh_keeps_the_time_of_the_first_registration(mesh, pki: Pki) -> None:
    caller = mesh.caller(pki.workload("vpn"))
    first = await caller.register(endpoint())
    await mesh.clock.advance(20)
    again = await caller.register(endpoint())
    assert again.initial_registration_time == first.initial_registration_time
    assert again.expiration_time.ToDatetime() > first.expiration_time.ToDatetime()
    await mesh.clock.advance(45)  # beyond the first life, within the second
    await mesh.registry.expiry.sweep()
    assert len(await caller.find(NetworkServiceEndpoint())) == 1
    await mesh.clock.advance(20)
    await mesh.registry.expiry.sweep()
    assert await caller.find(NetworkServiceEndpoint()) == []


async def test_a_restarted_registry_gives_time_to_come_back(mesh, pki: Pki) -> None:
    """While it was away nobody could refresh: what expired meanwhile is judged after a grace."""
    caller = mesh.caller(pki.workload("vpn"))
    await caller.register(endpoint())
    await mesh.clock.advance(3000)
    await mesh.replica()
    caller = mesh.caller(pki.workload("vpn"))
    await mesh.registry.expiry.sweep()
    assert len(await caller.find(NetworkServiceEndpoint())) == 1
    await mesh.clock.advance(30)
    await mesh.registry.expiry.sweep()
    assert await caller.find(NetworkServiceEndpoint()) == []


@pytest.mark.parametrize("mesh", [{"arguments": ["--name-ownership", "600"]}], indirect=True)
async def test_a_name_is_free_after_its_reservation(mesh, pki: Pki) -> None:
    """Generated names of killed endpoints don't pile up for ever."""
    caller = mesh.caller(pki.workload("vpn"))
    await caller.register(endpoint())
    for _ in range(2):
        await mesh.clock.advance(700)
        await mesh.registry.expiry.sweep()
    assert len(mesh.registry.endpoints.directory) == 0
    assert (await mesh.store.list("/meshwright/nsm/"))[0] == []
    await mesh.caller(pki.workload("other")).register(endpoint())


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (endpoint(""), "name: .* can't be a name"),
        (endpoint("x" * 300), "name: .* can't be a name"),
        (endpoint("a\nb"), "name: .* can't be a name"),
        (NetworkServiceEndpoint(name="a", url="tcp://h:1"), "network_service_names: is empty"),
        (NetworkServiceEndpoint(name="a", network_service_names=["vpn"]), "url: must have"),
        (NetworkServiceEndpoint(name="a", network_service_names=["v"] * 65, url="u"), "has more than 64"),
        (endpoint(network_service_labels={"vpn": {"labels": {"x": "y" * 70_000}}}), "message: 70.* octets"),
        (NetworkService(name=""), "name: .* can't be a name"),
    ],
)
async def test_what_can_not_be_kept_names_the_field(mesh, pki: Pki, message, reason: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=reason) as refused:
        await mesh.caller(pki.workload("vpn")).register(message)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("mesh", [{"arguments": ["--max-endpoints", "2"]}], indirect=True)
async def test_a_full_registry_says_which_limit(mesh, pki: Pki) -> None:
    """Those that are registered can still refresh."""
    caller = mesh.caller(pki.workload("vpn"))
    await caller.register(endpoint("a"))
    await caller.register(endpoint("b"))
    with pytest.raises(grpc.aio.AioRpcError, match="--max-endpoints") as refused:
        await caller.register(endpoint("c"))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await caller.register(endpoint("a"))


async def test_replicas_show_one_registry(mesh, pki: Pki) -> None:
    """Registered with one, found with the other; two that register a name at once: one owns it."""
    first = mesh.caller(pki.workload("vpn"))
    second_address = await mesh.replica()
    second = mesh.caller(pki.workload("other"), second_address)
    watching = second.stream(NetworkServiceEndpoint(), watch=True)
    await first.register(endpoint())
    assert (await watching.read()).network_service_endpoint.name == "vpn-1"
    with pytest.raises(grpc.aio.AioRpcError, match="belongs to"):
        await second.register(endpoint())
    watching.cancel()


async def test_metadata_of_any_shape_ends_in_an_answer(mesh, pki: Pki) -> None:
    """Whatever comes as path or token, the registry answers and goes on."""
    caller = mesh.caller(pki.workload("vpn"))
    for path in ("", "null", "{}", '{"index":0,"pathsegments":[{"TOKEN":null}]}', "0", '"x"', "\u007b" * 5000):
        try:
            await caller.register(endpoint(), path=path)
        except grpc.aio.AioRpcError as refused:
            assert refused.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED)
    for token in ("", "a.b.c", "....", "x" * 20_000):
        with pytest.raises(grpc.aio.AioRpcError):
            await caller.stub(endpoint()).Register(
                endpoint(), metadata=[(tokens.METADATA, token), (registry_path.METADATA, PATH)]
            )
    assert len(await caller.find(NetworkServiceEndpoint())) == 1
