"""citadel over the wire: first certificates, renewal, and who may ask for what."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from citadels import DOMAIN, WEB, Citadel, citadel, free_port, until
from cryptography import x509
from signing_requests import csr, pem, uri

from meshwright.api.citadel.v1 import admin_pb2, agents_pb2, agents_pb2_grpc, registration_pb2
from meshwright.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from meshwright.core import errors
from meshwright.core import store as stores
from meshwright.core.citadel_identity import CitadelIdentity
from meshwright.core.clock import ManualClock
from meshwright.core.grpc import Channel
from meshwright.core.identity import IdentitySource, StaticIdentity, part_dns, part_id
from meshwright.core.store import MemoryStore
from pki import Pki

pytestmark = pytest.mark.usefixtures("grpc_front")

CITADEL = part_id(DOMAIN, "citadel")


@pytest.fixture
async def running(short_tmp: Path) -> AsyncIterator[Citadel]:
    async with citadel(short_tmp) as up:
        yield up


@contextlib.asynccontextmanager
async def as_part(up: Citadel, part: str) -> AsyncIterator[Channel]:
    async with up.identity(part) as own, Channel(up.address, own, peer=CITADEL) as channel:
        yield channel


def certificates(channel: Channel) -> ca_pb2_grpc.IstioCertificateServiceStub:
    return ca_pb2_grpc.IstioCertificateServiceStub(channel)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details() or ""


# --- the first certificate


async def test_a_part_gets_its_first_certificate_for_a_token(running: Citadel, tmp_path: Path) -> None:
    """The token file goes away with its use; the certificate carries the part's ID and its DNS name."""
    file = tmp_path / "manager"
    file.write_text(await running.token("manager") + "\n")
    async with running.identity("manager", token=file) as own:
        assert not file.exists()
        leaf = x509.load_pem_x509_certificate(own.current().cert_chain_pem)
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == [part_dns("manager")]
        assert own.current().spiffe_id == part_id(DOMAIN, "manager")


async def test_of_two_uses_of_a_token_exactly_one_wins(running: Citadel) -> None:
    token = await running.token("manager")
    message = admin_pb2.BootstrapRequest(token=token, csr=csr())
    results = await asyncio.gather(*(running.admin.Bootstrap(message) for _ in range(8)), return_exceptions=True)
    assert sum(isinstance(result, admin_pb2.Certificate) for result in results) == 1
    codes = {result.code() for result in results if isinstance(result, grpc.aio.AioRpcError)}
    assert codes == {grpc.StatusCode.UNAUTHENTICATED}


