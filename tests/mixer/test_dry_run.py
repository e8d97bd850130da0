"""A rule in dry run is decided and told, never enforced."""

from __future__ import annotations

from dataclasses import replace

import pytest
from policy_documents import Gate, compiled, policy
from rule_documents import denial, document

from meshwright.api.mixer.v1 import introspection_pb2
from meshwright.api.policy.v1 import policy_pb2 as pb
from meshwright.mixer import check


def explained(gate: Gate, **attributes: str) -> introspection_pb2.ExplainResponse:
    given = {
        "context.reporter.kind": "inbound",
        "destination.namespace": "demo",
        "destination.service.name": "shop",
        **{name.replace("_", ".", 1): value for name, value in attributes.items()},
    }
    told = gate.engine.explain(check.request(given).SerializeToString())
    return introspection_pb2.ExplainResponse.FromString(told)


def test_a_policy_in_dry_run_denies_nobody_and_says_whom_it_would() -> None:
    gate = Gate(policy("allow: []\nmode: dry-run"))
    assert gate.passes()
    answer = explained(gate)
    assert answer.code == 0
    assert [(each.rule, each.code) for each in answer.dry_runs] == [("shop/otherwise.demo", 7)]
    assert [each.dry_run for each in answer.rules] == [True]


def test_its_limits_count_and_refuse_nobody() -> None:
    gate = Gate(policy("limits: [{name: each, amount: 1, per: 1m}]\nmode: dry-run"))
    granted = [gate.ask({"shop/each": 1}).quotas["shop/each"].granted_amount for _ in range(3)]
    assert granted == [1, 1, 1]


def test_an_enforced_policy_beside_it_is_enforced() -> None:
    gate = Gate(policy("allow: []\nmode: dry-run", "tried"), policy("deny: [{paths: [/admin]}]"))
    assert gate.code(**{"request_url_path": "/admin"}) == 7
    assert gate.passes(**{"request_url_path": "/items"})


@pytest.mark.parametrize("how", ["field", "annotation"])
def test_rules_of_the_original_kind_can_be_tried_too(how: str) -> None:
    *others, rule = denial("demo")
    if how == "field":
        rule = document("rule", rule.name, {**rule.spec, "mode": "dry-run"}, "demo")
    else:
        rule = replace(rule, annotations={"meshwright.io/mode": "dry-run"})
    result = compiled(*others, rule)
    assert not result.dropped
    assert [each.dry_run for each in pb.Policy.FromString(result.policy).rules] == [True]


def test_an_unknown_mode_is_a_fault() -> None:
    *others, rule = denial("demo")
    dropped = compiled(*others, replace(rule, annotations={"meshwright.io/mode": "off"})).dropped
    assert [(each.field, each.message) for each in dropped] == [
        ("metadata.annotations.meshwright.io/mode", "unknown mode 'off': use enforce or dry-run")
    ]
