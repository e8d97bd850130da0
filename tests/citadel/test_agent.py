"""The node agent over its socket: Workload API (with PyPI's `spiffe` client) and SDS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from citadels import DOMAIN, WEB, Citadel, agent, citadel, insecure, until
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from google.protobuf import any_pb2

from meshwright.api.envoy.extensions.transport_sockets.tls.v3 import secret_pb2, tls_spiffe_validator_config_pb2
from meshwright.api.envoy.service.discovery.v3 import discovery_pb2
from meshwright.api.envoy.service.secret.v3 import sds_pb2_grpc
from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc

HEADER = (("workload.spiffe.io", "true"),)
SECONDS = 10.0


@pytest.fixture
async def up(short_tmp: Path) -> AsyncIterator[Citadel]:
    async with citadel(short_tmp) as running:
        yield running


@pytest.fixture
async def socket(up: Citadel) -> AsyncIterator[str]:
    async with agent(up) as target:
        yield target


@pytest.fixture
async def channel(socket: str) -> AsyncIterator[grpc.aio.Channel]:
    async with insecure(socket) as opened:
        yield opened


def api(channel: grpc.aio.Channel) -> workload_pb2_grpc.SpiffeWorkloadAPIStub:
    return workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)


def fetch(channel: grpc.aio.Channel, metadata: Any = HEADER) -> Any:
    return api(channel).FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=metadata, timeout=30)


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(call.read() if hasattr(call, "read") else call, SECONDS)
    return caught.value.code(), caught.value.details() or ""


async def svid(channel: grpc.aio.Channel) -> Any:
    """Ask as SPIRE's clients do, until there is an identity."""
    async with asyncio.timeout(SECONDS):
        while True:
            call = fetch(channel)
            try:
                answer = await call.read()
                call.cancel()
                return answer.svids[0]
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED
                await asyncio.sleep(0.01)


# --- Workload API


async def test_the_published_client_gets_its_identity(up: Citadel, socket: str) -> None:
    """PyPI's `spiffe` verifies chain, key and bundle, as any SPIFFE workload would.

    In a process of its own: its messages have no proto package either, and a process can know only one of a name.
    """
    program = (
        "import sys, spiffe\n"
        "sys.stdin.readline()\n"
        "with spiffe.WorkloadApiClient(sys.argv[1]) as client:\n"
        "    identity, bundles = client.fetch_x509_svid(), client.fetch_x509_bundles()\n"
        "(root,) = bundles.get_bundle_for_trust_domain(identity.spiffe_id.trust_domain).x509_authorities\n"
        "identity.leaf.verify_directly_issued_by(root)\n"
        "print(identity.spiffe_id, identity.leaf.serial_number)\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, socket, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await up.register(pid=child.pid, dns_names=["web.shop.svc"])
    await up.register(f"{WEB}-test")
    async with insecure(socket) as channel:
        await svid(channel)  # the agent has heard of both
    out, err = await asyncio.wait_for(child.communicate(b"go\n"), 20)
    assert out.decode().startswith(f"{WEB} "), err.decode()


async def test_the_answer_has_the_forms_of_the_standard(up: Citadel, channel: grpc.aio.Channel) -> None:
    """Workload API section 5.2.1: DER chain without the root, PKCS #8 key, DER bundle."""
    await up.register()
    answer = await svid(channel)
    leaf = x509.load_der_x509_certificate(answer.x509_svid)
    key = serialization.load_der_private_key(answer.x509_svid_key, None)
    assert key.public_key() == leaf.public_key()
    leaf.verify_directly_issued_by(x509.load_der_x509_certificate(answer.bundle))


async def test_a_caller_without_registration_hears_no_identity_issued(channel: grpc.aio.Channel) -> None:
    for call in (
        fetch(channel),
        api(channel).FetchX509Bundles(workload_pb2.X509BundlesRequest(), metadata=HEADER, timeout=5),
    ):
        assert await refused(call) == (grpc.StatusCode.PERMISSION_DENIED, "no identity issued")


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("workload.spiffe.io", "True"),),
        (("workload.spiffe.io", ""),),
        (("workload.spiffe.io", "true"), ("workload.spiffe.io", "true")),
    ],
)
async def test_the_security_header_is_required(up: Citadel, channel: grpc.aio.Channel, metadata: Any) -> None:
    """Also of a registered caller: exactly once, exactly `true`."""
    await up.register()
    code, details = await refused(fetch(channel, metadata))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "security header missing from request" in details


