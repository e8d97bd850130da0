"""Istio's present kinds: what is refused, with which sentence. What the rest means is in `meaning/istio-*`."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from meshwright.manager.model import kinds, parse

GROUPS = {kind.name: kind.api_version for kind in kinds.ISTIO}


def judged(kind: str, spec: str, api_version: str = "") -> parse.Parsed | list[tuple[str, str]]:
    """Return the object, or its faults as (field, sentence)."""
    document: dict[str, Any] = {"apiVersion": api_version or GROUPS[kind], "kind": kind, "metadata": {"name": "it"}}
    result = parse.parse(json.dumps({**document, "spec": yaml.safe_load(spec)}))
    return result if isinstance(result, parse.Parsed) else [(fault.field, fault.message) for fault in result]


HTTP = "hosts: [a]\nhttp: [{route: [{destination: {host: a}}], %s}]"
MATCH = "hosts: [a]\nhttp: [{match: [{%s}], route: [{destination: {host: a}}]}]"
RULE = "host: a\ntrafficPolicy: {%s}"
ENTRY = "hosts: [a.com]\nports: [{number: 80, name: http, protocol: HTTP}]\n%s"
SERVER = "servers: [{hosts: ['*'], port: {number: 443, name: https, protocol: HTTPS}, %s}]"
PLAIN = "servers: [{hosts: ['*'], port: {number: 80, name: http, protocol: HTTP}, %s}]"
SOURCE = "rules: [{from: [{source: {%s}}]}]"
CALL = "rules: [{to: [{operation: {%s}}]}]"
WHEN = "rules: [{when: [{%s}]}]"
TOKEN = "jwtRules: [{issuer: i, %s}]"

REFUSED = {
    "VirtualService": [
        ("hosts: [a]", "spec.http", "no routes"),
        ("hosts: ['a b']\nhttp: [{directResponse: {status: 200}}]", "spec.hosts[0]", "isn't a host"),
        ("hosts: ['*']\nhttp: [{directResponse: {status: 200}}]", "spec.hosts", "for gateways"),
        ("hosts: [a, a]\nhttp: [{directResponse: {status: 200}}]", "spec.hosts", "there twice"),
        ("hosts: [a]\ngateways: [A]\nhttp: [{directResponse: {status: 200}}]", "spec.gateways[0]", "isn't a gateway"),
        (
            "hosts: [a]\nexportTo: ['*', b]\nhttp: [{directResponse: {status: 200}}]",
            "spec.exportTo",
            "remove the others",
        ),
        ("hosts: [a]\nexportTo: [B]\nhttp: [{directResponse: {status: 200}}]", "spec.exportTo", "isn't a namespace"),
        ("hosts: [a]\nhttp: [{}]", "spec.http[0]", "says nothing of where requests go"),
        (HTTP % "redirect: {uri: /}", "spec.http[0]", "has route and redirect"),
        (HTTP % "rewrites: {}", "spec.http[0].rewrites", "did you mean rewrite?"),
        (HTTP % "timeout: 5", "spec.http[0].timeout", "1.5s"),
        (HTTP % "retries: {attempts: 0, retryOn: 5xx}", "spec.http[0].retries", "nothing is tried again"),
        (HTTP % "retries: {retryOn: often}", "spec.http[0].retries.retryOn", "isn't a reason to try again"),
        (HTTP % "mirrorPercentage: {value: 1}", "spec.http[0]", "no mirror"),
        (HTTP % "mirror: {host: a}, mirrors: [{destination: {host: a}}]", "spec.http[0]", "mirror and mirrors"),
        (HTTP % "rewrite: {}", "spec.http[0].rewrite", "changes nothing"),
        (HTTP % "rewrite: {uri: /, uriRegexRewrite: {match: a, rewrite: b}}", "spec.http[0].rewrite", "one of them"),
        (
            HTTP % "rewrite: {uriRegexRewrite: {match: '(?=a)', rewrite: b}}",
            "spec.http[0].rewrite.uriRegexRewrite.match",
            "RE2 has no looking",
        ),
        (HTTP % "fault: {}", "spec.http[0].fault", "does nothing"),
        (HTTP % "fault: {abort: {http2Error: A}}", "spec.http[0].fault.abort", "can't send on purpose"),
        (HTTP % "fault: {delay: {percentage: {value: 101}, fixedDelay: 1s}}", "", "write 100"),
        (HTTP % "headers: {request: {set: {'a b': c}}}", "", "isn't a header's name"),
        (MATCH % "uri: {exact: a, prefix: b}", "spec.http[0].match[0].uri", "one of exact, prefix and regex"),
        (MATCH % "uri: {}", "spec.http[0].match[0].uri", "compares with nothing"),
        (MATCH % "uri: {prefix: ''}", "spec.http[0].match[0]", "at least '/'"),
        (MATCH % "uri: {regex: a}, ignoreUriCase: true", "spec.http[0].match[0]", "(?i)"),
        (
            "hosts: [a]\nhttp: [{route: [{destination: {host: a}}, {destination: {host: b}}]}]",
            "spec.http[0].route",
            "all weights are 0",
        ),
        ("hosts: [a]\nhttp: [{redirect: {}}]", "spec.http[0].redirect", "back to where"),
        ("hosts: [a]\nhttp: [{redirect: {uri: /, redirectCode: 200}}]", "spec.http[0].redirect.redirectCode", "301"),
        ("hosts: [a]\nhttp: [{redirect: {uri: /}, timeout: 1s}]", "spec.http[0]", "has timeout beside redirect"),
        ("hosts: [a]\nhttp: [{directResponse: {status: 99}}]", "spec.http[0].directResponse.status", "200 or more"),
        ("hosts: [a]\nhttp: [{directResponse: {status: 200, body: {bytes: '!'}}}]", "", "isn't base64"),
        (
            "hosts: [a]\nhttp: [{delegate: {name: b}, headers: {request: {remove: [c]}}}]",
            "spec.http[0]",
            "headers beside",
        ),
        ("http: [{delegate: {name: b}}]", "spec.http[0].delegate", "can't delegate further"),
        ("gateways: [a]\nhttp: [{directResponse: {status: 200}}]", "spec.gateways", "is a delegate"),
        ("tcp: [{route: [{destination: {host: a}}]}]", "spec.hosts", "need hosts"),
        ("hosts: [a]\ntls: [{route: [{destination: {host: a}}]}]", "spec.tls[0].match", "required"),
        (
            "hosts: [a.com]\ntls: [{match: [{sniHosts: [b.com]}], route: [{destination: {host: a}}]}]",
            "",
            "hosts: add it",
        ),
        ("hosts: [a]\ntcp: [{match: [{sourceSubnet: a}], route: [{destination: {host: a}}]}]", "", "isn't a subnet"),
    ],
    "DestinationRule": [
        ("{}", "spec.host", "required"),
        ("host: a\nsubsets: [{name: v1}, {name: v1}]", "spec.subsets", "v1 is there twice"),
        (RULE % "loadBalancer: {simple: BEST}", "spec.trafficPolicy.loadBalancer.simple", "ROUND_ROBIN"),
        (RULE % "loadBalancer: {consistentHash: {}}", "spec.trafficPolicy.loadBalancer.consistentHash", "one key"),
        (RULE % "loadBalancer: {consistentHash: {useSourceIp: true, maglev: {tableSize: 4}}}", "", "a prime number"),
        (RULE % "loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}", "", "one of them"),
        (RULE % "loadBalancer: {zoneAwareLbSetting: {}}", "", "write localityLbSetting"),
        (RULE % "loadBalancer: {localityLbSetting: {distribute: [{from: a, to: {b: 90}}]}}", "", "add up to 90"),
        (RULE % "loadBalancer: {localityLbSetting: {failover: [{from: a, to: a}]}}", "", "to itself"),
        (RULE % "connectionPool: {tcp: {connectTimeout: 1}}", "", "1.5s"),
        (RULE % "connectionPool: {http: {useClientProtocol: true, h2UpgradePolicy: UPGRADE}}", "", "one of them"),
        (RULE % "outlierDetection: {maxEjectionPercent: 101}", "", "100 or less"),
        (RULE % "outlierDetection: {outlierDetectionHttpErrorCodes: {}}", "", "isn't known"),
        (RULE % "tls: {mode: MUTUAL}", "spec.trafficPolicy.tls", "shows a certificate"),
        (RULE % "tls: {mode: SIMPLE, clientCertificate: a}", "spec.trafficPolicy.tls", "shows no certificate"),
        (RULE % "tls: {mode: DISABLE, sni: a}", "spec.trafficPolicy.tls", "takes no"),
        (RULE % "tls: {mode: SIMPLE, caCrl: a}", "spec.trafficPolicy.tls", "isn't known"),
        (RULE % "tls: {mode: SIMPLE, credentialName: a}", "spec.trafficPolicy.tls", "at gateways only"),
        (RULE % "tls: {mode: SIMPLE, insecureSkipVerify: true, caCertificates: a}", "", "believes everybody"),
        (RULE % "tunnel: {}", "spec.trafficPolicy", "isn't known"),
        (RULE % "proxyProtocol: {}", "spec.trafficPolicy", "isn't known"),
        (RULE % "portLevelSettings: [{port: {number: 1}}, {port: {number: 1}}]", "", "port 1 is there twice"),
        ("host: a\nworkloadSelector: {matchLabels: {}}", "spec.workloadSelector.matchLabels", "at least 1"),
    ],
    "ServiceEntry": [
        ("ports: []", "spec.hosts", "required"),
        ("hosts: ['*']", "spec.hosts", "every host there is"),
        ("hosts: [a.b.svc.cluster.local]", "spec.hosts", "the name of a Service"),
        (ENTRY % "resolution: STATIC", "spec.endpoints", "needs the addresses"),
        (
            ENTRY % "resolution: STATIC\nendpoints: [{address: a.com}]",
            "spec.endpoints[0].address",
            "isn't an IP address",
        ),
        (ENTRY % "endpoints: [{address: 10.0.0.1}]", "spec.endpoints", "where the caller dialled"),
        (ENTRY % "resolution: DNS\nendpoints: [{address: b.com, ports: {x: 1}}]", "spec.endpoints[0].ports", "of http"),
        (
            ENTRY % "resolution: DNS\nendpoints: [{address: 'unix:///a'}]",
            "spec.endpoints[0].address",
            "write resolution",
        ),
        (ENTRY % "resolution: STATIC\nendpoints: [{address: 'unix://a'}]", "", "unix:///absolute/path"),
        (ENTRY % "resolution: STATIC\nendpoints: [{address: 'unix:///a', ports: {http: 1}}]", "", "has no ports"),
        (ENTRY % "resolution: DYNAMIC_DNS", "spec.resolution", "write DNS"),
        (
            ENTRY % "resolution: STATIC\nendpoints: [{address: 10.0.0.1}]\nworkloadSelector: {labels: {a: b}}",
            "",
            "one of",
        ),
        ("hosts: ['*.a.com']\nresolution: DNS", "spec.hosts", "can't be looked up"),
        ("hosts: [a.com]\nports: [{number: 1, name: a}, {number: 1, name: b}]", "spec.ports", "the number 1"),
        ("hosts: [a.com]\nports: [{number: 1, name: a, protocol: UDP}]", "spec.ports[0].protocol", "isn't a protocol"),
        ("hosts: [a.com]\naddresses: [x]", "spec.addresses[0]", "isn't a subnet"),
    ],
    "Gateway": [
        ("servers: []", "spec.servers", "at least 1"),
        (SERVER % "name: a", "spec.servers[0]", "needs tls"),
        (SERVER % "tls: {mode: SIMPLE}", "spec.servers[0].tls", "none is named"),
        (
            SERVER % "tls: {mode: SIMPLE, credentialName: a, credentialNames: [b]}",
            "",
            "credentialName and credentialNames",
        ),
        (SERVER % "tls: {mode: PASSTHROUGH, credentialName: a}", "spec.servers[0].tls", "shows no certificate"),
        (SERVER % "tls: {mode: AUTO_PASSTHROUGH}", "spec.servers[0].tls", "write PASSTHROUGH"),
        (SERVER % "tls: {mode: SIMPLE, serverCertificate: a}", "spec.servers[0].tls", "go together"),
        (
            SERVER % "tls: {mode: MUTUAL, serverCertificate: a, privateKey: b}",
            "spec.servers[0].tls",
            "believes clients",
        ),
        (
            SERVER % "tls: {mode: SIMPLE, credentialName: a, minProtocolVersion: TLSV1_3, maxProtocolVersion: TLSV1_2}",
            "spec.servers[0].tls",
            "swap them",
        ),
        (SERVER % "tls: {mode: SIMPLE, credentialName: a, verifyCertificateHash: [b]}", "", "64 digits"),
        (SERVER % "tls: {mode: SIMPLE, credentialName: a, httpsRedirect: true}", "spec.servers[0]", "for plain HTTP"),
        (PLAIN % "tls: {mode: SIMPLE, credentialName: a}", "spec.servers[0]", "is plain text"),
        (PLAIN % "defaultEndpoint: a", "spec.servers[0]", "isn't known"),
        ("servers: [{hosts: ['a/b/c'], port: {number: 80, name: http, protocol: HTTP}}]", "", "isn't a host"),
        (
            "servers: [{hosts: [a], port: {number: 80, name: h, protocol: HTTP}}, "
            "{hosts: [b], port: {number: 80, name: s, protocol: TLS}, tls: {}}]",
            "spec.servers[1].port",
            "plain text and TLS",
        ),
    ],
    "PeerAuthentication": [
        ("mtls: {mode: MAYBE}", "spec.mtls.mode", "STRICT"),
        ("portLevelMtls: {'80': {mode: STRICT}}", "spec.portLevelMtls", "write selector"),
        ("selector: {matchLabels: {a: b}}\nportLevelMtls: {http: {mode: STRICT}}", "", "isn't a port"),
        ("targetRefs: [{kind: Gateway, name: a}]", "spec", "write selector.matchLabels"),
    ],
    "AuthorizationPolicy": [
        ("action: CUSTOM\nrules: [{}]", "spec.provider", "write provider.name"),
        ("provider: {name: a}", "spec.provider", "asks nobody"),
        ("action: DENY", "spec.rules", "for no call"),
        ("action: FORBID", "spec.action", "'DENY'"),
        ("targetRef: {}", "spec", "write selector.matchLabels"),
        (SOURCE % "", "spec.rules[0].from[0].source", "says nothing of the caller"),
        (SOURCE % "principals: ['a*b']", "spec.rules[0].from[0].source.principals[0]", "in the middle"),
        (SOURCE % "ipBlocks: [a]", "spec.rules[0].from[0].source.ipBlocks[0]", "isn't a subnet"),
        (SOURCE % "serviceAccounts: [a], namespaces: [b]", "spec.rules[0].from[0].source", "says both"),
        (SOURCE % "principal: [a]", "spec.rules[0].from[0].source.principal", "did you mean principals?"),
        (CALL % "", "spec.rules[0].to[0].operation", "says nothing of the call"),
        (CALL % "ports: [http]", "spec.rules[0].to[0].operation.ports[0]", "isn't a port"),
        (CALL % "ports: [80]", "spec.rules[0].to[0].operation.ports[0]", "in quotes"),
        (CALL % "paths: ['/a{*}']", "spec.rules[0].to[0].operation.paths[0]", "as a whole"),
        (CALL % "paths: ['/{**}/{**}']", "spec.rules[0].to[0].operation.paths[0]", "isn't a template"),
        (WHEN % "key: a, values: [b]", "spec.rules[0].when[0]", "isn't an attribute"),
        (WHEN % "key: source.ip", "spec.rules[0].when[0]", "write values"),
        (WHEN % "key: 'experimental.envoy.filters.a[b]', values: [c]", "spec.rules[0].when[0]", "doesn't load"),
    ],
    "RequestAuthentication": [
        (TOKEN % "", "spec.jwtRules[0]", "has no keys"),
        (TOKEN % "jwksUri: 'https://a/b', jwks: '{\"keys\": []}'", "spec.jwtRules[0]", "one of them"),
        (TOKEN % "jwks: a", "spec.jwtRules[0].jwks", "JSON Web Key Set"),
        (TOKEN % "jwksUri: ftp", "spec.jwtRules[0].jwksUri", "isn't an address"),
        ("jwtRules: [{jwks: '{\"keys\": []}'}]", "spec.jwtRules[0].issuer", "required"),
    ],
    "Telemetry": [
        ("tracing: [{randomSamplingPercentage: 101}]", "spec.tracing[0].randomSamplingPercentage", "write 100"),
        ("tracing: [{customTags: {a: {}}}]", "spec.tracing[0].customTags.a", "one source"),
        ("tracing: [{}, {}]", "spec.tracing", "the same direction"),
    ],
}


@pytest.mark.parametrize(
    ("kind", "spec", "field", "says"),
    [(kind, *case) for kind, cases in REFUSED.items() for case in cases],
)
def test_what_makes_no_sense_is_refused_by_field_and_remedy(kind: str, spec: str, field: str, says: str) -> None:
    faults = judged(kind, spec)
    assert isinstance(faults, list)
    assert [(where, what) for where, what in faults if field in ("", where) and says in what], faults


@pytest.mark.parametrize("kind", kinds.ISTIO, ids=lambda kind: kind.name)
def test_an_object_is_one_whatever_version_it_is_written_in(kind: kinds.Kind) -> None:
    specs = {
        "WorkloadEntry": "{address: 10.0.0.1, serviceAccount: a}",
        "VirtualService": HTTP % "timeout: 1s",
        "DestinationRule": "host: a",
        "ServiceEntry": ENTRY % "",
        "Gateway": PLAIN % "",
    }
    found = [
        judged(kind.name, specs.get(kind.name, "{}"), version)
        for version in (kind.api_version, *(spelling.api_version for spelling in kind.spellings))
    ]
    assert len(found) > 1
    texts = {parsed.text for parsed in found if isinstance(parsed, parse.Parsed)}
    assert all(isinstance(parsed, parse.Parsed) for parsed in found), found
    assert len(texts) == 1
