"""From documents to a compiled policy: what it holds, and every fault named with object, field and remedy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pydantic
import pytest
from rule_documents import MALLORY, action, denial, document, quota

from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.core.config.objects import Object
from meshwright.mixer.adapters.opentelemetry import ADAPTER
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.compiler import compile_policy

ADAPTERS = {ADAPTER.name: ADAPTER}


def compiled(documents: list[Object], **options: Any) -> tuple[Compiled, pb.Policy]:
    result = compile_policy(documents, ADAPTERS, **options)
    assert not result.dropped
    return result, pb.Policy.FromString(result.policy)


def faults(documents: list[Object]) -> list[tuple[str, str, str]]:
    """Documents' own faults, without those of documents that depend on them."""
    dropped = compile_policy(documents, ADAPTERS).dropped
    return [(str(each.object), each.field, each.message) for each in dropped if each.cause is None]


def only_fault(*documents: Object) -> tuple[str, str, str]:
    found = faults([*documents])
    assert len(found) == 1, found
    return found[0]


def test_no_documents_are_a_policy_that_lets_everything_pass() -> None:
    result, policy = compiled([])
    assert result.rules == 0
    assert policy.format == 1
    assert policy.global_namespace == "meshwright-system"
    assert not policy.rules


def test_the_denial_compiles() -> None:
    _, policy = compiled(denial())
    rule = policy.rules[0]
    assert (rule.name, rule.namespace) == ("deny-admin", "meshwright-system")
    assert policy.handlers[rule.actions[0].handler].denier.code == 7
    assert policy.handlers[rule.actions[0].handler].denier.message == "no admin for you"
    assert policy.handlers[0].denier.HasField("validity")
    instance = policy.instances[rule.actions[0].instances[0]]
    assert (instance.template, instance.variety) == ("checknothing", pb.CHECK)
    assert {*key_texts(policy, rule.keys)} == {"request.url_path^/admin", f"source.principal={MALLORY}"}
    assert not rule.HasField("match")
    assert MALLORY in policy.words


def key_texts(policy: pb.Policy, keys: Iterable[pb.Key]) -> list[str]:
    """`attribute=text` for an equality, `attribute^text` for a prefix, `attribute[key]…` for an entry of a map."""

    def subject(number: int) -> str:
        node = policy.nodes[number]
        if node.operation == pb.INDEX:
            return f"{subject(node.arguments[0])}[{policy.words[policy.nodes[node.arguments[1]].constant.word]}]"
        return policy.words[policy.attributes[node.attribute].name]

    texts = []
    for key in keys:
        texts += [f"{subject(key.subject)}={policy.words[word]}" for word in key.equals]
        texts += [f"{subject(key.subject)}^{policy.words[word]}" for word in key.prefixes]
    return texts


@pytest.mark.parametrize(
    ("match", "keys", "either", "rest"),
    [
        (
            'destination.service.name == "shop" && "GET" == request.method && size(request.path) > 1',
            ["destination.service.name=shop", "request.method=GET"],
            [],
            pb.GREATER,
        ),
        (
            '(request.path.startsWith("/a") || match(request.path, "/b*") || request.path == "/c")'
            ' && request.headers["x"] == "y"',
            ["request.path=/c", "request.path^/a", "request.path^/b", "request.headers[x]=y"],
            [],
            None,
        ),
        (
            '(size(request.path) > 1 || request.host == "b") && request.method == "GET" && match(request.host, "*b")',
            ["request.method=GET"],
            [],
            pb.AND,
        ),
        (
            'request.method == "GET" && (request.host == "a" || source.principal == "b")',
            ["request.method=GET"],
            ["request.host=a", "source.principal=b"],
            pb.OR,
        ),
        ('(request.host | "none") == "a"', [], [], pb.EQUAL),
    ],
)
def test_what_tables_can_find_is_split_off(match: str, keys: list[str], either: list[str], rest: int | None) -> None:
    """Equalities and prefixes become keys wherever they stand; alternatives over several attributes stay in `match`."""
    _, policy = compiled([*denial(), document("rule", "z", {"match": match, "actions": [action("forbid", "nothing")]})])
    rule = policy.rules[1]
    assert key_texts(policy, rule.keys) == keys
    assert key_texts(policy, rule.either) == either
    assert (policy.nodes[rule.match].operation if rule.HasField("match") else None) == rest


