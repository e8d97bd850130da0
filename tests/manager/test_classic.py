"""Istio classic's kinds: what is refused, with which sentence. What the rest means is in `meaning/classic-*`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from meshwright.manager.model import parse


def judged(kind: str, spec: str) -> list[tuple[str, str]]:
    """Return the faults of an object, as (field, sentence)."""
    document: dict[str, Any] = {"apiVersion": "config.istio.io/v1alpha2", "kind": kind, "metadata": {"name": "it"}}
    result = parse.parse(json.dumps({**document, "spec": yaml.safe_load(spec)}))
    return [(fault.field, fault.message) for fault in result] if isinstance(result, list) else []


RULE = "destination: {name: reviews}\n"
REFUSED = {
    "RouteRule": [
        ("{}", "spec.destination", "required"),
        ("destination: {}", "spec.destination", "names no service"),
        ("destination: {name: a, service: b.example.com}", "spec.destination", "service says all of it"),
        ("destination: {name: Reviews}", "spec.destination.name", "isn't a valid name"),
        ("destination: {name: a, labels: {version: v1}}", "spec.destination.labels", "route's entries"),
        (RULE + "presedence: 1", "spec.presedence", "did you mean precedence?"),
        (RULE + "precedence: high", "spec.precedence", "a whole number"),
        (RULE + "precedence: 2147483648", "spec.precedence", "2147483647 or less"),
        (RULE + "route: [{weight: 30}, {weight: 60}]", "spec.route", "add up to 90"),
        (RULE + "route: [{weight: 50}]", "spec.route", "add up to 50"),
        (RULE + "route: [{weight: 101}]", "spec.route[0].weight", "100 or less"),
        (RULE + "route: [{weight: -1}]", "spec.route[0].weight", "can't be negative"),
        (
            RULE + "route: [{destination: {name: a, labels: {version: v1}}}]",
            "spec.route[0]",
            "labels inside its destination",
        ),
        (RULE + "redirect: {}", "spec.redirect", "back to where"),
        (RULE + "redirect: {uri: /a}\nroute: [{weight: 100}]", "spec.route", "redirect and route"),
        (RULE + "redirect: {uri: /a}\nrewrite: {uri: /b}", "spec.rewrite", "redirect and rewrite"),
        (RULE + "redirect: {uri: /a}\nwebsocketUpgrade: true", "spec.websocketUpgrade", "redirect and websocket"),
        (
            RULE + "redirect: {uri: /a}\nhttpFault: {abort: {httpStatus: 503}}",
            "spec.httpFault",
            "redirect and httpFault",
        ),
        (RULE + "rewrite: {}", "spec.rewrite", "changes nothing"),
        (RULE + "httpReqTimeout: {}", "spec.httpReqTimeout", "write simpleTimeout"),
        (RULE + "httpReqTimeout: {custom: {}}", "spec.httpReqTimeout", "doesn't load"),
        (RULE + "httpReqTimeout: {simpleTimeout: {timeout: 5}}", "spec.httpReqTimeout.simpleTimeout.timeout", "1.5s"),
        (RULE + "httpReqTimeout: {simpleTimeout: {timeout: 0s}}", "spec.httpReqTimeout.simpleTimeout.timeout", "1ms"),
        (
            RULE + "httpReqTimeout: {simpleTimeout: {timeout: 1500us}}",
            "spec.httpReqTimeout.simpleTimeout.timeout",
            "whole milliseconds",
        ),
        (
            RULE + "http_req_timeout: {}\nhttpReqTimeout: {}",
            "spec",
            "has both http_req_timeout and httpReqTimeout",
        ),
        (RULE + "httpReqRetries: {custom: {}}", "spec.httpReqRetries", "doesn't load"),
        (
            RULE + "httpReqRetries: {simpleRetry: {attempts: -1}}",
            "spec.httpReqRetries.simpleRetry.attempts",
            "negative",
        ),
        (RULE + "httpFault: {}", "spec.httpFault", "does nothing"),
        (RULE + "httpFault: {delay: {percent: 10}}", "spec.httpFault.delay", "needs one length"),
        (
            RULE + "httpFault: {delay: {fixedDelay: 1s, exponentialDelay: 1s}}",
            "spec.httpFault.delay",
            "needs one length",
        ),
        (RULE + "httpFault: {delay: {percent: 101, fixedDelay: 1s}}", "spec.httpFault.delay.percent", "write 100"),
        (RULE + "httpFault: {abort: {percent: 10}}", "spec.httpFault.abort", "needs one error"),
        (RULE + "httpFault: {abort: {http2Error: REFUSED}}", "spec.httpFault.abort", "can't send on purpose"),
        (RULE + "httpFault: {abort: {httpStatus: 601}}", "spec.httpFault.abort.httpStatus", "600 or less"),
        (RULE + "httpFault: {abort: {httpStatus: 100}}", "spec.httpFault.abort.httpStatus", "200 to 599"),
        (RULE + "httpFault: {abort: {grpcStatus: BUSY}}", "spec.httpFault.abort.grpcStatus", "isn't a gRPC status"),
        (RULE + "l4Fault: {throttle: {percent: 1}}", "spec.l4Fault", "write httpFault"),
        (RULE + "match: {udp: {}}", "spec.match", "proxies take TCP only"),
        (RULE + "match: {source: {}}", "spec.match.source", "names nobody"),
        (RULE + "match: {tcp: {}, request: {}}", "spec.match", "one rule for each"),
        (RULE + "match: {tcp: {sourceSubnet: [ten]}}", "spec.match.tcp.sourceSubnet[0]", "isn't a subnet"),
        (
            RULE + "match: {tcp: {}}\nhttpReqTimeout: {simpleTimeout: {timeout: 1s}}",
            "spec.httpReqTimeout",
            "matches connections",
        ),
        (RULE + "match: {request: {headers: {uri: {prefix: ''}}}}", "spec.match.request", "write the path"),
        (RULE + "match: {request: {headers: {uri: {}}}}", "spec.match.request.headers.uri", "compares with nothing"),
        (
            RULE + "match: {request: {headers: {a: {exact: b, prefix: c}}}}",
            "spec.match.request.headers.a",
            "one of exact, prefix and regex",
        ),
        (
            RULE + "match: {request: {headers: {a: {regex: '(?=b)'}}}}",
            "spec.match.request.headers.a.regex",
            "RE2 has no looking",
        ),
        (RULE + "match: {request: {headers: {'a b': {exact: c}}}}", "spec.match.request", "isn't a header's name"),
        (RULE + "appendHeaders: {'': a}", "spec.appendHeaders", "isn't a header's name"),
        (RULE + "mirror: {}", "spec.mirror", "names no service"),
    ],
    "DestinationPolicy": [
        ("{}", "spec.destination", "required"),
        (RULE + "loadBalancing: {name: BEST}", "spec.loadBalancing.name", "ROUND_ROBIN"),
        (RULE + "loadBalancing: {}", "spec.loadBalancing", "says nothing"),
        (RULE + "loadBalancing: {custom: {}}", "spec.loadBalancing", "doesn't load"),
        (RULE + "circuitBreaker: {}", "spec.circuitBreaker", "write simpleCb"),
        (
            RULE + "circuitBreaker: {simpleCb: {maxConnections: -1}}",
            "spec.circuitBreaker.simpleCb.maxConnections",
            "negative",
        ),
        (
            RULE + "circuitBreaker: {simpleCb: {httpMaxEjectionPercent: 101}}",
            "spec.circuitBreaker.simpleCb.httpMaxEjectionPercent",
            "100 or less",
        ),
        (RULE + "custom: {}", "spec", "doesn't load"),
    ],
    "IngressRule": [
        (RULE, "spec.destinationPort", "destinationPort or destinationPortName"),
        (
            RULE + "destinationPort: 80\ndestinationPortName: http",
            "spec.destinationPort",
            "destinationPort or destinationPortName",
        ),
        (RULE + "destinationPort: 0", "spec.destinationPort", "1 or more"),
        (RULE + "destinationPort: 80\nmatch: {source: {name: a}}", "spec.match.source", "no workloads of the mesh"),
        (RULE + "destinationPort: 80\nmatch: {tcp: {}}", "spec.match.tcp", "for requests"),
        ("destination: {name: a, labels: {b: c}}\ndestinationPort: 80", "spec.destination.labels", "route's entries"),
    ],
    "EgressRule": [
        ("ports: [{port: 80, protocol: http}]", "spec.destination", "required"),
        ("destination: {service: a.com}", "spec.ports", "required"),
        ("destination: {service: a.b.svc.cluster.local}", "spec.destination", "one of the mesh"),
        ("destination: {service: a.com}\nports: []", "spec.ports", "at least 1"),
        ("destination: {name: a}\nports: [{port: 80, protocol: http}]", "spec.destination.service", "required"),
        (
            "destination: {service: 'a.*.com'}\nports: [{port: 80, protocol: http}]",
            "spec.destination",
            "isn't a domain",
        ),
        ("destination: {service: '*.'}\nports: [{port: 80, protocol: http}]", "spec.destination", "isn't a domain"),
        ("destination: {service: '*a'}\nports: [{port: 80, protocol: http}]", "spec.destination", "isn't a domain"),
        ("destination: {service: a.com}\nports: [{port: 80, protocol: tcp}]", "spec.ports[0].protocol", "'http'"),
        (
            "destination: {service: a.com}\nports: [{port: 80, protocol: http}, {port: 80, protocol: grpc}]",
            "spec.ports",
            "port 80 is there twice",
        ),
    ],
}


@pytest.mark.parametrize(
    ("kind", "spec", "field", "says"),
    [(kind, *case) for kind, cases in REFUSED.items() for case in cases],
)
def test_what_makes_no_sense_is_refused_by_field_and_remedy(kind: str, spec: str, field: str, says: str) -> None:
    faults = judged(kind, spec)
    assert [(where, what) for where, what in faults if where == field and says in what], faults


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        ("RouteRule", RULE),
        ("RouteRule", RULE + "route: [{labels: {version: v1}}]"),
        ("RouteRule", RULE + "route: [{weight: 0, labels: {version: v1}}, {weight: 100}]"),
        ("RouteRule", RULE + "httpFault: {abort: {grpcStatus: '14'}}"),
        ("RouteRule", RULE + "match: {request: {headers: {a: {regex: 'a|b'}}}}"),
        ("DestinationPolicy", RULE),
        ("IngressRule", RULE + "destinationPort: 80"),
        ("EgressRule", "destination: {service: '*'}\nports: [{port: 80, protocol: http}]"),
        ("EgressRule", "destination: {service: '*-eu.example.com'}\nports: [{port: 80, protocol: http}]"),
    ],
)
def test_what_the_original_took_is_taken(kind: str, spec: str) -> None:
    assert judged(kind, spec) == []