@pytest.mark.parametrize("bad", ["other identity", "CA", "lifetime"])
async def test_a_refused_request_doesnt_cost_the_token(running: Citadel, bad: str) -> None:
    token = await running.token("mixer")
    request = admin_pb2.BootstrapRequest(token=token, csr=csr())
    match bad:
        case "other identity":
            request.csr = csr(uri(part_id(DOMAIN, "manager")))
        case "CA":
            request.csr = csr(extensions=[x509.BasicConstraints(True, None)])
        case _:
            request.validity_seconds = 2**40
    code, _ = await refused(running.admin.Bootstrap(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    await running.admin.Bootstrap(admin_pb2.BootstrapRequest(token=token, csr=csr()))


@pytest.mark.parametrize("part", ["", "citadel", "Manager", "a/b", "../x", "x" * 100])
async def test_tokens_are_for_parts(running: Citadel, part: str) -> None:
    """Nobody becomes citadel by a token: it signs its own identity."""
    code, details = await refused(running.admin.MintToken(admin_pb2.MintTokenRequest(part=part)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("part: ")


async def test_a_lifetime_beyond_all_reason_is_an_error(running: Citadel) -> None:
    request = admin_pb2.MintTokenRequest(part="manager")
    request.ttl.seconds = 2**62
    code, details = await refused(running.admin.MintToken(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("ttl: ")


async def test_another_user_may_not_administer(running: Citadel) -> None:
    """The socket's mode keeps others out; should somebody open it up, the kernel's word still does."""
    if os.getuid() != 0:
        pytest.skip("needs root, to become another user")
    path = running.folder / "citadel.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    running.folder.chmod(0o755)
    path.chmod(0o666)
    program = (
        "import grpc, os, sys\n"
        "import grpc._channel, grpc._interceptor  # while they can be read\n"
        "os.setuid(65534)\n"
        "call = grpc.insecure_channel(sys.argv[1]).unary_unary('/meshwright.citadel.v1.Admin/MintToken')\n"
        "try: call(b'\\x0a\\x07manager', timeout=5)\n"
        "except grpc.RpcError as error: print(error.code().name, error.details())\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, running.socket, stdout=subprocess.PIPE, cwd="/"
    )
    out, _ = await asyncio.wait_for(child.communicate(), 20)
    assert out.startswith(b"PERMISSION_DENIED user 65534 may not administer citadel")


# --- renewal


async def test_renewal_goes_over_mutual_tls_with_a_new_key(running: Citadel) -> None:
    """At half of a four-second life, without the socket's help: Istio's RPC, root last."""
    seen = []
    async with running.identity("manager", validity_seconds=4) as own:
        own.subscribe(seen.append)
        first = own.current()
        await until(lambda: len(seen) >= 2)
    assert len({first.key_pem, *(fresh.key_pem for fresh in seen)}) == 3
    assert {fresh.spiffe_id for fresh in seen} == {first.spiffe_id}
    assert own.fault is None


async def test_the_chain_is_leaf_first_root_last(running: Citadel) -> None:
    """What Istio's proxies and ztunnel expect: one certificate an element."""
    async with as_part(running, "manager") as channel:
        answer = await certificates(channel).CreateCertificate(ca_pb2.IstioCertificateRequest(csr=pem(csr())))
    leaf, root = map(x509.load_pem_x509_certificate, (element.encode() for element in answer.cert_chain))
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ({"csr": pem(csr(uri(part_id(DOMAIN, "mixer"))))}, "the caller is"),
        ({"csr": pem(csr(x509.DNSName(part_dns("mixer"))))}, "DNS name"),
        ({"csr": pem(csr()), "validity_duration": 10**9}, "validity_duration"),
        ({"csr": pem(csr()), "validity_duration": -1}, "validity_duration"),
        ({"csr": "x" * 70_000}, "at most 65536 bytes"),
        ({"csr": ""}, "not a certificate request"),
    ],
)
async def test_refusals_have_a_status_and_a_reason(running: Citadel, request_: dict[str, Any], reason: str) -> None:
    async with as_part(running, "manager") as channel:
        message = ca_pb2.IstioCertificateRequest(**request_)
        code, details = await refused(certificates(channel).CreateCertificate(message))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert reason in details


async def test_a_stopped_week_needs_no_valid_certificate(running: Citadel) -> None:
    """The certificate ended while the machine stood still: the part begins again at the socket, by itself."""

    class Jumping(ManualClock):
        def jump(self, by: timedelta) -> None:
            self._now += by

    clock, seen = Jumping(), []
    own = running.identity("manager", clock=clock)
    async with asyncio.timeout(10), own:
        own._address = "127.0.0.1:1"  # nothing answers there: only the socket can help
        own.subscribe(seen.append)
        clock.jump(timedelta(days=365 * 200))
        while not seen:
            await clock.advance(6)
            await asyncio.sleep(0.01)
    assert seen[0].spiffe_id == part_id(DOMAIN, "manager")


async def test_a_used_token_file_is_no_obstacle(running: Citadel, tmp_path: Path) -> None:
    """A file that an earlier start used up is removed, and the part goes on."""
    file = tmp_path / "token"
    file.write_text("stale")
    async with running.identity("manager", token=file) as own:
        assert own.current().spiffe_id == part_id(DOMAIN, "manager")
    assert not file.exists()


async def test_without_citadel_the_start_fails_by_name(short_tmp: Path) -> None:
    own = CitadelIdentity(part_id(DOMAIN, "manager"), socket=f"unix:{short_tmp}/none.sock", patience=0.2)
    with pytest.raises(errors.Unavailable, match=r"citadel at unix:.*none\.sock"):
        async with own:
            pass


async def test_a_restarted_citadel_is_the_same_authority(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Identities of before are accepted after, registrations are still there (the store is kept)."""
    shared = MemoryStore()

    @contextlib.asynccontextmanager
    async def connect(_settings: object) -> AsyncIterator[MemoryStore]:
        yield shared

    monkeypatch.setattr(stores, "connect", connect)
    key, port = short_tmp / "seal.key", free_port()
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    async with citadel(short_tmp, port=port, seal_key=key) as up, up.identity("manager") as own:
        await up.register()
        kept = StaticIdentity(own.current())
    async with citadel(short_tmp, port=port, seal_key=key) as up, Channel(up.address, kept, peer=CITADEL) as channel:
        await certificates(channel).CreateCertificate(ca_pb2.IstioCertificateRequest(csr=pem(csr())))
        listed = await up.admin.ListRegistrations(admin_pb2.ListRegistrationsRequest())
        assert [registration.spiffe_id for registration in listed.registrations] == [WEB]


# --- who may call


async def test_plain_text_and_foreign_authorities_are_refused(running: Citadel, pki: Pki) -> None:
    """Nothing is answered without a certificate of this mesh."""
    message = ca_pb2.IstioCertificateRequest(csr=pem(csr()))
    async with grpc.aio.insecure_channel(running.address) as channel:
        code, _ = await refused(certificates(channel).CreateCertificate(message, timeout=5))
        assert code is grpc.StatusCode.UNAVAILABLE
    async with running.identity("manager") as own:
        bundle = own.current().bundle_pem
    foreign = pki.part("manager")
    for chain, key in ((foreign.cert_chain_pem, foreign.key_pem), (None, None)):
        credentials = grpc.ssl_channel_credentials(bundle, key, chain)
        options = [("grpc.ssl_target_name_override", part_dns("citadel"))]
        async with grpc.aio.secure_channel(running.address, credentials, options) as channel:
            code, _ = await refused(certificates(channel).CreateCertificate(message, timeout=5))
            assert code is grpc.StatusCode.UNAVAILABLE


async def test_tls_below_1_2_is_refused(running: Citadel) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError):
        await asyncio.open_connection(*running.address.split(":"), ssl=context)


async def test_only_agents_follow_registrations(running: Citadel) -> None:
    async with as_part(running, "manager") as channel:
        stub = agents_pb2_grpc.AgentsStub(channel)
        code, details = await refused(stub.SignWorkload(agents_pb2.SignWorkloadRequest(registration_id="x")))
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert "may not call" in details


def node_identity(up: Citadel, node: str) -> CitadelIdentity:
    return up.identity(f"citadel-agent/node/{node}")


async def test_an_agent_signs_for_its_own_node_only(running: Citadel) -> None:
    """An agent that was taken over gets nothing of other nodes, nor does it learn their registrations."""
    mine = await running.register(node="n1")
    theirs = await running.register("spiffe://mesh.local/ns/shop/sa/other", node="n2")
    async with node_identity(running, "n1") as own, Channel(running.address, own, peer=CITADEL) as channel:
        stub = agents_pb2_grpc.AgentsStub(channel)
        answer = await stub.SignWorkload(agents_pb2.SignWorkloadRequest(registration_id=mine, csr=csr()))
        leaf = x509.load_der_x509_certificate(answer.chain[0])
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.UniformResourceIdentifier) == [WEB]
        code, _ = await refused(stub.SignWorkload(agents_pb2.SignWorkloadRequest(registration_id=theirs, csr=csr())))
        assert code is grpc.StatusCode.NOT_FOUND
        call = stub.WatchRegistrations(agents_pb2.WatchRegistrationsRequest())
        first = await asyncio.wait_for(call.read(), 5)
        assert (first.reset, first.complete) == (True, True)
        assert [registration.id for registration in first.changed] == [mine]
        assert len(first.bundle) == 1
        call.cancel()


async def test_a_large_node_is_sent_in_parts(running: Citadel) -> None:
    for number in range(3):
        await asyncio.gather(
            *(
                running.register(selectors=[("unix:uid", "1")], node="big", spiffe_id=f"{WEB}-{number}-{each}")
                for each in range(200)
            )
        )
    async with node_identity(running, "big") as own, Channel(running.address, own, peer=CITADEL) as channel:
        call = agents_pb2_grpc.AgentsStub(channel).WatchRegistrations(agents_pb2.WatchRegistrationsRequest())
        updates = [await asyncio.wait_for(call.read(), 5)]
        while not updates[-1].complete:
            updates.append(await asyncio.wait_for(call.read(), 5))
        call.cancel()
    assert [update.reset for update in updates] == [True, False]
    assert sum(len(update.changed) for update in updates) == 600


async def test_a_workload_renews_only_while_it_is_registered(running: Citadel) -> None:
    """Removing a registration ends an identity: its holder can't go on renewing for itself."""
    registration = await running.register(dns_names=["web.shop.svc"], node="n1")
    async with node_identity(running, "n1") as own, Channel(running.address, own, peer=CITADEL) as channel:
        svid = await workload(channel, registration)
    async with Channel(running.address, svid, peer=CITADEL) as channel:
        answer = await certificates(channel).CreateCertificate(ca_pb2.IstioCertificateRequest(csr=pem(csr())))
        leaf = x509.load_pem_x509_certificate(answer.cert_chain[0].encode())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert names.get_values_for_type(x509.DNSName) == ["web.shop.svc"]
        await running.unregister(registration)

        async def gone() -> bool:
            message = ca_pb2.IstioCertificateRequest(csr=pem(csr()))
            try:
                await certificates(channel).CreateCertificate(message)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                return True
            return False

        async with asyncio.timeout(5):
            while not await gone():
                await asyncio.sleep(0.01)


async def workload(channel: Channel, registration: str) -> IdentitySource:
    """Get a workload's identity as an agent would."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    from meshwright.core import identity

    key = ec.generate_private_key(ec.SECP256R1())
    request = agents_pb2.SignWorkloadRequest(registration_id=registration, csr=csr(key=key))
    answer = await agents_pb2_grpc.AgentsStub(channel).SignWorkload(request)
    chain, bundle = (
        b"".join(x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in certificates_)
        for certificates_ in (answer.chain, answer.bundle)
    )
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return StaticIdentity(identity.parse(chain, key_pem, bundle))


# --- registrations over the wire


async def test_a_registration_may_be_replaced_by_its_id(running: Citadel) -> None:
    registration = registration_pb2.Registration(
        id="web", spiffe_id=WEB, selectors=[registration_pb2.Selector(type="unix:uid", value="1")]
    )
    for dns_name in ("a.shop", "b.shop"):
        registration.dns_names[:] = [dns_name]
        await running.admin.Register(admin_pb2.RegisterRequest(registration=registration))
    listed = await running.admin.ListRegistrations(admin_pb2.ListRegistrationsRequest())
    assert [list(known.dns_names) for known in listed.registrations] == [["b.shop"]]


async def test_bad_registrations_name_their_field(running: Citadel) -> None:
    registration = registration_pb2.Registration(spiffe_id=part_id(DOMAIN, "manager"))
    request = admin_pb2.RegisterRequest(registration=registration)
    code, details = await refused(running.admin.Register(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("spiffe_id: ")
    assert "platform's own namespace" in details


async def test_listing_goes_by_pages(running: Citadel) -> None:
    for number in range(7):
        await running.register(f"{WEB}{number}")
    found, token = [], ""
    while True:
        page = await running.admin.ListRegistrations(admin_pb2.ListRegistrationsRequest(page_size=3, page_token=token))
        found += [known.spiffe_id for known in page.registrations]
        token = page.next_page_token
        if not token:
            break
    assert sorted(found) == [f"{WEB}{number}" for number in range(7)]
    code, _ = await refused(running.admin.ListRegistrations(admin_pb2.ListRegistrationsRequest(page_size=5000)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