def test_a_rule_of_equalities_only_has_no_match_left() -> None:
    spec = {"match": 'request.method == "GET"', "actions": [action("forbid", "nothing")]}
    _, policy = compiled([*denial(), document("rule", "z", spec)])
    assert not policy.rules[1].HasField("match")


def test_equal_parts_share_a_node() -> None:
    spec = {"match": 'request.path.endsWith("/a")', "actions": [action("forbid", "nothing")]}
    _, one = compiled([*denial(), document("rule", "y", spec)])
    _, two = compiled([*denial(), document("rule", "y", spec), document("rule", "z", spec)])
    assert len(one.nodes) == len(two.nodes)


def test_quotas_name_their_limit_and_dimensions() -> None:
    _, policy = compiled(quota(5))
    limit = policy.handlers[0].quotas.limits[0]
    assert (limit.max_amount, limit.window_nanos) == (5, 10**9)
    assert [each.name for each in policy.instances[limit.instance].fields] == ["dimensions.destination"]


def test_a_service_of_another_namespace_keeps_its_rules_apart() -> None:
    """Names mean the rule's own namespace unless they say another."""
    elsewhere = document("rule", "borrow", {"actions": [action("forbid.default", "nothing.instance.default")]}, "shop")
    _, policy = compiled([*denial("default"), elsewhere])
    assert {rule.namespace for rule in policy.rules} == {"default", "shop"}
    assert all(rule.actions for rule in policy.rules)
    where = only_fault(*denial("default"), document("rule", "r", {"actions": [action("forbid", "nothing.default")]}))
    assert where[1] == "spec.actions[0].handler"


def test_other_owners_documents_are_passed_over() -> None:
    from meshwright.core.config import objects

    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "shop"}, "spec": {"ports": []}}
    result, _ = compiled([objects.from_document(service, "shop.yaml#1")])
    assert result.rules == 0


def test_header_operations_compile() -> None:
    spec = {
        "requestHeaderOperations": [
            {"name": "x-user", "values": ["source.principal"]},
            {"name": "x-old", "operation": "REMOVE"},
        ]
    }
    _, policy = compiled([document("rule", "headers", spec)])
    operations = policy.rules[0].request_headers
    assert [each.name for each in operations] == ["x-user", "x-old"]
    assert policy.nodes[operations[0].values[0]].operation == pb.ATTRIBUTE


def test_export_adds_the_default_rules_and_their_sink() -> None:
    result, policy = compiled([], export=True)
    assert [rule.name for rule in policy.rules] == [
        "telemetry-http",
        "telemetry-open",
        "telemetry-otlp",
        "telemetry-tcp",
    ]
    assert {*result.sinks} == {"opentelemetry.meshwright-system"}
    assert policy.handlers[0].report.sink == "opentelemetry"
    assert policy.drop_unmatched_reports
    assert not result.warnings


def test_a_users_document_replaces_the_default_of_its_name() -> None:
    mine = document("instance", "accesslog", {"compiledTemplate": "logentry", "params": {"variables": {"me": "1"}}})
    _, policy = compiled([mine], export=True)
    logs = next(each for each in policy.instances if each.name == "accesslog")
    assert [each.name for each in logs.fields] == ["variables.me"]


def test_what_no_rule_uses_is_a_warning() -> None:
    result, _ = compiled(denial()[:2])
    assert {str(each.object) for each in result.warnings} == {
        "handler forbid.meshwright-system",
        "instance nothing.meshwright-system",
    }


