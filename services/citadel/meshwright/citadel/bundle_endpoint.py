"""The bundle endpoint (SPIFFE Federation, section 5: https_spiffe) and OIDC discovery of JWT-SVIDs, over HTTPS.

`/` is the trust domain's bundle (SPIFFE Trust Domain and Bundle, section 4), `/.well-known/openid-configuration` and
`/keys` are what verifiers of OpenID Connect ask for. One decision to know: everybody may ask, and needs no certificate:
all that is said is public, and whoever reads it can't have an identity of this mesh yet.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from meshwright.citadel.ca.authority import Authority
from meshwright.citadel.ca.jwt_keys import coordinates
from meshwright.citadel.jwt_custody import JwtCustody
from meshwright.core.http_server import HttpServer
from meshwright.core.identity import IdentitySource

REFRESH_SECONDS = 300
"""How often readers should ask again: far below the time for which a key is published before it signs."""

_MAX_CONNECTIONS = 256  # at once; further ones are answered 503
_JSON = [(b"content-type", b"application/json"), (b"cache-control", b"max-age=60")]


def bundle(authority: Authority, token_keys: JwtCustody) -> dict[str, Any]:
    """Return the bundle document: the authorities of X.509-SVIDs and the keys of JWT-SVIDs."""
    public = authority.certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    certificate = base64.b64encode(authority.certificate_der).decode()
    root = {"use": "x509-svid", **coordinates(public), "x5c": [certificate]}
    keys = [root, *json.loads(token_keys.bundle)["keys"]]
    return {"keys": keys, "spiffe_sequence": token_keys.revision, "spiffe_refresh_hint": REFRESH_SECONDS}


def discovery(issuer: str) -> dict[str, Any]:
    """Return the provider's configuration (OpenID Connect Discovery 1.0, section 3), as far as verifiers need it."""
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer.rstrip('/')}/keys",
        "authorization_endpoint": "",
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    }


def verification_keys(token_keys: JwtCustody) -> dict[str, Any]:
    """Return the keys of JWT-SVIDs as verifiers of OpenID Connect know them."""
    keys = json.loads(token_keys.bundle)["keys"]
    return {"keys": [{**key, "use": "sig", "alg": "ES256"} for key in keys]}


def endpoint(
    address: str, identity: IdentitySource, authority: Authority, token_keys: JwtCustody, issuer: str
) -> HttpServer:
    """Return the server; with an `issuer` it answers OIDC discovery too."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        status, body = 200, b""
        match scope["path"] if scope["method"] in ("GET", "HEAD") else None:
            case "/":
                body = json.dumps(bundle(authority, token_keys)).encode()
            case "/.well-known/openid-configuration" if issuer:
                body = json.dumps(discovery(issuer)).encode()
            case "/keys" if issuer:
                body = json.dumps(verification_keys(token_keys)).encode()
            case None:
                status, body = 405, b'{"error": "only GET is answered"}'
            case _:
                status, body = 404, b'{"error": "there are /, /.well-known/openid-configuration and /keys"}'
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": status, "headers": [*_JSON, length]})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return HttpServer(
        "bundle endpoint",
        address,
        application,
        identity=identity,
        limit_concurrency=_MAX_CONNECTIONS,
        timeout_keep_alive=10,
        h11_max_incomplete_event_size=16 * 1024,
    )
