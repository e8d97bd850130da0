"""Tokens (JWT, RFC 7519) that requests may carry: a wrong one is answered with 401, none at all is let on.

One decision to know: proxies fetch no keys. Rules whose keys are elsewhere have none until somebody puts them into the
rule, and refuse every token; so no proxy depends on a host outside of the mesh to serve.
"""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty

from meshwright.api.envoy.config.core.v3.base_pb2 import DataSource
from meshwright.api.envoy.config.route.v3.route_components_pb2 import RouteMatch
from meshwright.api.envoy.extensions.filters.http.jwt_authn.v3 import config_pb2
from meshwright.api.envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpFilter,
)
from meshwright.manager.model.access import TokenRule
from meshwright.manager.model.governed import Governed
from meshwright.manager.xds import principals, wire

_SKEW_SECONDS = 60
_NO_KEYS = '{"keys":[]}'


def http(governed: Governed) -> list[HttpFilter]:
    """Return the filter that reads tokens; none where no rule is about any."""
    if not governed.tokens:
        return []
    providers = {
        f"{rule.origin.namespace}/{rule.origin.name}[{number}]": _provider(rule)
        for number, rule in enumerate(governed.tokens)
    }
    either = [config_pb2.JwtRequirement(provider_name=name) for name in providers]
    either.append(config_pb2.JwtRequirement(allow_missing=Empty()))
    requirement = config_pb2.JwtRequirement(requires_any=config_pb2.JwtRequirementOrList(requirements=either))
    config = config_pb2.JwtAuthentication(
        providers=providers,
        rules=[config_pb2.RequirementRule(match=RouteMatch(prefix="/"), requires=requirement)],
        bypass_cors_preflight=True,
    )
    return [HttpFilter(name=principals.JWT, typed_config=wire.pack(config))]


def _provider(rule: TokenRule) -> config_pb2.JwtProvider:
    return config_pb2.JwtProvider(
        issuer=rule.issuer,
        audiences=rule.audiences,
        local_jwks=DataSource(inline_string=rule.keys or _NO_KEYS),
        forward=rule.forward,
        from_headers=[config_pb2.JwtHeader(name=name, value_prefix=prefix) for name, prefix in rule.headers],
        from_params=rule.parameters,
        from_cookies=rule.cookies,
        forward_payload_header=rule.payload_header,
        payload_in_metadata=principals.PAYLOAD,
        clock_skew_seconds=_SKEW_SECONDS,
        claim_to_headers=[
            config_pb2.JwtClaimToHeader(header_name=header, claim_name=claim) for header, claim in rule.claim_headers
        ],
    )