def test_every_fault_is_told_at_once() -> None:
    broken = document("rule", "broken", {"match": "source.principle", "actions": [action("nobody", "nothing")]})
    found = faults([*denial()[1:], broken])
    assert ("rule broken.meshwright-system", "spec.actions[0].handler") in [each[:2] for each in found]
    assert ("rule broken.meshwright-system", "spec.match") in [each[:2] for each in found]
    assert ("rule deny-admin.meshwright-system", "spec.actions[0].handler") in [each[:2] for each in found]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"actions": [], "extra": 1}, "spec.extra", "unknown field"),
        ({"match": "request.path == 1", "actions": [action("forbid", "nothing")]}, "spec.match", "INT64 where STRING"),
        ({}, "spec.actions", "does nothing"),
        ({"actions": [{"handler": "forbid"}]}, "spec.actions[0].instances", "missing"),
        ({"actions": [action("forbid", "nobody")]}, "spec.actions[0].instances[0]", "unknown instance 'nobody'"),
        ({"actions": [action("nobody", "nothing")]}, "spec.actions[0].handler", "unknown handler 'nobody'"),
        ({"actions": "forbid"}, "spec.actions", "must be a valid list"),
        (
            {"requestHeaderOperations": [{"name": "x", "operation": "REMOVE", "values": ["source.uid"]}]},
            "spec.requestHeaderOperations[0].values",
            "takes no values",
        ),
        (
            {"requestHeaderOperations": [{"name": "x", "operation": "SET", "values": ["source.uid"]}]},
            "spec.requestHeaderOperations[0].operation",
            "'REPLACE'",
        ),
    ],
)
def test_a_faulty_rule_is_named(spec: dict[str, Any], field: str, message: str) -> None:
    where = only_fault(*denial(), document("rule", "r", spec))
    assert where[:2] == ("rule r.meshwright-system", field)
    assert message in where[2]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"compiledAdapter": "denyer"}, "spec.compiledAdapter", "unknown adapter 'denyer'"),
        ({"compiledAdapter": "denier", "params": {"status": {"code": 0}}}, "spec.params.status.code", "1 to 16"),
        ({"compiledAdapter": "denier", "params": {"status": {"code": 14}}}, "spec.params.status.code", "sidecars"),
        ({"compiledAdapter": "denier", "params": {"validDuration": "5"}}, "spec.params.validDuration", "250ms"),
        ({"compiledAdapter": "listchecker", "params": {"entryType": "X"}}, "spec.params.entryType", "'REGEX'"),
        ({"compiledAdapter": "memquota", "params": {"quotas": []}}, "spec.params.quotas", "at least 1 item"),
        (
            {"compiledAdapter": "memquota", "params": {"quotas": [{"name": "nobody", "maxAmount": 1}]}},
            "spec.params.quotas[0].name",
            "unknown instance 'nobody'",
        ),
        (
            {"compiledAdapter": "memquota", "params": {"quotas": [{"name": "nothing", "maxAmount": 1}]}},
            "spec.params.quotas[0].name",
            "not a quota",
        ),
        (
            {"compiledAdapter": "opentelemetry", "params": {"metrics": [{"instance": "x", "name": "y", "kind": "Z"}]}},
            "spec.params.metrics[0].kind",
            "'COUNTER'",
        ),
    ],
)
def test_a_faulty_handler_is_named(spec: dict[str, Any], field: str, message: str) -> None:
    where = only_fault(denial()[1], document("handler", "h", spec))
    assert where[:2] == ("handler h.meshwright-system", field)
    assert message in where[2]


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"compiledTemplate": "checkall"}, "spec.compiledTemplate", "unknown template 'checkall'"),
        ({"compiledTemplate": "listentry", "params": {"value": "response.code"}}, "spec.params.value", "yields INT64"),
        ({"compiledTemplate": "metric", "params": {"value": "request.path"}}, "spec.params.value", "yields STRING"),
        (
            {"compiledTemplate": "quota", "params": {"dimensions": {"all": "request.headers"}}},
            "spec.params.dimensions.all",
            "yields STRING_MAP",
        ),
        (
            {"compiledTemplate": "logentry", "params": {"timestamp": "request.path"}},
            "spec.params.timestamp",
            "STRING where TIMESTAMP",
        ),
        ({"compiledTemplate": "checknothing", "params": {"value": "1"}}, "spec.params.value", "unknown field"),
    ],
)
def test_a_faulty_instance_is_named(spec: dict[str, Any], field: str, message: str) -> None:
    where = only_fault(document("instance", "i", spec))
    assert where[:2] == ("instance i.meshwright-system", field)
    assert message in where[2]


