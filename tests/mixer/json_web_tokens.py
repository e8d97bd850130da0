"""An issuer of JSON Web Tokens for tests: signs with ES256, and publishes its key as a set (RFC 7515, 7517, 7519)."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

NAME = "https://issuer.test"


class Issuer:
    """`keys` is the set as JSON."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        point = self._key.public_key().public_numbers()
        numbers = {"x": _text(point.x.to_bytes(32, "big")), "y": _text(point.y.to_bytes(32, "big"))}
        self.keys = json.dumps({"keys": [{"kty": "EC", "crv": "P-256", "alg": "ES256", "kid": "one", **numbers}]})

    def token(self, **claims: Any) -> str:
        """A token that is good for an hour."""
        now = int(time.time())
        payload = {"iss": NAME, "iat": now, "exp": now + 3600, **claims}
        parts = [{"alg": "ES256", "kid": "one"}, payload]
        signed = ".".join(_text(json.dumps(part).encode()) for part in parts)
        r, s = decode_dss_signature(self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_text(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
