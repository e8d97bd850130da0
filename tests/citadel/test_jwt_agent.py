"""JWT-SVIDs over the Workload API: by PyPI's `spiffe` client, and message by message."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from citadels import DOMAIN, WEB, Citadel, agent, citadel, insecure

from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc

HEADER = (("workload.spiffe.io", "true"),)


@pytest.fixture
async def up(short_tmp: Path) -> AsyncIterator[Citadel]:
    async with citadel(short_tmp) as running:
        yield running


@pytest.fixture
async def socket(up: Citadel) -> AsyncIterator[str]:
    async with agent(up) as target:
        yield target


@pytest.fixture
async def stub(socket: str) -> AsyncIterator[workload_pb2_grpc.SpiffeWorkloadAPIStub]:
    async with insecure(socket) as opened:
        yield workload_pb2_grpc.SpiffeWorkloadAPIStub(opened)


async def tokens(stub: Any, *audience: str, spiffe_id: str = "") -> list[Any]:
    """Ask until the agent has heard of the registration, as clients do."""
    request = workload_pb2.JWTSVIDRequest(audience=audience, spiffe_id=spiffe_id)
    async with asyncio.timeout(20):
        while True:
            try:
                return list((await stub.FetchJWTSVID(request, metadata=HEADER, timeout=10)).svids)
            except grpc.aio.AioRpcError as error:
                assert error.code() is grpc.StatusCode.PERMISSION_DENIED, error
                await asyncio.sleep(0.01)


def validate(stub: Any, token: str, audience: str) -> Any:
    request = workload_pb2.ValidateJWTSVIDRequest(audience=audience, svid=token)
    return stub.ValidateJWTSVID(request, metadata=HEADER, timeout=10)


async def code(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call.read() if hasattr(call, "read") else call)
    return caught.value.code()


async def test_the_published_client_fetches_and_validates(up: Citadel, socket: str, stub: Any) -> None:
    program = (
        "import sys, spiffe\n"
        "sys.stdin.readline()\n"
        "with spiffe.WorkloadApiClient(sys.argv[1]) as client:\n"
        "    token = client.fetch_jwt_svid(audience={'db', 'queue'})\n"
        "    judged = client.validate_jwt_svid(token.token, 'db')\n"
        "    bundle = client.fetch_jwt_bundles().get_bundle_for_trust_domain(token.spiffe_id.trust_domain)\n"
        "    assert spiffe.JwtSvid.parse_and_validate(token.token, bundle, {'queue'}).spiffe_id == token.spiffe_id\n"
        "print(token.spiffe_id, judged.spiffe_id, sorted(token.audience))\n"
    )
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, socket, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    await up.register(pid=child.pid)
    await up.register(f"{WEB}-test")
    await tokens(stub, "db")  # the agent has heard of both
    out, err = await asyncio.wait_for(child.communicate(b"go\n"), 30)
    assert out.decode().strip() == f"{WEB} {WEB} ['db', 'queue']", err.decode()


async def test_a_token_is_for_whom_it_was_asked(up: Citadel, stub: Any) -> None:
    await up.register()
    (made,) = await tokens(stub, "db", "db")
    assert made.spiffe_id == WEB
    answer = await validate(stub, made.svid, "db")
    assert answer.spiffe_id == WEB
    assert dict(answer.claims)["sub"] == WEB
    assert await code(validate(stub, made.svid, "queue")) is grpc.StatusCode.INVALID_ARGUMENT
    claims = jwt.decode(made.svid, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 300
    (again,) = await tokens(stub, "db")
    assert again.svid == made.svid  # from the agent's memory
    (other,) = await tokens(stub, "queue")
    assert other.svid != made.svid


async def test_each_identity_has_its_token_and_one_can_be_named(up: Citadel, stub: Any) -> None:
    await up.register()
    await up.register(f"{WEB}-b")
    async with asyncio.timeout(20):
        while len(made := await tokens(stub, "db")) < 2:
            await asyncio.sleep(0.01)
    assert [token.spiffe_id for token in made] == [WEB, f"{WEB}-b"]
    (named,) = await tokens(stub, "db", spiffe_id=f"{WEB}-b")
    assert named.spiffe_id == f"{WEB}-b"


async def test_what_is_refused(up: Citadel, stub: Any) -> None:
    await up.register()
    await tokens(stub, "db")

    def ask(metadata: Any = HEADER, **fields: Any) -> Any:
        return stub.FetchJWTSVID(workload_pb2.JWTSVIDRequest(**fields), metadata=metadata, timeout=10)

    invalid = grpc.StatusCode.INVALID_ARGUMENT
    assert await code(ask()) is invalid
    assert await code(ask(audience=[""])) is invalid
    assert await code(ask(audience=["db"], spiffe_id="web")) is invalid
    assert await code(ask((), audience=["db"])) is invalid
    assert await code(validate(stub, "garbage", "db")) is invalid
    assert await code(validate(stub, (await tokens(stub, "db"))[0].svid, "")) is invalid
    other = ask(audience=["db"], spiffe_id=f"spiffe://{DOMAIN}/ns/shop/sa/other")
    assert await code(other) is grpc.StatusCode.PERMISSION_DENIED


async def test_who_isnt_registered_gets_no_token_but_may_verify(up: Citadel, stub: Any) -> None:
    """An unregistered caller: PERMISSION_DENIED, and ValidateJWTSVID still serves (SPIRE does so, too)."""
    request = workload_pb2.JWTSVIDRequest(audience=["db"])
    denied = grpc.StatusCode.PERMISSION_DENIED
    assert await code(stub.FetchJWTSVID(request, metadata=HEADER, timeout=10)) is denied
    assert await code(stub.FetchJWTBundles(workload_pb2.JWTBundlesRequest(), metadata=HEADER, timeout=10)) is denied
    registered = await up.register()
    (made,) = await tokens(stub, "db")
    await up.unregister(registered)
    async with asyncio.timeout(20):
        while True:
            try:
                await stub.FetchJWTSVID(request, metadata=HEADER, timeout=10)
            except grpc.aio.AioRpcError:
                break
    assert (await validate(stub, made.svid, "db")).spiffe_id == WEB


async def test_new_keys_are_pushed_before_they_sign(short_tmp: Path) -> None:
    """With keys of ten seconds a successor is published after half of it, and the stream tells."""
    settings = {"token_key_ttl_seconds": 10, "token_ttl_seconds": 10}
    async with citadel(short_tmp, **settings) as up, agent(up) as target, insecure(target) as channel:
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        await up.register()
        await tokens(stub, "db")
        call = stub.FetchJWTBundles(workload_pb2.JWTBundlesRequest(), metadata=HEADER, timeout=60)
        sizes = [len(json.loads((await call.read()).bundles[f"spiffe://{DOMAIN}"])["keys"]) for _ in range(2)]
        call.cancel()
    assert sizes == [1, 2]
