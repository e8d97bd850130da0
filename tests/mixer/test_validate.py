"""The Validation service, asked as the manager asks it: over gRPC, with the change and everything around it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import descriptor_sets
import pytest
from google.rpc import error_details_pb2
from remote_backend import Backend, hang
from rule_documents import action, denial, document

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core.config.objects import Object
from meshwright.core.grpc import Channel, Server
from meshwright.mixer.adapters.opentelemetry import ADAPTER
from meshwright.mixer.config.compiler import compile_policy
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.config.violation import Violation
from meshwright.mixer.remote import objections
from meshwright.mixer.remote.handlers import RemoteHandler
from meshwright.mixer.remote.objections import Objections
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
def accepted() -> dict[str, RemoteHandler]:
    """Handlers of adapters in other processes that mixer uses."""
    return {}


@pytest.fixture
async def backend() -> AsyncIterator[Backend]:
    running = Backend()
    await running.start()
    yield running
    await running.stop()


@pytest.fixture
async def stub(in_force: list[Violation], accepted: dict[str, RemoteHandler]) -> AsyncIterator[Any]:
    server = Server("127.0.0.1:0", None)
    loader = PolicyLoader({ADAPTER.name: ADAPTER}, refuse_marked, export=False)
    servicer = ValidationServicer(loader, lambda: in_force, Objections(None), accepted.get)
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


def remote(address: str, *, token: str = "") -> list[Object]:
    """An adapter in another process, a handler of it, and a rule that gives it requests' paths."""
    connection: dict[str, Any] = {"address": address}
    if token:
        connection["authentication"] = {"tls": {"tokenPath": token}}
    config = descriptor_sets.text(descriptor_sets.config_source())
    return [
        document("adapter", "outside", {"templates": ["listentry"], "config": config, "session_based": False}),
        document("handler", "far", {"adapter": "outside", "connection": connection}),
        document("instance", "path", {"template": "listentry", "params": {"value": "request.path"}}),
        document("rule", "ask", {"actions": [action("far", "path")]}),
    ]


async def test_a_handler_that_its_adapter_refuses_is_a_violation(stub: Any, backend: Backend) -> None:
    """With the adapter's reason; it was shown the handler's parameters and what its instances yield."""
    documents = remote(backend.address)
    assert not (await validate(stub, documents)).violations
    assert backend.validated[0].inferred_types.keys() == {"path.instance.meshwright-system"}
    backend.refusal = "no such table"
    violation = (await validate(stub, documents)).violations[0]
    assert (violation.key.kind, violation.key.name, violation.index) == ("handler", "far", 1)
    assert violation.field == "spec.params"
    assert violation.message == "its adapter: it refuses: no such table (code 3)"


async def test_an_adapter_may_name_the_parameters_that_it_refuses(stub: Any, backend: Backend) -> None:
    """By google.rpc.BadRequest among the details; what is no field's name is left out."""
    details = error_details_pb2.BadRequest()
    for name, description in (("table.name", "no such table"), ("\x1b[31m", "red"), ("ttl", "")):
        details.field_violations.add(field=name, description=description)
    backend.refusal, backend.details = "bad parameters", details
    answer = await validate(stub, remote(backend.address))
    assert [(each.field, each.message) for each in answer.violations] == [
        ("spec.params.table.name", "its adapter: no such table"),
        ("spec.params.ttl", "its adapter: refused"),
    ]


async def test_an_adapter_that_cannot_be_asked_is_warned_about(
    stub: Any, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is away, it hangs, or there is no token to show it: the change is good, and whoever makes it is told."""
    await backend.stop()
    answer = await validate(stub, remote(backend.address))
    assert not answer.violations
    assert [(each.key.name, each.field) for each in answer.warnings] == [("far", "spec.connection")]
    assert "couldn't be asked (UNAVAILABLE" in answer.warnings[0].message
    monkeypatch.setattr(objections, "ANSWER_SECONDS", 0.2)
    await backend.start()
    backend.answers["Validate"] = hang
    answer = await validate(stub, remote(backend.address))
    assert not answer.violations
    assert "no answer within 0.2 s" in answer.warnings[0].message
    monkeypatch.undo()
    answer = await validate(stub, remote(backend.address, token="/nowhere/token"))
    assert not answer.violations
    assert "/nowhere/token" in answer.warnings[0].message


async def test_only_handlers_that_are_new_to_their_adapter_are_asked_about(
    stub: Any, backend: Backend, accepted: dict[str, RemoteHandler]
) -> None:
    """What is in force isn't asked about again; what the change makes of it is, whichever document it touches."""
    adapter, handler, instance, rule = documents = remote(backend.address)
    compiled = compile_policy(documents, {})
    backend.refusal = "not any more"
    accepted.update(compiled.remotes)
    assert not (await validate(stub, [rule], documents[:3])).violations
    assert not backend.validated
    more = document("instance", "method", {"template": "listentry", "params": {"value": "request.method"}})
    both = document("rule", "ask", {"actions": [action("far", "path", "method")]})
    answer = await validate(stub, [more, both], [adapter, handler, instance])
    assert [(each.key.name, each.index) for each in answer.violations] == [("far", -1)]
    assert "which the change doesn't touch: its adapter: it refuses" in answer.violations[0].message
    accepted.clear()
    answer = await validate(stub, denial(), documents)
    assert not answer.violations, "an old refusal, of which mixer tells itself"
    assert [each.key.name for each in answer.warnings] == ["far"]
