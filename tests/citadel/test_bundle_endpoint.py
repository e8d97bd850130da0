"""The bundle endpoint and OIDC discovery, read as PyJWT and cryptography read such documents."""

from __future__ import annotations

import asyncio
import base64
import ssl
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from citadels import WEB, agent, citadel, free_port, insecure
from cryptography import x509

from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc

HEADER = (("workload.spiffe.io", "true"),)
ISSUER = "https://id.shop.example/mesh"


async def ask(address: str, path: str, method: str = "GET") -> httpx.Response:
    """Ask as whoever has no identity here yet: which root the server's certificate has is in the bundle itself."""
    anyone = ssl.create_default_context()
    anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
    async with httpx.AsyncClient(verify=anyone, trust_env=False) as client:
        return await client.request(method, f"https://{address}{path}")


async def token(stub: Any) -> str:
    request = workload_pb2.JWTSVIDRequest(audience=["db"])
    async with asyncio.timeout(20):
        while True:
            try:
                return str((await stub.FetchJWTSVID(request, metadata=HEADER, timeout=10)).svids[0].svid)
            except Exception:
                await asyncio.sleep(0.01)


async def test_who_has_the_endpoints_verifies_tokens_and_certificates(short_tmp: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    settings = {"bundle_listen": address, "token_issuer": ISSUER}
    async with citadel(short_tmp, **settings) as up, agent(up) as target, insecure(target) as channel:
        await up.register()
        stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
        made = await token(stub)
        call = stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=HEADER, timeout=20)
        leaf = x509.load_der_x509_certificate((await call.read()).svids[0].x509_svid)
        call.cancel()

        document = await ask(address, "/")
        authority, signer = document.json()["keys"]
        assert (authority["use"], signer["use"]) == ("x509-svid", "jwt-svid")
        root = x509.load_der_x509_certificate(base64.b64decode(authority["x5c"][0]))
        leaf.verify_directly_issued_by(root)
        assert jwt.PyJWK(authority, "ES256").key == root.public_key()
        jwt.decode(made, jwt.PyJWK(signer, "ES256"), algorithms=["ES256"], audience="db")
        assert document.json()["spiffe_refresh_hint"] == 300
        assert document.json()["spiffe_sequence"] > 0

        discovery = (await ask(address, "/.well-known/openid-configuration")).json()
        assert (discovery["issuer"], discovery["jwks_uri"]) == (ISSUER, f"{ISSUER}/keys")
        keys = jwt.PyJWKSet.from_dict((await ask(address, "/keys")).json())
        key = keys[jwt.get_unverified_header(made)["kid"]]
        algorithms = discovery["id_token_signing_alg_values_supported"]
        claims = jwt.decode(made, key, algorithms=algorithms, audience="db", issuer=ISSUER)
        assert claims["sub"] == WEB

        assert (await ask(address, "/elsewhere")).status_code == 404
        assert (await ask(address, "/", "POST")).status_code == 405
        assert (await ask(address, "/", "HEAD")).content == b""


async def test_without_an_issuer_there_is_no_discovery(short_tmp: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    async with citadel(short_tmp, bundle_listen=address):
        assert (await ask(address, "/")).status_code == 200
        assert (await ask(address, "/keys")).status_code == 404
        assert (await ask(address, "/.well-known/openid-configuration")).status_code == 404


async def test_an_issuer_must_be_https(short_tmp: Path) -> None:
    with pytest.raises(ValueError, match="token_issuer: must be an https"):
        async with citadel(short_tmp, token_issuer="http://id.shop.example"):
            pass
