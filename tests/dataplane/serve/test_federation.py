"""Peers of other trust domains: known by their own authorities and by no others."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from serve_echo import AsyncEcho, EchoStub
from serve_rig import CLIENT_ID, NO_ISSUER, SERVER_ID, code_of, native_channel, native_server, until

from meshwright.core.identity import StaticIdentity, X509Identity
from pki import Pki

FOREIGN_ID = "spiffe://other.domain/ns/test/sa/client"
PATH = "/meshwright.test.Echo/"


@pytest.fixture(scope="module")
def foreign() -> Pki:
    return Pki()


def knowing(identity: X509Identity, **federated: bytes) -> StaticIdentity:
    """The identity with these trust domains' bundles (`_` stands for the dot)."""
    bundles = {name.replace("_", "."): bundle for name, bundle in federated.items()}
    return StaticIdentity(dataclasses.replace(identity, federated=bundles))


@pytest.mark.parametrize(
    ("callers", "allowed"),
    [([FOREIGN_ID], True), (["spiffe://other.domain/*"], True), (["spiffe://mesh.local/*"], False)],
)
async def test_a_federated_caller_is_known_by_its_id(
    echo: AsyncEcho, pki: Pki, foreign: Pki, callers: list[str], allowed: bool
) -> None:
    """Both ways: the server verifies the foreign client and the client the server; rules name foreign IDs as own."""
    server_identity = knowing(pki.identity(SERVER_ID), other_domain=foreign.bundle_pem)
    client_identity = knowing(foreign.identity(FOREIGN_ID), mesh_local=pki.bundle_pem)
    async with (
        native_server(echo, identity=server_identity, authorize=[(PATH, callers)]) as (_, address),
        native_channel(address, client_identity, peer=SERVER_ID) as channel,
    ):
        call = EchoStub(channel).unary("caller", timeout=10)
        if allowed:
            assert await call == FOREIGN_ID
        else:
            assert (await code_of(call))[0] is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    ("peer", "allowed"), [("", False), ("spiffe://mesh.local/*", True), ("spiffe://other.domain/*", False)]
)
async def test_any_member_means_the_own_trust_domain(
    echo: AsyncEcho, pki: Pki, foreign: Pki, peer: str, allowed: bool
) -> None:
    """A channel without `peer` doesn't take federated servers; a pattern that names their domain does."""
    server_identity = knowing(pki.identity(SERVER_ID), other_domain=foreign.bundle_pem)
    client_identity = knowing(foreign.identity(FOREIGN_ID), mesh_local=pki.bundle_pem)
    async with (
        native_server(echo, identity=server_identity) as (_, address),
        native_channel(address, client_identity, peer=peer) as channel,
    ):
        call = EchoStub(channel).unary("hello", timeout=10)
        if allowed:
            assert await call == "hello"
        else:
            code, details = await code_of(call)
            assert (code, f"the server is {SERVER_ID}, expected" in details) == (grpc.StatusCode.UNAVAILABLE, True)


@pytest.mark.parametrize("claimed", [CLIENT_ID, "spiffe://third.domain/x"])
async def test_a_federated_authority_speaks_for_its_own_domain_only(
    echo: AsyncEcho, pki: Pki, foreign: Pki, claimed: str, reasons: Callable[[], list[str]]
) -> None:
    """It can't issue our IDs, nor those of a third domain: the server refuses, counts and says why."""
    server_identity = knowing(pki.identity(SERVER_ID), other_domain=foreign.bundle_pem)
    impostor = dataclasses.replace(foreign.identity(claimed), bundle_pem=pki.bundle_pem)
    # The client itself must take the server, which it can only as a member or as a federated peer.
    impostor = dataclasses.replace(impostor, federated={} if claimed == CLIENT_ID else {"mesh.local": pki.bundle_pem})
    async with (
        native_server(echo, identity=server_identity) as (server, address),
        native_channel(address, StaticIdentity(impostor), peer=SERVER_ID) as channel,
    ):
        assert (await code_of(EchoStub(channel).unary("hello", timeout=10)))[0] is grpc.StatusCode.UNAVAILABLE
        assert server.stats()["calls_started"] == 0
        await until(lambda: server.stats()["handshakes_failed"] and reasons())
    expected = NO_ISSUER.pattern if claimed == CLIENT_ID else f"the peer is {claimed}, of another trust domain"
    assert re.search(expected, reasons()[0])


