"""What rules, handlers and instances have beside conditions, from documents to the engine's answer."""

from __future__ import annotations

from typing import Any

import pydantic
import pytest
from rule_documents import action, document

from meshwright.api.istio.mixer.v1 import mixer_pb2
from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.core.config.objects import Object
from meshwright.dataplane.policy import Engine
from meshwright.mixer.cexl import ValueType
from meshwright.mixer.config import instance_compiler
from meshwright.mixer.config.compiled import Compiled
from meshwright.mixer.config.compiler import PolicyCompiler, compile_policy
from meshwright.mixer.templates import Template, Variety

KEYVAL = Template("keyval", Variety.CHECK_WITH_OUTPUT, outputs={"value": ValueType.STRING, "count": ValueType.INT64})


class NoParameters(pydantic.BaseModel):
    """None."""


class Everything:
    """An adapter outside of the engine that takes whatever there is."""

    name = "everything"
    templates = frozenset({"keyval", "kubernetes", "checknothing"})

    parameters = NoParameters

    def open(self, parameters: Any, host: Any) -> Any:
        """Nobody asks here."""
        raise NotImplementedError


@pytest.fixture(autouse=True)
def keyval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A template that puts something out."""
    monkeypatch.setattr(instance_compiler, "TEMPLATES", {**instance_compiler.TEMPLATES, "keyval": KEYVAL})


def compiled(*documents: Object, **options: Any) -> tuple[Compiled, pb.Policy]:
    result = PolicyCompiler({"everything": Everything()}, **options).compile(documents)
    Engine().load(result.policy)
    return result, pb.Policy.FromString(result.policy)


def fault(*documents: Object) -> tuple[str, str]:
    result, _ = compiled(*documents)
    first = result.dropped[0]
    return first.field, first.message


HANDLER = document("handler", "outside", {"compiledAdapter": "everything"})
LOOKUP = document("instance", "lookup", {"compiledTemplate": "keyval"})
DENIER = document("handler", "forbid", {"compiledAdapter": "denier"})
NOTHING = document("instance", "nothing", {"compiledTemplate": "checknothing"})


def headers(*values: str, name: str = "key") -> Object:
    spec = {
        "actions": [{"handler": "outside", "instances": ["lookup"], "name": name}],
        "requestHeaderOperations": [{"name": "x-value", "values": [*values]}],
    }
    return document("rule", "r", spec)


def test_header_operations_read_what_a_named_action_puts_out() -> None:
    _, policy = compiled(HANDLER, LOOKUP, headers("key.output.value", '(key.output.value | "none") + "!"'))
    [rule] = policy.rules
    assert [each.field for each in policy.outputs] == ["value"]
    assert (rule.actions[0].name, [*rule.actions[0].outputs]) == ("key", [0])
    first, second = rule.request_headers[0].values
    assert policy.nodes[first].operation == pb.OUTPUT
    assert policy.nodes[second].operation == pb.ADD


def test_each_action_has_outputs_of_its_own() -> None:
    other = document("rule", "s", {**headers("key.output.value").spec})
    _, policy = compiled(HANDLER, LOOKUP, headers("key.output.value"), other)
    assert [[*rule.actions[0].outputs] for rule in policy.rules] == [[0], [1]]


@pytest.mark.parametrize(
    ("rule", "field", "message"),
    [
        (headers("key.output.size"), "spec.requestHeaderOperations[0].values[0]", "key.output.size"),
        (headers("key.output.value", name="other"), "spec.requestHeaderOperations[0].values[0]", "key.output.value"),
        (headers("key.output.count"), "spec.requestHeaderOperations[0].values[0]", "STRING"),
        (
            document("rule", "r", {"actions": [{"handler": "outside", "instances": ["lookup"] * 2, "name": "key"}]}),
            "spec.actions[0].instances",
            "one instance only",
        ),
        (
            document("rule", "r", {"actions": [{"handler": "outside", "instances": ["lookup"], "name": "key"}] * 2}),
            "spec.actions[1].name",
            "another action",
        ),
    ],
)
def test_an_output_that_nobody_puts_out_is_refused(rule: Object, field: str, message: str) -> None:
    found = fault(HANDLER, LOOKUP, rule)
    assert found[0] == field
    assert message in found[1]


def pods(**bindings: str) -> list[Object]:
    spec = {
        "compiledTemplate": "kubernetes",
        "params": {"sourceUid": 'source.uid | ""'},
        "attributeBindings": {name.replace("__", "."): source for name, source in bindings.items()},
    }
    rule = document("rule", "generate", {"actions": [action("outside", "pod")]})
    return [HANDLER, document("instance", "pod", spec), rule]


def test_bindings_make_attributes_of_outputs() -> None:
    bindings = {"source__labels": "$out.source_labels | emptyStringMap()", "source__namespace": "$out.source_namespace"}
    _, policy = compiled(*pods(**bindings))
    [instance] = policy.instances
    assert instance.variety == pb.ATTRIBUTE_GENERATOR
    names = [policy.words[policy.attributes[each.attribute].name] for each in instance.bindings]
    assert names == ["source.labels", "source.namespace"]
    assert [policy.outputs[each].field for each in instance.outputs] == ["source_labels", "source_namespace"]


@pytest.mark.parametrize(
    ("bindings", "field", "message"),
    [
        ({"nobodys": "$out.source_namespace"}, "spec.attributeBindings.nobodys", "attributemanifest"),
        ({"source__namespace": "$out.nothing"}, "spec.attributeBindings.source.namespace", "$out.nothing"),
        ({"source__namespace": "$out.source_labels"}, "spec.attributeBindings.source.namespace", "STRING"),
    ],
)
def test_a_binding_that_does_not_fit_is_refused(bindings: dict[str, str], field: str, message: str) -> None:
    found = fault(*pods(**bindings))
    assert found[0] == field
    assert message in found[1]


def test_only_generators_have_bindings() -> None:
    spec = {"compiledTemplate": "checknothing", "attributeBindings": {"source.namespace": "$out.x"}}
    assert fault(document("instance", "nothing", spec))[0] == "spec.attributeBindings"


def test_sampling_compiles() -> None:
    sampling = {
        "random": {"attributeExpression": "request.size", "percentSampled": {"numerator": 5, "denominator": "HUNDRED"}},
        "rateLimit": {"samplingDuration": "2s", "maxUnsampledEntries": 10, "samplingRate": 3},
    }
    _, policy = compiled(
        DENIER, NOTHING, document("rule", "r", {"actions": [action("forbid", "nothing")], "sampling": sampling})
    )
    [rule] = policy.rules
    random, limit = rule.sampling.random, rule.sampling.rate_limit
    assert (random.numerator, random.denominator) == (5, 100)
    assert policy.nodes[random.rate].operation == pb.ATTRIBUTE
    assert policy.nodes[random.key].operation == pb.DEFAULT
    assert (limit.window_nanos, limit.max_unsampled, limit.rate) == (2 * 10**9, 10, 3)
    sampling = {"random": {"useIndependentRandomness": True}}
    _, policy = compiled(
        DENIER, NOTHING, document("rule", "r", {"actions": [action("forbid", "nothing")], "sampling": sampling})
    )
    assert not policy.rules[0].sampling.random.HasField("key")


def answer(*documents: Object, **options: Any) -> mixer_pb2.CheckResponse:
    engine = Engine()
    engine.load(PolicyCompiler({}, **options).compile(documents).policy)
    request = mixer_pb2.CheckRequest(global_word_count=222)
    return mixer_pb2.CheckResponse.FromString(engine.check(request.SerializeToString()))


def test_a_rule_in_dry_run_denies_nothing() -> None:
    spec = {"actions": [action("forbid", "nothing")]}
    assert answer(DENIER, NOTHING, document("rule", "r", spec)).precondition.status.code == 7
    trial = document("rule", "r", {**spec, "mode": "dry-run"})
    assert answer(DENIER, NOTHING, trial).precondition.status.code == 0


@pytest.mark.parametrize("code", [303, "SeeOther"])
def test_a_denier_can_say_what_the_caller_gets(code: int | str) -> None:
    detail = {
        "@type": "type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse",
        "code": code,
        "body": "go",
        "headers": {"Location": "/login", "Set-Cookie": "a=1,b=2"},
    }
    params = {"status": {"code": 16, "message": "who?", "details": [detail]}}
    denier = document("handler", "forbid", {"compiledAdapter": "denier", "params": params})
    precondition = answer(
        denier, NOTHING, document("rule", "r", {"actions": [action("forbid", "nothing")]})
    ).precondition
    directive = precondition.route_directive
    assert (precondition.status.code, directive.direct_response_code, directive.direct_response_body) == (16, 303, "go")
    told = [(each.name, each.value, each.operation) for each in directive.response_header_operations]
    append = mixer_pb2.HeaderOperation.APPEND
    assert told == [("Location", "/login", 0), ("Set-Cookie", "a=1", append), ("Set-Cookie", "b=2", append)]


@pytest.mark.parametrize(
    ("detail", "message"),
    [
        ({"@type": "type.googleapis.com/google.rpc.ErrorInfo"}, "must be type.googleapis.com/istio.policy.v1beta1"),
        ({"@type": "type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse", "code": "Teapot"}, "SeeOther"),
        ({"@type": "type.googleapis.com/istio.policy.v1beta1.DirectHttpResponse", "code": 100}, "200 to 599"),
    ],
)
def test_a_detail_that_no_proxy_could_give_is_refused(detail: dict[str, Any], message: str) -> None:
    params = {"status": {"details": [detail]}}
    assert message in fault(document("handler", "forbid", {"compiledAdapter": "denier", "params": params}))[1]


def test_answers_are_valid_for_no_longer_than_mixer_says() -> None:
    assert answer().precondition.valid_duration.ToSeconds() == 60
    assert answer(max_validity=1).precondition.valid_duration.ToSeconds() == 1
    rule = document("rule", "r", {"actions": [action("forbid", "nothing")]})
    assert answer(DENIER, NOTHING, rule, max_validity=0.5).precondition.valid_duration.ToMilliseconds() == 500
    assert compile_policy([], {}).policy
