"""What a person can get wrong: each fault names the object, the field and the remedy, and nothing is applied."""

from __future__ import annotations

import json

import pytest
import yaml
from meshes import SHOP, SPLIT, World, parsed

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager.configapi import plan
from meshwright.manager.configapi.catalogue import State
from meshwright.manager.model.fault import Fault

SERVICE = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: s}, ports: [{port: 80}]}\n"
ENTRY = """
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: w}
spec: {address: 10.0.0.1, serviceAccount: w}
"""
SIDECAR = """
apiVersion: networking.istio.io/v1beta1
kind: Sidecar
metadata: {name: c}
spec:
  workloadSelector: {labels: {app: catalog}}
  ingress: [{port: {number: 8080}, defaultEndpoint: "unix:///run/a.sock"}]
"""
RULE = "apiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {name: r}\nspec: {match: 'true'}\n"


def state(text: str = SHOP) -> State:
    world = World(text)
    return State(1, world.objects, world.mesh)


def documents(text: str) -> list[tuple[Key | None, str]]:
    return [(None, json.dumps(document)) for document in yaml.safe_load_all(text)]


def faults(text: str) -> list[Fault]:
    return plan.apply(documents(text), state()).findings.violations


CASES = {
    "unknown kind": (SPLIT.replace("TrafficSplit", "TraficSplit"), "kind", "did you mean TrafficSplit"),
    "kind in another case": (RULE.replace("kind: rule", "kind: Rule"), "kind", "did you mean rule"),
    "another version": (SPLIT.replace("v1alpha4", "v1alpha9"), "kind", "write apiVersion: split.smi-spec.io/v1alpha4"),
    "no kind": ("apiVersion: v1\nmetadata: {name: a}", "kind", "is missing"),
    "not an object": ("[1, 2]", "", "isn't an object"),
    "unknown field": (
        SPLIT.replace("weight: 90", "wieght: 90, weight: 9"),
        "spec.backends[0].wieght",
        "did you mean weight",
    ),
    "unknown field, nothing like it": (
        SERVICE.replace("spec: {", "spec: {colour: red, "),
        "spec.colour",
        "known here: ports, selector, type",
    ),
    "wrong type: text for a number": (SPLIT.replace("90", '"90"'), "spec.backends[0].weight", "write a whole number"),
    "wrong type: number for text": (ENTRY.replace("name: w}", "name: 7}"), "metadata.name", "write text, in quotes"),
    "wrong type: label": (
        ENTRY.replace("address", "labels: {version: 1}, address"),
        "spec.labels.version",
        "in quotes",
    ),
    "wrong type: map for a list": (SPLIT.split("  backends")[0] + "  backends: {}", "spec.backends", "write a list"),
    "fraction": (SPLIT.replace("90", "0.5"), "spec.backends[0].weight", "write a whole number"),
    "missing field": (ENTRY.replace(", serviceAccount: w", ""), "spec.serviceAccount", "is required and missing"),
    "no metadata": ("apiVersion: v1\nkind: Namespace", "metadata", "is required and missing"),
    "bad name": (SERVICE.replace("name: s}", "name: My_Service}"), "metadata.name", "lower-case"),
    "unknown namespace": (
        SERVICE.replace("name: s}", "name: s, namespace: nowhere}"),
        "metadata.namespace",
        "apply a Namespace nowhere first",
    ),
    "namespace in a namespace": (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a, namespace: b}",
        "metadata.namespace",
        "remove this field",
    ),
    "negative weight": (SPLIT.replace("90", "-1"), "spec.backends[0].weight", "can't be negative"),
    "all weights zero": (SPLIT.replace("90", "0").replace("10", "0"), "spec.backends", "all weights are 0"),
    "too big a weight": (SPLIT.replace("90", "99999999"), "spec.backends[0].weight", "write 1000000 or less"),
    "backend twice": (SPLIT.replace("catalog-v2", "catalog-v1"), "spec.backends", "named twice"),
    "a split of itself": (
        SPLIT.replace("service: catalog-v1", "service: catalog"),
        "spec.backends[0].service",
        "refers to itself",
    ),
    "a split of another namespace's service": (
        SPLIT.replace("service: catalog\n", "service: catalog.depot\n"),
        "spec.service",
        "isn't a service of namespace default",
    ),
    "no backends": (SPLIT.split("  backends")[0] + "  backends: []", "spec.backends", "at least 1"),
    "twice in one request": (SERVICE + "---\n" + SERVICE, "metadata.name", "as documents 1 and 2"),
    "two sidecars of one workload": (SIDECAR, "spec.workloadSelector", "catalog-v1-0 would be selected by"),
    "no ports": (SERVICE.replace("[{port: 80}]", "[]"), "spec.ports", "at least 1"),
    "port out of range": (SERVICE.replace("80", "99999"), "spec.ports[0].port", "write 65535 or less"),
    "unnamed ports": (SERVICE.replace("[{port: 80}]", "[{port: 80}, {port: 81}]"), "spec.ports", "must name each"),
    "bad annotation": (
        SERVICE.replace("name: s}", "name: s, annotations: {meshwright.io/on-policy-outage: maybe}}"),
        "metadata.annotations.meshwright.io/on-policy-outage",
        "'allow' or 'deny'",
    ),
    "host name as address": (ENTRY.replace("10.0.0.1", "example.org"), "spec.address", "isn't an IP address"),
    "no single address": (ENTRY.replace("10.0.0.1", "0.0.0.0"), "spec.address", "names no single machine"),
    "TCP egress": (
        SIDECAR.replace("ingress", "egress: [{bind: '127.0.0.1:80'}]\n  ingress"),
        "spec.egress[0].bind",
        "unix:///absolute/path",
    ),
    "socket path too long": (
        SIDECAR.replace("/run/a", "/run/" + "a" * 110),
        "spec.ingress[0].defaultEndpoint",
        "107 at most",
    ),
    "unsupported protocol": (
        SIDECAR.replace("8080}", "8080, protocol: MONGO}"),
        "spec.ingress[0].port.protocol",
        "'HTTP', 'HTTP2' or 'GRPC'",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_fault(case: str) -> None:
    """The first fault names field and remedy, and where in the request it is."""
    text, field, remedy = CASES[case]
    found = faults(text)
    assert found, "accepted"
    assert (found[0].field, remedy in found[0].message) == (field, True), found
    assert found[0].index == (1 if "---" in text else 0)


def test_nothing_of_a_request_with_one_fault_would_be_applied() -> None:
    planned = plan.apply(documents(SERVICE + "---\n" + SPLIT.replace("90", "-1")), state())
    assert planned.findings.violations
    assert planned.after == state().objects or planned.after.keys() == state().objects.keys()


def test_every_fault_of_a_request_is_told_at_once() -> None:
    text = SPLIT.replace("90", "-1").replace("10", '"10"') + "---\n" + SERVICE.replace("80", "0")
    assert {fault.field for fault in faults(text)} == {
        "spec.backends[0].weight",
        "spec.backends[1].weight",
        "spec.ports[0].port",
    }


def test_a_missing_backend_is_accepted_with_the_share_that_fails() -> None:
    planned = plan.apply(documents(SPLIT.replace("catalog-v2", "catalog-v9")), state())
    assert planned.findings.violations == []
    [warning] = planned.findings.warnings
    assert (warning.field, warning.message) == (
        "spec.backends[1].service",
        "service catalog-v9 doesn't exist: 10 % of the requests fail until it does",
    )


def test_of_two_splits_of_one_service_the_first_by_name_is_in_force_and_the_other_told() -> None:
    other = SPLIT.replace("name: catalog}", "name: other}", 1)
    planned = plan.apply(documents(other + "---" + SPLIT), state())
    assert planned.findings.violations == []
    [warning] = planned.findings.warnings
    assert (warning.key.name, warning.field, warning.index) == ("other", "spec.service", 0)
    assert "already split by catalog" in warning.message


def test_a_namespace_of_the_same_request_counts() -> None:
    text = SERVICE.replace("name: s}", "name: s, namespace: new}")
    assert faults(text + "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: new}") == []


def test_what_did_not_change_costs_nothing() -> None:
    planned = plan.apply(documents(SHOP), state())
    assert planned.put == {}
    assert {action for _, action in planned.results} == {plan.Action.UNCHANGED}


def test_an_object_of_more_than_a_mebibyte_is_refused() -> None:
    big = yaml.safe_load(ENTRY)
    big["metadata"]["annotations"] = {"note": "x" * (1 << 20)}
    [fault] = plan.apply([(None, json.dumps(big))], state()).findings.violations
    assert "1 MiB" in fault.message


def test_requests_have_limits() -> None:
    with pytest.raises(errors.Exhausted, match="10000 are taken"):
        plan.apply([(None, "{}")] * 10_001, state())
    with pytest.raises(errors.Exhausted, match="split it"):
        plan.apply([(None, "x" * (1 << 20))] * 8, state())


def key(kind: str, name: str, namespace: str = "default") -> Key:
    return Key("", kind, namespace, name)


def test_a_namespace_that_holds_something_stays() -> None:
    full = "apiVersion: v1\nkind: Namespace\nmetadata: {name: new}\n---\n" + SERVICE.replace(
        "name: s}", "name: s, namespace: new}"
    )
    planned = plan.delete([key("Namespace", "new", "")], state(full), ignore_missing=False)
    assert "holds Service new/s" in planned.findings.violations[0].message
    both = [key("Namespace", "new", ""), key("Service", "s", "new")]
    assert plan.delete(both, state(full), ignore_missing=False).findings.violations == []


def test_deleting_what_is_not_there() -> None:
    wanted = [key("Service", "nothing")]
    assert "doesn't exist" in plan.delete(wanted, state(), ignore_missing=False).findings.violations[0].message
    assert plan.delete(wanted, state(), ignore_missing=True).results[0][1] is plan.Action.UNCHANGED
    wrong = plan.delete([key("Servize", "a")], state(), ignore_missing=True)
    assert "did you mean Service" in wrong.findings.violations[0].message


def test_permanent_namespaces_stay() -> None:
    planned = plan.delete([key("Namespace", "default", "")], state(), ignore_missing=False)
    assert "always there" in planned.findings.violations[0].message


def test_deleting_a_service_that_a_split_names_is_warned_of() -> None:
    planned = plan.delete([key("Service", "catalog-v1")], state(SHOP + "---" + SPLIT), ignore_missing=False)
    assert "TrafficSplit default/catalog refers to it" in planned.findings.warnings[0].message


def test_the_claimed_key_must_be_the_documents() -> None:
    claimed = Key("v1", "Service", "default", "other")
    [found] = parsed(SERVICE).values()
    [fault] = plan.apply([(claimed, found.text)], state()).findings.violations
    assert "the request calls this object" in fault.message


def test_a_rollback_leaves_what_belongs_to_a_cluster_to_kubectl() -> None:
    """Objects that were taken from a cluster are changed there; those of this mesh go back by themselves."""
    taken = SPLIT.replace("name: catalog}", "name: catalog, annotations: {meshwright.io/source: kubernetes}}", 1)
    now = state(SHOP + "---" + taken)
    [split] = [key for key in now.objects if key.kind == "TrafficSplit"]
    then = now.objects[split].text.replace("90", "50")
    for texts, gone, remedy in (({split: then}, set(), "use 'kubectl apply'"), ({}, {split}, "use 'kubectl delete'")):
        [fault] = plan.rollback(texts, gone, now, lambda _: True).findings.violations
        assert fault.key == split
        assert remedy in fault.message
    planned = plan.rollback({}, {split}, now)  # without a cluster nobody else deletes it
    assert (planned.findings.violations, planned.delete) == ([], {split})
