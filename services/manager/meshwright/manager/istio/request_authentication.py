"""security.istio.io/v1 RequestAuthentication: tokens (JWT, RFC 7519) that requests may carry.

A wrong one is refused; none at all isn't: an AuthorizationPolicy with `requestPrincipals` asks for one.
"""

from __future__ import annotations

import json
from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from meshwright.manager.istio.http_route import ShortText
from meshwright.manager.istio.selector import Selecting
from meshwright.manager.model.document import Document, Strict
from meshwright.manager.model.duration import Period
from meshwright.manager.model.headers import HeaderName

MAX_KEYS = 64 * 1024


def _keys(text: str) -> str:
    try:
        keys = json.loads(text)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        keys = None
    if not isinstance(keys, list) or not all(isinstance(key, dict) and "kty" in key for key in keys):
        raise ValueError('isn\'t a JSON Web Key Set (RFC 7517): write {"keys": [{"kty": …}]}')
    return text


def _uri(text: str) -> str:
    if not text.startswith(("https://", "http://")) or len(text) > 2048 or not text.split("/")[2]:
        raise ValueError(f"{text!r} isn't an address of keys: write https://HOST/PATH")
    return text


class JwtHeader(Strict):
    """A header that has the token, after `prefix`."""

    name: HeaderName
    prefix: Annotated[str, Field(max_length=256)] = ""


class ClaimToHeader(Strict):
    """A claim that the workload gets as a header."""

    header: HeaderName
    claim: ShortText


class JwtRule(Strict):
    """Tokens of one issuer. `jwks` are the keys themselves, `jwks_uri` says where they are."""

    issuer: ShortText
    audiences: Annotated[list[ShortText], Field(max_length=64)] = Field(default_factory=list)
    jwks_uri: Annotated[str, AfterValidator(_uri)] | None = None
    jwks: Annotated[str, Field(max_length=MAX_KEYS), AfterValidator(_keys)] | None = None
    from_headers: Annotated[list[JwtHeader], Field(max_length=16)] = Field(default_factory=list)
    from_params: Annotated[list[ShortText], Field(max_length=16)] = Field(default_factory=list)
    from_cookies: Annotated[list[ShortText], Field(max_length=16)] = Field(default_factory=list)
    output_payload_to_header: HeaderName | None = None
    forward_original_token: bool = False
    output_claim_to_headers: Annotated[list[ClaimToHeader], Field(max_length=64)] = Field(default_factory=list)
    timeout: Period | None = None
    space_delimited_claims: Annotated[list[ShortText], Field(max_length=64)] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_set(self) -> Self:
        if self.jwks is not None and self.jwks_uri is not None:
            raise ValueError("has jwks and jwksUri: write one of them")
        if self.jwks is None and self.jwks_uri is None:
            raise ValueError("has no keys, and issuers aren't asked for theirs: write jwksUri or jwks")
        return self


class RequestAuthenticationSpec(Selecting):
    """Tokens of several issuers, of which one must be right."""

    jwt_rules: Annotated[list[JwtRule], Field(max_length=64)] = Field(default_factory=list)


class RequestAuthentication(Document):
    """Tokens that requests may carry."""

    spec: RequestAuthenticationSpec = RequestAuthenticationSpec()