async def test_a_federated_authority_cant_pose_as_a_server_of_ours(echo: AsyncEcho, pki: Pki, foreign: Pki) -> None:
    """The client's side of the same."""
    server_identity = dataclasses.replace(foreign.identity(SERVER_ID), bundle_pem=pki.bundle_pem)
    client_identity = knowing(pki.identity(CLIENT_ID), other_domain=foreign.bundle_pem)
    async with (
        native_server(echo, identity=StaticIdentity(server_identity)) as (_, address),
        native_channel(address, client_identity, peer=SERVER_ID) as channel,
    ):
        code, details = await code_of(EchoStub(channel).unary("hello", timeout=10))
    assert (code, bool(NO_ISSUER.search(details))) == (grpc.StatusCode.UNAVAILABLE, True), details


async def test_bundles_are_swapped_live(echo: AsyncEcho, pki: Pki, foreign: Pki) -> None:
    """Connections that stand stay, whatever is swapped; new handshakes take the bundles of their moment."""
    server_identity = StaticIdentity(pki.identity(SERVER_ID))
    stranger = knowing(foreign.identity(FOREIGN_ID), mesh_local=pki.bundle_pem)

    async def knocks(address: str) -> bool:
        async with native_channel(address, stranger, peer=SERVER_ID) as channel:
            try:
                return bool(await EchoStub(channel).unary("hello", timeout=10) == "hello")
            except grpc.aio.AioRpcError:
                return False

    async with native_server(echo, identity=server_identity) as (server, address):
        assert not await knocks(address)
        plain = server_identity.current()
        server_identity.replace(dataclasses.replace(plain, federated={"other.domain": foreign.bundle_pem}))
        async with native_channel(address, stranger, peer=SERVER_ID) as channel:
            stream = EchoStub(channel).chat(timeout=30)
            await stream.write("before")
            assert await stream.read() == "BEFORE"
            server_identity.replace(plain)
            assert not await knocks(address)
            await stream.write("after")
            assert await stream.read() == "AFTER"
            assert await EchoStub(channel).unary("hello", timeout=10) == "hello"
            assert server.stats()["connections_accepted"] >= 3


@pytest.mark.parametrize(
    ("federated", "reason"),
    [
        ({"mesh.local": b"own"}, r'federated\["mesh.local"\]: this is the own trust domain'),
        ({"spiffe://other.domain": b"pem"}, "without spiffe://"),
        ({"other.domain": b"no PEM"}, r'federated\["other.domain"\]: it holds no certificate'),
    ],
)
async def test_malformed_bundles_are_refused_by_name(pki: Pki, federated: dict[str, bytes], reason: str) -> None:
    """The error names the field and the domain."""
    identity: Any = dataclasses.replace(pki.identity(SERVER_ID), federated=federated)
    with pytest.raises(ValueError, match=reason):
        async with native_channel("127.0.0.1:1", StaticIdentity(identity)):
            pass


async def test_a_rotation_that_cant_be_used_is_told_of(
    echo: AsyncEcho, pki: Pki, client_identity: StaticIdentity, reasons: Callable[[], list[str]]
) -> None:
    """Whoever renews goes on, and so do servers and channels, with the last identity."""
    server_identity = StaticIdentity(pki.identity(SERVER_ID))
    async with (
        native_server(echo, identity=server_identity) as (_, address),
        native_channel(address, client_identity, peer=SERVER_ID) as channel,
    ):
        server_identity.replace(dataclasses.replace(server_identity.current(), federated={"other.domain": b"x"}))
        assert 'federated["other.domain"]: it holds no certificate' in reasons()[0]
        assert await EchoStub(channel).unary("caller", timeout=10) == CLIENT_ID
