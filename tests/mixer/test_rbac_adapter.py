"""Adapter rbac: the classic kinds, as their reference describes them."""

from __future__ import annotations

from typing import Any

import pytest
from rule_documents import document

from meshwright.core.config import objects
from meshwright.mixer.adapter.v1 import Action, Authorization, Code, Subject
from meshwright.mixer.adapters.rbac import ADAPTER
from meshwright.mixer.adapters.rbac.adapter import Completed, Parameters
from meshwright.mixer.adapters.rbac.decision import Outcome, Roles
from meshwright.mixer.config.compiler import compile_policy
from meshwright.mixer.plugintest import serving
from meshwright.mixer.specs.rbac import RbacConfig, ServiceRole, ServiceRoleBinding

ON = RbacConfig(mode="ON")
SERVICE = "products.shop.svc.cluster.local"


def roles(
    rules: list[dict[str, Any]],
    subjects: list[dict[str, Any]],
    config: RbacConfig | None = ON,
    **binding: Any,
) -> Roles:
    role = ServiceRole.model_validate({"rules": rules})
    bound = {"subjects": subjects, "roleRef": {"kind": "ServiceRole", "name": "viewer"}, **binding}
    return Roles(config, {("shop", "viewer"): role}, {("shop", "bind"): ServiceRoleBinding.model_validate(bound)})


def instance(subject: dict[str, Any] | None = None, **action: Any) -> Authorization:
    return Authorization(
        instance="who.shop",
        subject=Subject(**{"user": "ann", **(subject or {})}),
        action=Action(**{"namespace": "shop", "service": SERVICE, "method": "GET", "path": "/items/1", **action}),
    )


def allowed(known: Roles, *given: Any, **action: Any) -> bool:
    return known.decide(instance(*given, **action)) is Outcome.ALLOWED


ANN = [{"user": "ann"}]


@pytest.mark.parametrize(
    ("rule", "action", "passes"),
    [
        ({"services": ["*"]}, {}, True),
        ({"services": [SERVICE]}, {}, True),
        ({"services": ["products.*"], "methods": ["*"]}, {}, True),
        ({"services": ["*.svc.cluster.local"]}, {}, True),
        ({"services": ["carts.*"]}, {}, False),
        ({"services": ["*"], "methods": ["POST"]}, {}, False),
        ({"services": ["*"], "paths": ["/items/*", "/health"]}, {}, True),
        ({"services": ["*"], "paths": ["*/2"]}, {}, False),
        ({"services": ["*"], "notPaths": ["/items/*"]}, {}, False),
        ({"services": ["*"], "ports": [80]}, {"properties": {"destination.port": 80}}, True),
        ({"services": ["*"], "ports": [80]}, {}, False),
        ({"services": ["*"], "notPorts": [80]}, {"properties": {"destination.port": 80}}, False),
        (
            {"services": ["*"], "constraints": [{"key": "version", "values": ["v1", "v2*"]}]},
            {"properties": {"version": "v2-beta"}},
            True,
        ),
        ({"services": ["*"], "constraints": [{"key": "version", "values": ["*"]}]}, {}, False),
    ],
)
def test_rules_limit_what_a_role_allows(rule: dict[str, Any], action: dict[str, Any], passes: bool) -> None:
    assert allowed(roles([rule], ANN), **action) is passes


@pytest.mark.parametrize(
    ("subject", "found", "passes"),
    [
        ({"user": "ann"}, {}, True),
        ({"user": "*"}, {}, True),
        ({"user": "*"}, {"user": ""}, False),
        ({"user": "bob"}, {}, False),
        ({"group": "staff"}, {"groups": "guests, staff"}, True),
        ({"group": "staff"}, {"groups": "staffing"}, False),
        ({"user": "ann", "group": "staff"}, {}, False),
        ({"properties": {"source.namespace": "front"}}, {"properties": {"source.namespace": "front"}}, True),
        ({"properties": {"source.namespace": "front"}}, {}, False),
        ({"namespaces": ["fr*"]}, {"properties": {"source.namespace": "front"}}, True),
        ({"notNames": ["ann"]}, {}, False),
        ({"notGroups": ["staff"]}, {"groups": "staff"}, False),
    ],
)
def test_a_binding_means_those_who_fit_all_it_says(
    subject: dict[str, Any], found: dict[str, Any], passes: bool
) -> None:
    assert allowed(roles([{"services": ["*"]}], [subject]), found) is passes


def test_a_role_counts_in_its_own_namespace_only() -> None:
    assert not allowed(roles([{"services": ["*"]}], ANN), namespace="other")


@pytest.mark.parametrize(
    ("config", "passes"),
    [
        ({"mode": "OFF"}, True),
        ({}, True),
        ({"mode": "ON"}, False),
        ({"mode": "ON_WITH_INCLUSION", "inclusion": {"namespaces": ["shop"]}}, False),
        ({"mode": "ON_WITH_INCLUSION", "inclusion": {"services": ["carts"]}}, True),
        ({"mode": "ON_WITH_EXCLUSION", "exclusion": {"services": [SERVICE]}}, True),
        ({"mode": "ON_WITH_EXCLUSION", "exclusion": {"namespaces": ["other"]}}, False),
    ],
)
def test_the_configuration_says_where_roles_count(config: dict[str, Any], passes: bool) -> None:
    known = roles([{"services": ["carts"]}], ANN, RbacConfig.model_validate(config))
    assert allowed(known) is passes


