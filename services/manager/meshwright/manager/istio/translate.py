"""What the objects of Istio's present API mean, in the words of the inner model."""

from __future__ import annotations

from collections.abc import Iterable

from meshwright.manager.istio import access, borders, observing, policies, routes
from meshwright.manager.istio.authorization_policy import AuthorizationPolicy
from meshwright.manager.istio.destination_rule import DestinationRule
from meshwright.manager.istio.gateway import Gateway
from meshwright.manager.istio.peer_authentication import PeerAuthentication
from meshwright.manager.istio.request_authentication import RequestAuthentication
from meshwright.manager.istio.service_entry import ServiceEntry
from meshwright.manager.istio.telemetry import Telemetry
from meshwright.manager.istio.virtual_service import VirtualService
from meshwright.manager.model.access import Access, PeerRule, TokenRule
from meshwright.manager.model.external import External
from meshwright.manager.model.gateway import Gateway as GatewayPorts
from meshwright.manager.model.meaning import Context, Meaning, Notice
from meshwright.manager.model.observing import Observing
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.routing import Routes
from meshwright.manager.model.traffic import TrafficPolicy


def translate(members: Iterable[Parsed], context: Context) -> Meaning:
    """Translate a namespace's objects; of several VirtualServices of a host the routes follow one another by name."""
    ordered = sorted(members, key=lambda each: each.key)
    delegates = {
        parsed.key.name: parsed.document
        for parsed in ordered
        if isinstance(parsed.document, VirtualService) and not parsed.document.spec.hosts
    }
    found: list[Routes] = []
    advice: list[TrafficPolicy] = []
    allowed: list[Access] = []
    peers: list[PeerRule] = []
    tokens: list[TokenRule] = []
    observed: list[Observing] = []
    gateways: list[GatewayPorts] = []
    externals: list[External] = []
    notices: list[Notice] = []
    for parsed in ordered:
        match parsed.document:
            case VirtualService() as document:
                translation = routes.Translation(parsed.key, document, delegates)
                found += translation.routes()
                notices += translation.notices
            case DestinationRule() as document:
                advice.append(policies.policy(parsed.key, document.spec))
                notices += policies.notices(parsed.key, document.spec)
            case ServiceEntry() as document:
                externals.append(borders.external(parsed.key, document.spec))
                notices += borders.notices(parsed.key, document.spec)
            case Gateway() as document:
                gateways.append(borders.gateway(parsed.key, document.spec))
            case AuthorizationPolicy() as document:
                dry_run = document.metadata.annotations.get(access.DRY_RUN) == "true"
                allowed.append(access.access(parsed.key, document.spec, context, dry_run=dry_run))
            case PeerAuthentication() as document:
                peers.append(access.peers(parsed.key, document.spec))
            case RequestAuthentication() as document:
                tokens += access.tokens(parsed.key, document.spec)
                notices += access.notices(parsed.key, document.spec)
            case Telemetry() as document:
                observed.append(observing.observing(parsed.key, document.spec))
                notices += observing.notices(parsed.key, document.spec)
    return Meaning(
        tuple(found),
        tuple(advice),
        tuple(allowed),
        tuple(peers),
        tuple(tokens),
        notices=tuple(dict.fromkeys(notices)),
        gateways=tuple(gateways),
        externals=tuple(externals),
        observed=tuple(observed),
    )
