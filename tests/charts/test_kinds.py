"""The definitions of our kinds take every document that `meshwright apply` takes, and refuse what it refuses."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from string import Template
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from meshwright.manager.model import kinds, parse

from .conftest import ROOT

OBJECTS = ROOT / "services/platform/meshwright/platform/demo/objects"
FILLING = {
    "outage": "deny", "v1": "90", "v2": "10", "quota": "20", "mallory": "spiffe://mesh.local/ns/demo/sa/mallory",
    "name": "shop", "port": "8080", "app": "shop", "version": "v1",
    "inbound": "/run/in.sock", "outbound": "/run/out.sock",
}  # fmt: skip


@pytest.fixture
def definitions(render):
    return render("meshwright-crds", "groups.legacy=true")


@pytest.fixture
def judge(definitions):
    """Return what an API server would say about a document: its faults."""
    schemas = {
        (f"{d['spec']['group']}/{version['name']}", d["spec"]["names"]["kind"]): closed(
            version["schema"]["openAPIV3Schema"]
        )
        for d in definitions
        for version in d["spec"]["versions"]
    }

    def faults(document: dict[str, Any]) -> list[str]:
        validator = jsonschema.Draft202012Validator(
            schemas[document["apiVersion"], document["kind"]],
            format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
        )
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]

    return faults


def closed(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema as the API server reads it for kubectl: unknown fields are faults (metadata aside)."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: closed(each) for name, each in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            result["additionalProperties"] = set(schema["properties"]) == {"name"}
    if "items" in schema:
        result["items"] = closed(schema["items"])
    return result


def demo() -> list[dict[str, Any]]:
    text = "\n---\n".join(Template(path.read_text()).substitute(FILLING) for path in sorted(OBJECTS.glob("*.yaml")))
    return [document for document in yaml.safe_load_all(text) if document]


def test_there_is_a_definition_of_every_kind_that_is_applied(definitions):
    served = {
        (f"{d['spec']['group']}/{version['name']}", d["spec"]["names"]["kind"])
        for d in definitions
        for version in d["spec"]["versions"]
        if version["storage"]
    }
    assert served == {(kind.api_version, kind.name) for kind in kinds.KINDS if "/" in kind.api_version}


def test_definitions_are_ones_that_kubernetes_knows(definitions):
    for definition in definitions:
        kubernetes_validate.validate(definition, "1.34", strict=True)
        names = definition["spec"]["names"]
        group = definition["spec"]["group"]
        kind = kinds.find(f"{group}/{definition['spec']['versions'][0]['name']}", names["kind"])
        assert (kind.plural, kind.namespaced) == (names["plural"], definition["spec"]["scope"] == "Namespaced")
        assert definition["metadata"]["name"] == f"{names['plural']}.{definition['spec']['group']}"
        for version in definition["spec"]["versions"]:
            assert version["subresources"] == {"status": {}}
            assert {"Accepted", "Age"} <= {column["name"] for column in version["additionalPrinterColumns"]}


def test_versions_are_converted_by_the_manager_where_there_are_several(definitions):
    for definition in definitions:
        converted = definition["metadata"]["name"] in {kind.definition for kind in kinds.CONVERTED}
        assert ("conversion" in definition["spec"]) is converted
        if converted:
            client = definition["spec"]["conversion"]["webhook"]["clientConfig"]
            where = {"name": "meshwright-manager", "namespace": "meshwright-system", "path": "/convert", "port": 443}
            assert client == {"service": where}
        names, group = definition["spec"]["names"], definition["spec"]["group"]
        for version in definition["spec"]["versions"]:
            assert kinds.find(f"{group}/{version['name']}", names["kind"]), "the manager reads every version"


def test_schemas_are_structural(definitions):
    """Every field has a type, or is left open on purpose: Kubernetes takes no definition otherwise."""

    def look(schema: dict[str, Any], where: str) -> None:
        open_ = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
        assert "type" in schema or open_, where
        assert not (schema.get("properties") and schema.get("additionalProperties")), where
        for name, below in schema.get("properties", {}).items():
            look(below, f"{where}.{name}")
        for field in ("items", "additionalProperties"):
            if isinstance(schema.get(field), dict):
                look(schema[field], f"{where}[]")
        for name in schema.get("required", ()):
            assert name in schema["properties"], f"{where}.{name}"

    for definition in definitions:
        for version in definition["spec"]["versions"]:
            look(version["schema"]["openAPIV3Schema"], f"{definition['metadata']['name']} {version['name']}")


def test_every_document_of_the_demo_is_taken(judge):
    judged = [document for document in demo() if "/" in document["apiVersion"]]
    assert {document["kind"] for document in judged} == {
        "rule", "handler", "instance", "TrafficSplit", "WorkloadEntry", "Sidecar",
    }  # fmt: skip
    for document in judged:
        assert isinstance(parse.parse(json.dumps(document)), parse.Parsed)
        assert judge(document) == []


def test_whatever_tests_apply_is_taken(judge):
    """Documents of all tests' files: what the parser takes, the API server takes."""
    taken = 0
    for path in sorted(Path(ROOT / "tests").rglob("*.yaml")):
        try:
            documents = [each for each in yaml.safe_load_all(path.read_text()) if isinstance(each, dict)]
        except yaml.YAMLError:
            continue
        for document in documents:
            parsed = parse.parse(json.dumps(document, default=str))
            if isinstance(parsed, parse.Parsed) and "/" in parsed.kind.api_version:
                assert judge(document) == [], path
                taken += 1
    assert taken >= 10


