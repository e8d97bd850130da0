"""Custom resources of mixer's kinds, judged by mixer's own Validation service: each has its reason in its status."""

from __future__ import annotations

from typing import Any

import pytest

from meshwright.api.config.v1 import config_pb2_grpc
from meshwright.core.grpc import Server
from meshwright.dataplane.policy import Engine
from meshwright.manager.configapi.owners import Owners
from meshwright.manager.configapi.plan import Plan
from meshwright.manager.model import kinds
from meshwright.manager.model.fault import Findings
from meshwright.manager.sources.kubernetes import candidate, status
from meshwright.manager.sources.kubernetes.admission import Admission, Admissions
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.remote.objections import Objections
from meshwright.mixer.validate import ValidationServicer

BY_NAME = {kind.name: kind for kind in kinds.KINDS}


def resource(kind: str, name: str, spec: Any) -> candidate.Candidate:
    metadata = {"name": name, "namespace": "shop", "uid": f"{kind}-{name}", "generation": 1}
    raw = {"metadata": metadata} if spec is None else {"metadata": metadata, "spec": spec}
    return candidate.read(raw, BY_NAME[kind])


async def admitted(*found: candidate.Candidate) -> Admission:
    server = Server("127.0.0.1:0", None)
    servicer = ValidationServicer(
        PolicyLoader({}, Engine().load, export=False), tuple, Objections(None), lambda _: None
    )
    config_pb2_grpc.add_ValidationServicer_to_server(servicer, server)
    owners = Owners({"mixer": [await server.start()]}, None, "mesh.local")

    async def judge(plan: Plan) -> Findings:
        return await owners.judge(plan, accept_unvalidated=False)

    try:
        return await Admissions(judge).admit({each.key: each for each in found})
    finally:
        await owners.close()
        await server.stop(0)


@pytest.mark.parametrize("kind", ["handler", "denier"])
async def test_a_bad_resource_and_what_needs_it_say_why(kind: str) -> None:
    """The others come into force; legacy kinds are no different."""
    is_legacy = kind == "denier"
    parameters = {"status": {"code": 99}}
    found = [
        resource(kind, "bad", parameters if is_legacy else {"compiledAdapter": "denier", "params": parameters}),
        resource("handler", "good", {"compiledAdapter": "denier"}),
        resource("checknothing", "nothing", None),
        resource("rule", "needs-bad", {"actions": [{"handler": f"bad.{kind}", "instances": ["nothing.checknothing"]}]}),
        resource("rule", "fine", {"actions": [{"handler": "good", "instances": ["nothing.checknothing"]}]}),
    ]
    admission = await admitted(*found)
    assert {key.name for key in admission.objects} == {"good", "nothing", "fine"}
    verdicts = {key.name: verdict for key, verdict in admission.verdicts.items()}
    where = "spec.status.code" if is_legacy else "spec.params.status.code"
    assert verdicts["bad"].message.startswith(f"{where}: not a code of a denial")
    assert f"spec.actions[0].handler: {kind} bad.shop was left out ({where}" in verdicts["needs-bad"].message
    condition, *_ = status.conditions(found[0], status.Standing(verdicts["bad"]), "2026-11-21T20:00:00Z")
    assert (condition["type"], condition["status"], condition["reason"]) == ("Accepted", "False", "Invalid")


async def test_what_the_engine_refuses_says_so_too() -> None:
    admission = await admitted(
        resource(
            "handler", "list", {"compiledAdapter": "listchecker", "params": {"entryType": "REGEX", "overrides": ["("]}}
        ),
        resource("handler", "good", {"compiledAdapter": "denier"}),
    )
    assert {key.name for key in admission.objects} == {"good"}
    (refused,) = (verdict for verdict in admission.verdicts.values() if not verdict.accepted)
    assert "unclosed group" in refused.message