def test_a_template_that_the_adapter_does_not_take_is_refused() -> None:
    spec = {"actions": [action("forbid", "log")]}
    log = document("instance", "log", {"compiledTemplate": "logentry"})
    where = only_fault(*denial(), log, document("rule", "r", spec))
    assert where[1] == "spec.actions[0].instances[0]"
    assert "doesn't take template logentry" in where[2]
    assert "checknothing, listentry, quota" in where[2]


def test_a_denier_takes_quotas_and_grants_nothing() -> None:
    spec = {"actions": [action("forbid", "requestcount")]}
    _, policy = compiled([*denial(), *quota(5), document("rule", "r", spec)])
    assert [each.name for each in policy.rules] == ["deny-admin", "limit", "r"]


def test_a_quota_without_a_limit_is_refused() -> None:
    other = document("instance", "other", {"compiledTemplate": "quota"})
    where = only_fault(*quota(5), other, document("rule", "r", {"actions": [action("limits", "other")]}))
    assert where[:2] == ("rule r.meshwright-system", "spec.actions[0].instances[0]")
    assert "add it to the handler's spec.params.quotas" in where[2]


def test_an_override_of_an_unknown_dimension_is_refused() -> None:
    limit = {"name": "requestcount", "maxAmount": 5, "overrides": [{"dimensions": {"nobody": "x"}, "maxAmount": 1}]}
    handler = document("handler", "limits", {"compiledAdapter": "memquota", "params": {"quotas": [limit]}})
    where = only_fault(handler, *quota(5)[1:])
    assert where[1] == "spec.params.quotas[0].overrides[0].dimensions.nobody"


def test_an_unknown_kind_is_refused() -> None:
    where = only_fault(document("deniers", "old", {}))
    assert where[1] == "kind"
    assert "rule, handler, instance" in where[2]


def test_the_engines_refusal_is_told_as_the_documents_fault() -> None:
    """The engine names parts by number; people get object and field."""
    match = '"a(".matches(request.path)'
    bad = document("rule", "r", {"match": match, "actions": [action("forbid", "nothing")]})
    result, policy = compiled([*denial(), bad])
    index = next(number for number, node in enumerate(policy.nodes) if node.operation == pb.MATCHES)
    (violation,) = result.places.explain(f"compiled policy refused: nodes[{index}]: unclosed group")
    assert (str(violation.object), violation.field) == ("rule r.meshwright-system", "spec.match")
    assert violation.message == "unclosed group"
    assert violation.source == "r.yaml#1"
    assert not result.places.explain("nothing of ours")


def test_an_adapters_model_that_fails_is_a_fault_of_the_document() -> None:
    """pydantic lets what isn't a ValueError pass; a third party's mistake must not keep all others from loading."""

    class Parameters(pydantic.BaseModel):
        level: int = 0

        @pydantic.field_validator("level")
        @classmethod
        def _look_up(cls, level: int) -> int:
            return [0][level]

    class Odd:
        name, templates, parameters = "odd", frozenset({"logentry"}), Parameters

    bad = document("handler", "h", {"compiledAdapter": "odd", "params": {"level": 7}})
    result = compile_policy([*denial(), bad], {"odd": Odd()})  # type: ignore[dict-item]  # it is never opened
    assert [(each.field, each.message) for each in result.dropped] == [
        ("spec.params", "Parameters fails on it: IndexError: list index out of range")
    ]
    assert result.rules == 1