async def test_other_profiles_are_unimplemented(channel: grpc.aio.Channel) -> None:
    stub = api(channel)
    for call in (
        stub.FetchWITSVID(workload_pb2.WITSVIDRequest(), metadata=HEADER),
        stub.FetchWITBundles(workload_pb2.WITBundlesRequest(), metadata=HEADER),
    ):
        code, _ = await refused(call)
        assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_rotation_is_pushed_with_overlap(up: Citadel, channel: grpc.aio.Channel) -> None:
    """With a four-second life a new certificate comes each two seconds or so; the one before is still valid then."""
    await up.register(ttl=4)
    await svid(channel)
    call, leaves = fetch(channel), []
    for _ in range(3):
        answer = await asyncio.wait_for(call.read(), SECONDS)
        leaves.append(x509.load_der_x509_certificate(answer.svids[0].x509_svid))
        if len(leaves) > 1:
            assert leaves[-2].not_valid_after_utc.timestamp() > time.time()
    call.cancel()
    assert len({leaf.serial_number for leaf in leaves}) == 3
    assert (
        len(
            {
                leaf.public_key().public_bytes(
                    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
                )
                for leaf in leaves
            }
        )
        == 3
    )


async def test_a_removed_registration_ends_the_stream(up: Citadel, channel: grpc.aio.Channel) -> None:
    registration = await up.register()
    await svid(channel)
    call = fetch(channel)
    await asyncio.wait_for(call.read(), SECONDS)
    await up.unregister(registration)
    assert (await refused(call))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_each_process_gets_its_own_identity(up: Citadel, socket: str) -> None:
    """Two processes of one user and one program: the launcher's `unix:pid` tells them apart."""
    program = (
        "import sys, spiffe, time\n"
        "sys.stdin.readline()\n"
        "client = spiffe.WorkloadApiClient(sys.argv[1])\n"
        "print(client.fetch_x509_svid().spiffe_id)\n"
    )
    children = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, socket, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for _ in range(2)
    ]
    for number, child in enumerate(children):
        await up.register(f"{WEB}-{number}", pid=child.pid)
    own = await up.register(f"{WEB}-own")
    async with insecure(socket) as channel:
        assert (await svid(channel)).spiffe_id == f"{WEB}-own"
    await up.unregister(own)
    for number, child in enumerate(children):
        out, err = await asyncio.wait_for(child.communicate(b"go\n"), 20)
        assert out.decode().strip() == f"{WEB}-{number}", err.decode()


async def test_a_stream_ends_with_its_process(up: Citadel, socket: str) -> None:
    """Nobody goes on with the connection of a process that has ended."""
    await up.register(selectors=[("unix:uid", str(os.getuid()))])
    async with insecure(socket) as channel:
        await svid(channel)  # and grpcio has what it keeps open
    before = len(os.listdir("/proc/self/fd"))
    program = (
        "import grpc, sys\n"
        "channel = grpc.insecure_channel(sys.argv[1])\n"
        "call = channel.unary_stream('/SpiffeWorkloadAPI/FetchX509SVID')\n"
        "next(call(b'', metadata=[('workload.spiffe.io', 'true')]))\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, socket, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert await asyncio.wait_for(child.stdout.readline(), 20) == b"up\n"
    child.kill()
    await child.communicate()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 1)


# --- SDS