def test_without_a_configuration_roles_do_not_count() -> None:
    assert allowed(roles([{"services": ["carts"]}], ANN, None))


def test_permissive_roles_and_configurations_are_told_not_enforced() -> None:
    permissive = RbacConfig.model_validate({"mode": "ON", "enforcementMode": "PERMISSIVE"})
    assert roles([{"services": ["carts"]}], ANN, permissive).decide(instance()) is Outcome.WOULD_DENY
    assert roles([{"services": ["*"]}], ANN, mode="PERMISSIVE").decide(instance()) is Outcome.WOULD_DENY


def test_the_roles_of_the_configuration_become_the_handlers_parameters() -> None:
    """A change of a role must be a change of the parameters, or the handler wouldn't be opened anew."""
    role = ServiceRole.model_validate({"rules": [{"services": ["*"]}]})
    other = ServiceRole.model_validate({"rules": [{"services": ["a"]}]})
    made = [ADAPTER.complete(Parameters(), {"ServiceRole": {("shop", "viewer"): each}}) for each in (role, role, other)]
    assert made[0] == made[1] != made[2]
    configs = {
        "RbacConfig": {("a", "default"): RbacConfig(mode="OFF"), ("a", "other"): RbacConfig(mode="ON")},
        "ClusterRbacConfig": {("", "default"): RbacConfig(mode="ON_WITH_EXCLUSION")},
    }
    chosen = ADAPTER.complete(Parameters(), configs).config
    assert chosen is not None
    assert chosen.mode == "ON_WITH_EXCLUSION"


def test_the_compiler_gives_the_handler_the_roles() -> None:
    def rbac(kind: str, name: str, spec: dict[str, Any]) -> objects.Object:
        raw = {
            "apiVersion": "rbac.istio.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, "namespace": "shop"},
            "spec": spec,
        }
        return objects.from_document(raw, f"{name}.yaml#1")

    given = [
        document("handler", "roles", {"compiledAdapter": "rbac"}),
        rbac("ServiceRole", "viewer", {"rules": [{"services": ["*"], "methods": ["GET"]}]}),
        rbac("ServiceRoleBinding", "bind", {"subjects": ANN, "roleRef": {"kind": "ServiceRole", "name": "viewer"}}),
        rbac("RbacConfig", "default", {"mode": "ON"}),
    ]
    compiled = compile_policy(given, {"rbac": ADAPTER})
    assert not compiled.dropped
    parameters = compiled.sinks["roles.meshwright-system"].parameters
    assert isinstance(parameters, Completed)
    known = Roles(parameters.config, parameters.roles, parameters.bindings)
    assert allowed(known)
    assert not allowed(known, method="PUT")


DOCUMENTS = """
apiVersion: config.istio.io/v1alpha2
kind: handler
metadata: {name: roles, namespace: meshwright-system}
spec: {compiledAdapter: rbac}
---
apiVersion: config.istio.io/v1alpha2
kind: instance
metadata: {name: who, namespace: meshwright-system}
spec:
  compiledTemplate: authorization
  params:
    subject: {user: source.principal | ""}
    action:
      namespace: destination.service.namespace | ""
      service: destination.service.host | ""
      method: request.method | ""
      path: request.url_path | ""
---
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: roles, namespace: meshwright-system}
spec: {actions: [{handler: roles, instances: [who]}]}
---
apiVersion: rbac.istio.io/v1alpha1
kind: RbacConfig
metadata: {name: default, namespace: meshwright-system}
spec: {mode: ON_WITH_INCLUSION, inclusion: {namespaces: [shop]}}
---
apiVersion: rbac.istio.io/v1alpha1
kind: ServiceRole
metadata: {name: viewer, namespace: shop}
spec: {rules: [{services: ["products.*"], methods: [GET]}]}
---
apiVersion: rbac.istio.io/v1alpha1
kind: ServiceRoleBinding
metadata: {name: bind, namespace: shop}
spec: {subjects: [{user: ann}], roleRef: {kind: ServiceRole, name: viewer}}
"""


async def test_mixer_decides_by_the_roles_of_its_configuration() -> None:
    request = {
        "source.principal": "ann",
        "destination.service.namespace": "shop",
        "destination.service.host": SERVICE,
        "request.method": "GET",
        "request.url_path": "/items/1",
    }
    async with serving(ADAPTER, DOCUMENTS) as mixer:
        for change, code in (
            ({}, Code.OK),
            ({"source.principal": "bob"}, Code.PERMISSION_DENIED),
            ({"request.method": "PUT"}, Code.PERMISSION_DENIED),
            ({"destination.service.namespace": "other"}, Code.OK),
        ):
            assert (await mixer.check({**request, **change})).code == code, change