SPLIT = {
    "apiVersion": "split.smi-spec.io/v1alpha4",
    "kind": "TrafficSplit",
    "metadata": {"name": "catalog", "namespace": "demo"},
    "spec": {"service": "catalog", "backends": [{"service": "catalog-v1", "weight": 1}]},
}
TARGET = {
    "apiVersion": "access.smi-spec.io/v1alpha4",
    "kind": "TrafficTarget",
    "metadata": {"name": "catalog", "namespace": "demo"},
    "spec": {
        "destination": {"kind": "ServiceAccount", "name": "catalog", "namespace": "demo"},
        "sources": [{"kind": "IdentityBinding", "name": "front", "group": "access.smi-spec.io"}],
        "rules": [{"kind": "HTTPRouteGroup", "name": "items", "matches": ["read"]}, {"kind": "UDPRoute", "name": "u"}],
    },
}
BINDING = {
    "apiVersion": "access.smi-spec.io/v1alpha4",
    "kind": "IdentityBinding",
    "metadata": {"name": "front", "namespace": "demo"},
    "spec": {"schemes": {"spiffeIdentities": ["cluster.local/ns/default/sa/a"], "serviceAccount": "front"}},
}
GROUP = {
    "apiVersion": "specs.smi-spec.io/v1alpha4",
    "kind": "HTTPRouteGroup",
    "metadata": {"name": "items", "namespace": "demo"},
    "spec": {
        "matches": [
            {"name": "read", "pathRegex": "/items/.*", "methods": ["GET"], "headers": {"x-one": "a.*"}},
            {"name": "list", "headers": [{"x-two": "b"}, {"x-three": "c"}]},
        ]
    },
}
TCP = {
    "apiVersion": "specs.smi-spec.io/v1alpha4",
    "kind": "TCPRoute",
    "metadata": {"name": "db", "namespace": "demo"},
    "spec": {"matches": {"name": "db", "ports": [5432]}},
}
OLD = [
    TARGET | {"apiVersion": "access.smi-spec.io/v1alpha3"},
    {
        **{name: TARGET[name] for name in ("kind", "metadata")},
        "apiVersion": "access.smi-spec.io/v1alpha1",
        "destination": {"kind": "ServiceAccount", "name": "catalog", "port": 80},
        "specs": [{"kind": "TCPRoute", "name": "db"}],
    },
    {
        **{name: TARGET[name] for name in ("kind", "metadata")},
        "apiVersion": "access.smi-spec.io/v1alpha2",
        "spec": {"destination": {"kind": "ServiceAccount", "name": "catalog", "port": 80}},
    },
    GROUP | {"apiVersion": "specs.smi-spec.io/v1alpha3"},
    {
        **{name: GROUP[name] for name in ("kind", "metadata")},
        "apiVersion": "specs.smi-spec.io/v1alpha4",
        "matches": GROUP["spec"]["matches"],
    },
    {
        **{name: GROUP[name] for name in ("kind", "metadata")},
        "apiVersion": "specs.smi-spec.io/v1alpha1",
        "matches": [{"name": "all", "pathRegex": ".*", "methods": ["*"]}],
    },
    *(
        {"apiVersion": f"specs.smi-spec.io/v1alpha{number}", "kind": "TCPRoute", "metadata": {"name": "all"}}
        for number in (1, 2, 3, 4)
    ),
    {**TCP, "kind": "UDPRoute"},
    {
        **SPLIT,
        "apiVersion": "split.smi-spec.io/v1alpha1",
        "spec": {
            "service": "catalog",
            "backends": [{"service": "v1", "weight": "500m"}, {"service": "v2", "weight": 1}],
        },
    },
    SPLIT | {"apiVersion": "split.smi-spec.io/v1alpha2"},
    SPLIT | {"apiVersion": "split.smi-spec.io/v1alpha3"},
]
CANARY = {
    "apiVersion": "smi.meshwright.io/v1beta1",
    "kind": "Canary",
    "metadata": {"name": "shop", "namespace": "demo"},
    "spec": {"services": [{"v1": "50%"}, {"v2": "12.5%"}]},
}
SECOND = {**CANARY, "spec": {"service": "shop", "backends": [{"service": "v1", "weight": "500m"}]}}
TLS = {
    **CANARY,
    "kind": "TLSConfig",
    "spec": {"subjectNames": ["shop.example.com"], "selector": {"matchLabels": {"app": "shop"}}},
}
MEASURED = {
    **CANARY,
    "kind": "Sidecar",
    "spec": {"selector": {"matchLabels": {"app": "shop"}}, "metricLabels": {"team": "shop"}},
}
ENTRY = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "WorkloadEntry",
    "metadata": {"name": "shop", "namespace": "demo"},
    "spec": {"address": "fd00::7", "ports": {"http": 80}, "labels": {"app": "shop"}, "serviceAccount": "shop"},
}
SIDECAR = {
    "apiVersion": "networking.istio.io/v1beta1",
    "kind": "Sidecar",
    "metadata": {"name": "shop", "namespace": "demo"},
    "spec": {
        "workloadSelector": {"labels": {"app": "shop"}},
        "ingress": [{"port": {"number": 80}, "bind": "10.0.0.7", "defaultEndpoint": "unix:///run/in.sock"}],
        "egress": [{"bind": "unix:///run/out.sock", "hosts": ["./*", "demo/catalog.demo.svc.cluster.local"]}],
    },
}
RULE = {
    "apiVersion": "config.istio.io/v1alpha2",
    "kind": "rule",
    "metadata": {"name": "limit"},
    "spec": {
        "match": True,
        "actions": [{"handler": "limiter", "instances": ["limited"]}],
        "requestHeaderOperations": [{"name": "x-one", "values": [1, "request.path"], "operation": "APPEND"}],
    },
}
HANDLER = {
    "apiVersion": "config.istio.io/v1alpha2",
    "kind": "handler",
    "metadata": {"name": "limiter"},
    "spec": {"compiledAdapter": "memquota", "params": {"quotas": [{"name": "limited", "maxAmount": 20}]}},
}