class Sds:
    """One SDS stream as Envoy holds it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.call = sds_pb2_grpc.SecretDiscoveryServiceStub(channel).StreamSecrets(timeout=60)
        self.nonce = ""

    async def ask(self, *names: str, nonce: str | None = None, error: str = "") -> None:
        request = discovery_pb2.DiscoveryRequest(
            resource_names=names, response_nonce=self.nonce if nonce is None else nonce
        )
        if error:
            request.error_detail.message = error
        await self.call.write(request)

    async def answer(self, seconds: float = SECONDS) -> dict[str, secret_pb2.Secret]:
        response = await asyncio.wait_for(self.call.read(), seconds)
        self.nonce = response.nonce
        found = {}
        for resource in response.resources:
            secret = secret_pb2.Secret()
            assert resource.Unpack(secret)
            found[secret.name] = secret
        return found

    async def silent(self, seconds: float = 0.3) -> bool:
        reading = asyncio.ensure_future(self.call.read())
        done, _ = await asyncio.wait([reading], timeout=seconds)
        reading.cancel()
        return not done


def leaf_of(secret: secret_pb2.Secret) -> x509.Certificate:
    return x509.load_pem_x509_certificate(secret.tls_certificate.certificate_chain.inline_bytes)


async def test_a_caller_that_came_too_early_waits_and_is_answered_by_push(
    up: Citadel, channel: grpc.aio.Channel
) -> None:
    """Envoy warms up: nothing fails, and the certificate comes within 200 ms of the registration (SPIRE: 6.8 s)."""
    stream = Sds(channel)
    await stream.ask("default")
    await asyncio.sleep(0)
    began = time.monotonic()
    await up.register()
    secret = (await stream.answer())["default"]
    took = time.monotonic() - began
    print(f"registration to certificate: {took * 1000:.1f} ms")
    assert took < 1.0  # 200 ms on a quiet machine
    key = serialization.load_pem_private_key(secret.tls_certificate.private_key.inline_bytes, None)
    assert key.public_key() == leaf_of(secret).public_key()


async def test_the_trust_bundle_needs_no_registration_of_its_own(up: Citadel, channel: grpc.aio.Channel) -> None:
    """`ROOTCA` is the plain root, for the manager's own name matching; `ALL` brings Envoy's SPIFFE validator."""
    for name in ("ROOTCA", f"spiffe://{DOMAIN}", "ALL"):
        stream = Sds(channel)
        await stream.ask(name)
        context = (await stream.answer())[name].validation_context
        if name == "ALL":
            packed: any_pb2.Any = context.custom_validator_config.typed_config
            validator = tls_spiffe_validator_config_pb2.SPIFFECertValidatorConfig()
            assert packed.Unpack(validator)
            assert validator.trust_domains[0].name == DOMAIN
            root = validator.trust_domains[0].trust_bundle.inline_bytes
        else:
            root = context.trusted_ca.inline_bytes
        x509.load_pem_x509_certificate(root)
        stream.call.cancel()


async def test_names_may_change_on_a_stream(up: Citadel, channel: grpc.aio.Channel) -> None:
    """A new list is answered at once, also when it is shorter; an acknowledgement isn't answered."""
    await up.register()
    await svid(channel)
    stream = Sds(channel)
    await stream.ask("default")
    assert set(await stream.answer()) == {"default"}
    await stream.ask("default", "ROOTCA")
    assert set(await stream.answer()) == {"default", "ROOTCA"}
    await stream.ask("ROOTCA")
    assert set(await stream.answer()) == {"ROOTCA"}
    await stream.ask("ROOTCA")
    await stream.ask(WEB, nonce="stale")
    await stream.ask(WEB, nonce="")
    assert await stream.silent()


async def test_no_names_mean_everything(up: Citadel, channel: grpc.aio.Channel) -> None:
    await up.register()
    await svid(channel)
    stream = Sds(channel)
    await stream.ask()
    assert set(await stream.answer()) == {WEB, "ROOTCA"}


