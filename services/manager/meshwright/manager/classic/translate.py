"""What Istio classic's objects mean, in the words of the inner model."""

from __future__ import annotations

from collections.abc import Iterable

from meshwright.manager.classic import borders, policies, routes
from meshwright.manager.classic.destination_policy import DestinationPolicy
from meshwright.manager.classic.egress_rule import EgressRule
from meshwright.manager.classic.ingress_rule import IngressRule
from meshwright.manager.classic.route_rule import RouteRule
from meshwright.manager.model.meaning import Context, Meaning, Notice
from meshwright.manager.model.parse import Parsed
from meshwright.manager.model.traffic import TrafficPolicy


def translate(members: Iterable[Parsed], context: Context) -> Meaning:
    """Translate a namespace's objects."""
    rules, entries, exits = [], [], []
    advice: list[TrafficPolicy] = []
    notices: list[Notice] = []
    for parsed in sorted(members, key=lambda each: each.key):
        match parsed.document:
            case RouteRule() as document:
                rules.append(parsed)
                notices += routes.notices(parsed.key, document.spec)
            case DestinationPolicy() as document:
                advice.append(policies.policy(parsed.key, document.spec, context.namespace))
            case IngressRule():
                entries.append(parsed)
            case EgressRule() as document:
                exits.append(parsed)
                notices += borders.notices(parsed.key, document.spec)
                if made := borders.origination(parsed.key, document.spec):
                    advice.append(made)
    ways_in, led_in = borders.ingress(entries, context.namespace)
    ways_out, led_out = borders.through_proxy(exits, context.namespace, context.root_namespace)
    externals = [
        borders.external(parsed.key, parsed.document.spec)
        for parsed in exits
        if isinstance(parsed.document, EgressRule)
    ]
    return Meaning(
        (*routes.routes(rules, context.namespace), *led_in, *led_out),
        tuple(advice),
        notices=tuple(notices),
        gateways=(*ways_in, *ways_out),
        externals=tuple(externals),
    )