POLICY = {
    "apiVersion": "config.meshwright.io/v1alpha1",
    "kind": "Policy",
    "metadata": {"name": "shop", "namespace": "demo"},
    "spec": {
        "targets": [{"service": "shop"}],
        "allow": [{"principals": ["*/sa/front"], "paths": ["/items/*"], "except": [{"when": True}]}],
        "limits": [{"name": "each", "amount": 100, "per": "1m", "by": ["source.principal"], "burst": 20}],
        "log": [{"when": "response.code >= 500", "severity": "error", "fields": {"one": 1}}],
        "measure": [{"name": "shop_requests", "by": {"code": "response.code"}}],
        "answer": {"code": "NOT_FOUND"},
        "mode": "dry-run",
    },
}


@pytest.mark.parametrize(
    "document",
    [SPLIT, TARGET, BINDING, GROUP, TCP, *OLD, CANARY, SECOND, TLS, MEASURED, ENTRY, SIDECAR, RULE, HANDLER, POLICY],
    ids=lambda document: f"{document['kind']} {document['apiVersion'].rpartition('/')[2]}",
)
def test_the_documents_that_are_broken_below_are_good(judge, document):
    assert judge(document) == []
    assert isinstance(parse.parse(json.dumps(document)), parse.Parsed)


BROKEN = [
    (SPLIT, "spec.backends[0].weight", "10", "is not of type 'integer'"),
    (SPLIT, "spec.backends[0].weight", -1, "minimum"),
    (SPLIT, "spec.backends[0].weigth", 1, "weigth"),
    (SPLIT, "spec.backends", [], "should be non-empty"),
    (SPLIT, "spec.service", "Catalog!", "does not match"),
    (SPLIT, "spec.matches", [{"kind": "TCPRoute", "name": "some"}], "is not one of"),
    (TARGET, "spec.destination.kind", "Group", "is not one of"),
    (TARGET, "spec.rules[0].kind", "GRPCRoute", "is not one of"),
    (TARGET, "spec.sources[0].port", 80, "port"),
    (BINDING, "spec.schemes", {}, "non-empty|enough"),
    (BINDING, "spec.schemes.spiffeIdentities[0]", "nobody", "does not match"),
    (GROUP, "spec.matches[0].methods[0]", "get", "is not one of"),
    (GROUP, "spec.matches[0].path", "/", "path"),
    (TCP, "spec.matches.ports[0]", 0, "minimum"),
    (CANARY, "spec.services[0].v1", "50", "does not match"),
    (CANARY, "spec.services[0]", {"v1": "1%", "v3": "1%"}, "too many"),
    (TLS, "spec.selector.matchLabels", {}, "non-empty|enough"),
    (MEASURED, "spec.labels", {"a": "b"}, "labels"),
    (SPLIT, "metadata.name", "two.names", "does not match"),
    (SPLIT, "spec", None, "is not of type 'object'"),
    (ENTRY, "spec.address", "shop.example.com", "is not valid under any"),
    (ENTRY, "spec.serviceAccount", None, "is not of type 'string'"),
    (ENTRY, "spec.ports.http", 70_000, "maximum"),
    (ENTRY, "spec.labels.app", "two words", "does not match"),
    (SIDECAR, "spec.ingress[0].defaultEndpoint", "127.0.0.1:80", "does not match"),
    (SIDECAR, "spec.ingress[0].port.protocol", "TCP", "is not one of"),
    (SIDECAR, "spec.egress[0].hosts[0]", "catalog", "does not match"),
    (SIDECAR, "spec.workloadSelector.labels", {}, "non-empty|not have enough"),
]
BROKEN_FOR_MIXER = [
    (RULE, "spec.actions[0].instances", [], "should be non-empty"),
    (RULE, "spec.requestHeaderOperations[0].operation", "append", "is not one of"),
    (RULE, "spec.actions[0].hander", "x", "hander"),
    (HANDLER, "spec.compiledAdapter", "", "should be non-empty"),
    (HANDLER, "spec.parameters", {}, "parameters"),
    (RULE, "spec.language", "cel", "is not one of"),
    (POLICY, "spec.allow[0].path", ["/"], "path"),
    (POLICY, "spec.allow[0].except[0].wen", "x", "wen"),
    (POLICY, "spec.targets[0]", {}, "non-empty|enough"),
    (POLICY, "spec.limits[0].amount", 0, "minimum"),
    (POLICY, "spec.limits[0].name", "Two Words", "does not match"),
    (POLICY, "spec.answer.code", "PERMISSION DENIED", "is not one of"),
    (POLICY, "spec.mode", "off", "is not one of"),
]


