"""The original's documents load unchanged: every kind, in the forms that people wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from rule_documents import document

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.core.config import Object, read_documents
from meshwright.dataplane.policy import Engine
from meshwright.mixer import adapters
from meshwright.mixer.config.adapters import NATIVE
from meshwright.mixer.config.client_specs import client_specs
from meshwright.mixer.config.compiler import compile_policy
from meshwright.mixer.config.kinds import KINDS, LEGACY_ADAPTERS
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.remote import bypass
from meshwright.mixer.specs.uri_template import parse

CORPUS = Path(__file__).parent / "corpus"
ADAPTERS = {adapter.name: adapter for adapter in adapters.BUILT_IN}


def corpus(*names: str) -> list[Object]:
    return [each for name in names for each in read_documents(CORPUS / f"{name}.yaml")]


@pytest.mark.parametrize("name", ["current", "legacy", "clients", "templates"])
def test_a_file_loads_whole(name: str) -> None:
    """Into the real engine, and nothing is left out."""
    documents = corpus(name)
    compiled = PolicyLoader(ADAPTERS, Engine().load, export=False).load(documents)
    assert [str(each) for each in compiled.dropped] == []
    assert compiled.rules == sum(each.kind == "rule" for each in documents)


def test_adapters_in_their_own_kinds_load() -> None:
    """Those of cloud vendors are refused by name: OpenTelemetry serves them."""
    documents = corpus("adapters", "legacy", "templates")
    dropped = PolicyLoader(ADAPTERS, Engine().load, export=False).load(documents).dropped
    absent = {each.kind for each in documents if each.kind in LEGACY_ADAPTERS} - {*ADAPTERS, *NATIVE, bypass.NAME}
    assert {each.object.kind for each in dropped} == absent, list(map(str, dropped))
    for each in dropped:
        assert each.field == "kind"
        assert f"unknown adapter '{each.object.kind}'" in each.message
        vendor = each.object.kind in ("circonus", "cloudwatch", "solarwinds", "stackdriver")
        assert ("opentelemetry" in each.message.partition(":")[0]) is vendor


def test_the_whole_folder_loads() -> None:
    documents = [each for each in read_documents(CORPUS) if "adapters.yaml" not in each.source]
    compiled = PolicyLoader(ADAPTERS, Engine().load, export=True).load(documents)
    assert [str(each) for each in compiled.dropped] == []


def test_the_global_namespace_can_be_the_originals() -> None:
    compiled = PolicyLoader(ADAPTERS, Engine().load, export=True, namespace="istio-system").load(corpus("legacy"))
    policy = pb.Policy.FromString(compiled.policy)
    assert policy.global_namespace == "istio-system"
    assert {each.namespace for each in policy.rules if each.name.startswith("telemetry")} == {"istio-system"}


def test_every_kind_is_in_the_corpus() -> None:
    """What needs descriptor sets is in the tests of adapters in other processes, and Policy isn't the original's."""
    present = {(each.api_version, each.kind) for each in read_documents(CORPUS)}
    assert {name for _, name in KINDS.keys() - present} == {"template", "adapter", "Policy"}


def test_legacy_names_are_part_of_what_adapters_and_messages_call_them() -> None:
    policy = pb.Policy.FromString(compile_policy(corpus("legacy"), ADAPTERS).policy)
    handlers = {(each.name, each.namespace) for each in policy.handlers}
    assert handlers == {
        ("handler.denier", "default"),
        ("versions.listchecker", "default"),
        ("handler.memquota", "istio-system"),
    }
    quota = next(each for each in policy.instances if each.namespace == "istio-system")
    assert quota.name == "requestcount"  # what callers ask for


def test_a_legacy_documents_faults_are_told_in_its_own_fields() -> None:
    bad = document("memquota", "m", {"quotas": [{"name": "nobody.quota", "maxAmount": -1}]})
    (fault,) = compile_policy([bad], ADAPTERS).dropped
    assert (fault.object.kind, fault.field) == ("memquota", "spec.quotas[0].maxAmount")
    bad = document("listentry", "l", {"value": "response.code"})
    (fault,) = compile_policy([bad], ADAPTERS).dropped
    assert (fault.object.kind, fault.field) == ("listentry", "spec.value")


def test_fields_may_be_in_snake_case_and_parameters_empty() -> None:
    """As in the proto files; `params:` with nothing behind it is what YAML makes of an empty block."""
    handler = document("handler", "h", {"compiled_adapter": "denier", "params": None})
    instance = document("instance", "i", {"compiled_template": "checknothing", "params": None})
    manifest = document("attributemanifest", "m", {"attributes": {"a": {"value_type": "STRING"}}})
    assert not compile_policy([handler, instance, manifest], ADAPTERS).dropped


def test_an_adapter_that_mixer_has_not_is_named() -> None:
    (fault,) = compile_policy([document("handler", "s", {"compiledAdapter": "stackdriver"})], {}).dropped
    assert (fault.field, fault.message.partition(":")[0]) == (
        "spec.compiledAdapter",
        "unknown adapter 'stackdriver', whose work opentelemetry and a collector do",
    )
    (fault,) = compile_policy([document("handler", "s", {"compiledAdapter": "denyer"})], {}).dropped
    assert fault.message.startswith("unknown adapter 'denyer': use one of denier")


def test_quotas_are_charged_by_spec() -> None:
    specs = client_specs(corpus("clients"))
    shop = specs.service("shop.demo.svc.cluster.local")
    assert shop.quotas({}) == {"requestcount": 1}
    order = {"request.method": "POST", "request.path": "/orders/7"}
    assert shop.quotas(order) == {"requestcount": 2, "writes": 5}
    assert shop.quotas({**order, "request.method": "GET"}) == {"requestcount": 1}
    assert shop.quotas({"request.useragent": "curl/8.0"}) == {"requestcount": 2, "writes": 5}
    assert shop.quotas({"request.useragent": "not curl/8.0"}) == {"requestcount": 1}
    assert specs.service("catalog.store.svc.cluster.local").quotas({}) == {"requestcount": 1}
    assert specs.service("catalog.demo.svc.cluster.local").quotas({}) == {}


def test_operations_are_named_by_spec() -> None:
    specs = client_specs(corpus("clients"))
    api = specs.service("pets.demo.svc.cluster.local")
    always = {"api.service": "petstore.swagger.io", "api.version": "1.0.0"}
    assert api.attributes("GET", "/pets/7?verbose=1") == {**always, "api.operation": "getPet"}
    assert api.attributes("GET", "/pets/latest") == {**always, "api.operation": "latestPet", "api.weight": 3}
    assert api.attributes("GET", "/pets/7/pictures/1") == {**always, "api.operation": "pictures"}
    assert api.attributes("POST", "/pets/7") == always
    assert specs.service("pets.other.svc.cluster.local").attributes("GET", "/pets/7") == {}


def test_keys_are_found_where_the_spec_says() -> None:
    api = client_specs(corpus("clients")).service("pets.demo.svc.cluster.local")
    assert api.api_key("/pets?api-key=a%20b", {}) == "a b"
    assert api.api_key("/pets", {"x-api-key": "c"}) == "c"
    assert api.api_key("/pets", {"cookie": "other=1; key=d"}) == "d"
    assert api.api_key("/pets", {"cookie": ";;;=\0"}) is None
    anywhere = client_specs(
        [
            document("HTTPAPISpec", "a", {}, "demo"),
            document("HTTPAPISpecBinding", "a", {"apiSpecs": [{"name": "a"}], "services": [{"service": "*"}]}, "demo"),
        ]
    ).service("any.where")
    assert anywhere.api_key("/pets?key=e", {}) == "e"
    assert anywhere.api_key("/pets?api_key=f", {}) == "f"
    assert anywhere.api_key("/", {"x-api-key": "g"}) == "g"


@pytest.mark.parametrize(
    ("template", "path", "fits"),
    [
        ("/", "/", True),
        ("/pets", "/pets/", True),
        ("/pets/{id}", "/pets", False),
        ("/pets/{id}", "/pets/1/2", False),
        ("/pets/{id}", "/pets//", False),
        ("/files/{path=**}", "/files", True),
        ("/files/**", "/files/a/b/c", True),
        ("/shelves/*/books:list", "/shelves/3/books:list", True),
        ("/shelves/*/books:list", "/shelves/3/books", False),
    ],
)
def test_uri_templates(template: str, path: str, fits: bool) -> None:
    assert parse(template).fits(path) is fits


@pytest.mark.parametrize(
    ("kind", "spec", "field"),
    [
        ("QuotaSpec", {"rules": [{"quotas": []}]}, "spec.rules[0].quotas"),
        (
            "QuotaSpec",
            {"rules": [{"match": [{"clause": {"a": {"regex": "("}}}], "quotas": [{"quota": "q"}]}]},
            "spec.rules[0].match[0].clause.a.regex",
        ),
        ("QuotaSpecBinding", {"quotaSpecs": [{"name": "nobody"}]}, "spec.quotaSpecs[0]"),
        ("HTTPAPISpecBinding", {"apiSpecs": [{"name": "nobody"}]}, "spec.apiSpecs[0]"),
        ("HTTPAPISpec", {"patterns": [{"httpMethod": "GET"}]}, "spec.patterns[0]"),
        ("HTTPAPISpec", {"patterns": [{"httpMethod": "GET", "uriTemplate": "/{a"}]}, "spec.patterns[0].uriTemplate"),
        ("HTTPAPISpec", {"apiKeys": [{"query": "a", "header": "b"}]}, "spec.apiKeys[0]"),
        (
            "HTTPAPISpec",
            {"attributes": {"attributes": {"a": {"int64Value": "x"}}}},
            "spec.attributes.attributes.a.int64Value",
        ),
        ("attributemanifest", {"attributes": {"a b": {"valueType": "STRING"}}}, "spec.attributes"),
        ("attributemanifest", {"attributes": {"a": {"valueType": "TEXT"}}}, "spec.attributes.a.valueType"),
        (
            "attributemanifest",
            {"attributes": {"source.ip": {"valueType": "STRING"}}},
            "spec.attributes.source.ip.valueType",
        ),
        ("handler", {}, "spec"),
        ("handler", {"compiledAdapter": "denier", "connection": {"address": "a:1"}}, "spec"),
        ("instance", {"compiledTemplate": "checknothing", "template": "other"}, "spec"),
        ("rule", {"actions": [], "sampling": {"rateLimit": {}}}, "spec.sampling.rateLimit.samplingDuration"),
    ],
)
def test_faults_are_named(kind: str, spec: dict[str, object], field: str) -> None:
    faults = compile_policy([document(kind, "x", spec)], ADAPTERS).dropped
    assert [(str(each.object), each.field) for each in faults] == [(f"{kind} x.meshwright-system", field)]


def test_an_attribute_has_one_type() -> None:
    """The first manifest by name has its way; what reads the other's attributes is left out with it."""
    one = document("attributemanifest", "a", {"attributes": {"tenant.id": {"valueType": "STRING"}}}, "shop")
    two = document("attributemanifest", "b", {"attributes": {"tenant.id": {"valueType": "INT64"}}}, "shop")
    reader = document(
        "rule", "r", {"match": "tenant.id == 7", "requestHeaderOperations": [{"name": "x", "operation": "REMOVE"}]}
    )
    dropped = compile_policy([two, one, reader], ADAPTERS).dropped
    assert [(str(each.object), each.field) for each in dropped] == [
        ("attributemanifest b.shop", "spec.attributes.tenant.id.valueType"),
        ("rule r.meshwright-system", "spec.match"),
    ]
    assert "attributemanifest a.shop" in dropped[0].message
