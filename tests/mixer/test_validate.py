"""The Validation service, asked as the manager asks it: over gRPC, with the change and everything around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from rule_documents import action, denial, document

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core.config.objects import Object
from meshwright.core.grpc import Channel, Server
from meshwright.mixer.adapters.opentelemetry import ADAPTER
from meshwright.mixer.config.compiler import compile_policy
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.config.violation import Violation
from meshwright.mixer.validate import ValidationServicer


def refuse_marked(policy: bytes) -> None:
    """Refuses as the engine does; the real one is in test_service.py."""
    if b"refuse me" in policy:
        raise ValueError("compiled policy refused: handlers[0]: not to my taste")


@pytest.fixture
def in_force() -> list[Violation]:
    """What is left out of the configuration that mixer serves."""
    return []


@pytest.fixture
async def stub(in_force: list[Violation]) -> AsyncIterator[Any]:
    server = Server("127.0.0.1:0", None)
    loader = PolicyLoader({ADAPTER.name: ADAPTER}, refuse_marked, export=False)
    servicer = ValidationServicer(loader, lambda: in_force)
    config_pb2_grpc.add_ValidationServicer_to_server(servicer, server)
    address = await server.start()
    async with Channel(address, None) as channel:
        yield config_pb2_grpc.ValidationStub(channel)
    await server.stop(0)


def wire(*documents: Object) -> list[Any]:
    return [
        config_pb2.Object(
            key=config_pb2.Key(api_version=each.api_version, kind=each.kind, namespace=each.namespace, name=each.name),
            json=each.json,
        )
        for each in documents
    ]


async def validate(
    stub: Any, changed: Sequence[Object], context: Sequence[Object] = (), deleted: Sequence[Object] = ()
) -> Any:
    keys = [each.key for each in wire(*deleted)]
    request = config_pb2.ValidateRequest(changed=wire(*changed), context=wire(*context), deleted=keys)
    return await stub.Validate(request)


async def test_a_good_change_has_no_violations(stub: Any) -> None:
    response = await validate(stub, denial())
    assert not response.violations
    assert not response.warnings


async def test_references_reach_into_the_context(stub: Any) -> None:
    response = await validate(stub, denial()[2:], denial()[:2])
    assert not response.violations


async def test_a_violation_names_object_field_and_place_in_the_request(stub: Any) -> None:
    bad = document("rule", "bad", {"match": "source.prinzipal == 1", "actions": [action("forbid", "nothing")]})
    response = await validate(stub, [*denial(), bad])
    assert len(response.violations) == 1
    violation = response.violations[0]
    assert (violation.key.kind, violation.key.name, violation.key.namespace) == ("rule", "bad", "meshwright-system")
    assert violation.key.api_version == "config.istio.io/v1alpha2"
    assert violation.field == "spec.match"
    assert violation.index == 3
    assert "did you mean `source.principal`?" in violation.message


async def test_what_cannot_do_without_a_bad_document_is_told_with_the_reason(stub: Any) -> None:
    """In the change; what the change doesn't touch has no part in it."""
    bad = document("handler", "forbid", {"compiledAdapter": "nonsense"})
    response = await validate(stub, [bad, *denial()[1:]])
    assert [(each.key.name, each.field) for each in response.violations] == [
        ("forbid", "spec.compiledAdapter"),
        ("deny-admin", "spec.actions[0].handler"),
    ]
    assert "was left out (spec.compiledAdapter: unknown adapter 'nonsense'" in response.violations[1].message
    response = await validate(stub, [bad], denial()[1:])
    assert [each.key.name for each in response.violations] == ["forbid"]


async def test_old_faults_of_others_do_not_stand_in_the_way(stub: Any, in_force: list[Violation]) -> None:
    """A document that is at fault already, and that the change doesn't touch, is no reason to refuse it."""
    old = document("rule", "old", {"match": "nonsense", "actions": [action("nobody", "nothing")]})
    assert {each.key.name for each in (await validate(stub, denial(), [old])).violations} == {"old"}
    in_force += compile_policy([old], {}).dropped
    assert not (await validate(stub, denial(), [old])).violations
    assert [each.key.name for each in (await validate(stub, [old])).violations] == ["old", "old", "old"]
    response = await validate(stub, [], [*denial()[1:], old], [denial()[0]])
    assert [each.key.name for each in response.violations] == ["deny-admin"]


async def test_an_attribute_that_goes_is_a_fault_of_who_reads_it(stub: Any) -> None:
    """Whether its manifest is deleted or changed."""
    manifest = document("attributemanifest", "m", {"attributes": {"tenant.id": {"valueType": "STRING"}}})
    reader = document("rule", "r", {"match": 'tenant.id == "t"', "actions": [action("forbid", "nothing")]})
    assert not (await validate(stub, [manifest, reader], denial())).violations
    for changed, deleted in (([], [manifest]), ([document("attributemanifest", "m", {})], [])):
        response = await validate(stub, changed, [*denial(), reader], deleted)
        assert [(each.key.name, each.field) for each in response.violations] == [("r", "spec.match")]


async def test_deleting_what_a_rule_needs_is_a_violation_of_that_rule(stub: Any) -> None:
    """The rule isn't part of the change, and the message says so."""
    handler, instance, rule = denial()
    response = await validate(stub, [], [instance, rule], [handler])
    violation = response.violations[0]
    assert (violation.key.name, violation.field, violation.index) == ("deny-admin", "spec.actions[0].handler", -1)
    assert "which the change doesn't touch" in violation.message


async def test_deleting_a_rule_with_all_it_needs_is_fine(stub: Any) -> None:
    assert not (await validate(stub, [], denial(), denial())).violations


async def test_a_changed_object_counts_instead_of_its_older_self(stub: Any) -> None:
    handler, instance, rule = denial()
    broken = document("handler", "forbid", {"compiledAdapter": "nonsense"})
    assert not (await validate(stub, [handler], [broken, instance, rule])).violations


async def test_unused_objects_of_the_change_are_warned_about(stub: Any) -> None:
    response = await validate(stub, denial()[:1], denial()[1:2])
    assert [each.key.name for each in response.warnings] == ["forbid"]
    assert not response.violations


async def test_the_engines_refusal_is_a_violation_of_the_object(stub: Any) -> None:
    status = {"status": {"code": 7, "message": "refuse me"}}
    handler = document("handler", "forbid", {"compiledAdapter": "denier", "params": status})
    response = await validate(stub, [handler, *denial()[1:]])
    violation = response.violations[0]
    assert (violation.key.name, violation.field, violation.message) == ("forbid", "spec.params", "not to my taste")


async def test_what_is_no_document_is_a_violation(stub: Any) -> None:
    key = config_pb2.Key(api_version="config.istio.io/v1alpha2", kind="rule", namespace="a", name="b")
    request = config_pb2.ValidateRequest(changed=[config_pb2.Object(key=key, json='{"kind": 3}')])
    violation = (await stub.Validate(request)).violations[0]
    assert violation.key.name == "b"
    assert violation.index == 0
    assert violation.field