def broken(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    result = copy.deepcopy(document)
    *way, last = (int(step) if step.isdigit() else step for step in re.findall(r"[^.\[\]]+", path))
    place: Any = result
    for step in way:
        place = place[step]
    place[last] = value
    return result


@pytest.mark.parametrize(("document", "path", "value", "says"), [*BROKEN, *BROKEN_FOR_MIXER])
def test_a_broken_document_is_refused_before_it_is_stored(judge, document, path, value, says):
    faults = judge(broken(document, path, value))
    assert re.search(says, "\n".join(faults)), faults


@pytest.mark.parametrize(("document", "path", "value"), [each[:3] for each in BROKEN])
def test_the_manager_refuses_the_same(document, path, value):
    assert isinstance(parse.parse(json.dumps(broken(document, path, value))), list)


def test_groups_of_others_can_be_left_out_and_all_are_kept_when_the_release_goes(render):
    def groups(*sets: str) -> set[str]:
        return {definition["spec"]["group"] for definition in render("meshwright-crds", *sets)}

    everything = {
        "config.istio.io",
        "config.meshwright.io",
        "networking.istio.io",
        "security.istio.io",
        "telemetry.istio.io",
        "rbac.istio.io",
        "access.smi-spec.io",
        "specs.smi-spec.io",
        "split.smi-spec.io",
        "smi.meshwright.io",
    }
    assert groups() == everything
    assert groups("groups.networking=false") == everything - {"networking.istio.io"}
    none = ("split", "smeagol", "access", "specs", "networking", "security", "telemetry", "rbac", "policy")
    assert groups(*(f"groups.{name}=false" for name in none)) == {"config.istio.io"}
    few, many = render("meshwright-crds"), render("meshwright-crds", "groups.legacy=true")
    assert {d["metadata"]["name"] for d in many} - {d["metadata"]["name"] for d in few} == {
        f"{kind.plural}.config.istio.io"
        for kind in kinds.KINDS
        if kind.name in {*kinds.LEGACY_ADAPTERS, *kinds.LEGACY_TEMPLATES}
    }
    kept = [d["metadata"].get("annotations") for d in render("meshwright-crds")]
    assert kept == [{"helm.sh/resource-policy": "keep"}] * len(kept)
    assert not [d for d in render("meshwright-crds", "keepOnUninstall=false") if d["metadata"].get("annotations")]