async def test_a_refusal_isnt_answered_with_the_same_again(up: Citadel, channel: grpc.aio.Channel) -> None:
    """A proxy that can't use a secret must not be fed it in a loop."""
    await up.register()
    stream = Sds(channel)
    await stream.ask("default")
    await stream.answer()
    await stream.ask("default", error="bad key")
    assert await stream.silent()


@pytest.mark.parametrize(
    "names",
    [
        ["unknown"],
        ["spiffe://other.domain/x"],
        ["spiffe://other.domain"],
        ["ROOTCA", "ALL"],
        ["ROOTCA", f"spiffe://{DOMAIN}"],
        ["default", WEB],
        [f"{WEB}-{number}" for number in range(65)],
        ["x" * 10_000],
    ],
)
async def test_names_that_can_never_be_served_are_refused(channel: grpc.aio.Channel, names: list[str]) -> None:
    stream = Sds(channel)
    await stream.ask(*names)
    code, details = await refused(stream.call)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details.startswith("resource_names: ")


async def test_another_ones_identity_is_never_served(up: Citadel, channel: grpc.aio.Channel) -> None:
    """It may be registered for another process: this caller waits for it in vain."""
    await up.register()
    other = f"{WEB}-other"
    await up.register(other, selectors=[("unix:uid", "4242")])
    await svid(channel)
    stream = Sds(channel)
    await stream.ask(other)
    assert await stream.silent()


async def test_fetch_answers_at_once(up: Citadel, channel: grpc.aio.Channel) -> None:
    stub = sds_pb2_grpc.SecretDiscoveryServiceStub(channel)
    request = discovery_pb2.DiscoveryRequest(resource_names=["default"])
    assert (await refused(stub.FetchSecrets(request, timeout=5)))[0] is grpc.StatusCode.NOT_FOUND
    await up.register()
    await svid(channel)
    response = await stub.FetchSecrets(request, timeout=5)
    assert len(response.resources) == 1


async def test_delta_is_unimplemented(channel: grpc.aio.Channel) -> None:
    call = sds_pb2_grpc.SecretDiscoveryServiceStub(channel).DeltaSecrets(timeout=5)
    assert (await refused(call))[0] is grpc.StatusCode.UNIMPLEMENTED


# --- the line to citadel


async def test_agents_serve_their_own_node_only(up: Citadel) -> None:
    """The same process asks two agents: only the one of the registration's node knows it."""
    await up.register(node="n1")
    async with agent(up, node="n1") as one, agent(up, node="n2") as two:
        async with insecure(one) as channel:
            assert (await svid(channel)).spiffe_id == WEB
        async with insecure(two) as channel:
            assert (await refused(fetch(channel)))[0] is grpc.StatusCode.PERMISSION_DENIED


async def test_with_citadel_away_the_agent_serves_on_and_recovers(
    short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """kill -9 of citadel: certificates go on; back again with its store, registrations and renewals do too."""
    from citadels import free_port

    from meshwright.core import store as stores
    from meshwright.core.store import MemoryStore

    shared = MemoryStore()

    @contextlib.asynccontextmanager
    async def connect(_settings: object) -> AsyncIterator[MemoryStore]:
        yield shared

    monkeypatch.setattr(stores, "connect", connect)
    key, port = short_tmp / "seal.key", free_port()
    key.write_bytes(bytes(32))
    key.chmod(0o600)
    async with contextlib.AsyncExitStack() as later:
        async with citadel(short_tmp, port=port, seal_key=key) as up:
            socket = await later.enter_async_context(agent(up))
            channel = await later.enter_async_context(insecure(socket))
            await up.register(ttl=20)
            first = await svid(channel)
        assert (await svid(channel)).x509_svid == first.x509_svid
        stream = Sds(channel)
        await stream.ask(f"{WEB}-late")
        async with citadel(short_tmp, port=port, seal_key=key) as up:
            await up.register(f"{WEB}-late")
            assert set(await stream.answer(20)) == {f"{WEB}-late"}
            again = await svid(channel)
            assert again.bundle == first.bundle
