"""Adapter opa: Rego decides about authorization instances; a failing policy passes or denies, as `failClose` says."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from meshwright.mixer.adapter.v1 import Action, Authorization, Code, Subject
from meshwright.mixer.adapters.opa import ADAPTER
from meshwright.mixer.plugintest import running

POLICY = """
package mixerauthz

default allow = false

allow { input.action.method == "GET"; input.subject.properties.level > 2 }
allow { input.subject.groups == "admins" }
"""
FAILING = "package mixerauthz\n\nallow = to_number(input.subject.user) == 1"


def parameters(*policy: str, **more: Any) -> dict[str, Any]:
    return {"policy": [*policy], "checkMethod": "data.mixerauthz.allow", **more}


def asked(method: str = "GET", **subject: Any) -> Authorization:
    return Authorization(instance="who.default", subject=Subject(**subject), action=Action(method=method))


async def test_a_policy_decides() -> None:
    async with running(ADAPTER, parameters(POLICY)) as handler:
        for question, code in (
            (asked(properties={"level": 3}), Code.OK),
            (asked(properties={"level": 2}), Code.PERMISSION_DENIED),
            (asked("PUT", groups="admins"), Code.OK),
            (asked("PUT", properties={"since": timedelta(seconds=1)}), Code.PERMISSION_DENIED),
        ):
            assert (await handler.check(question)).code == code, question


async def test_modules_work_together_in_todays_language() -> None:
    data = 'package lists\nadmins := {"ann"}'
    rule = "package mixerauthz\nallow if input.subject.user in data.lists.admins"
    async with running(ADAPTER, parameters(data, rule, regoVersion="v1")) as handler:
        assert (await handler.check(asked(user="ann"))).code == Code.OK
        assert (await handler.check(asked(user="eve"))).code == Code.PERMISSION_DENIED


@pytest.mark.parametrize(("closes", "code"), [(False, Code.OK), (True, Code.PERMISSION_DENIED)])
async def test_a_failing_policy_passes_or_denies(closes: bool, code: Code) -> None:
    async with running(ADAPTER, parameters(FAILING, failClose=closes)) as handler:
        found = await handler.check(asked(user="no number"))
        assert (found.code, found.valid_use_count if found.code == Code.OK else 0) == (code, 0)


async def test_what_cannot_be_read_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"policy\[1\]"):
        async with running(ADAPTER, parameters(POLICY, "package x\nallow {")):
            pass
    with pytest.raises(ValueError, match="data.mixerauthz.other"):
        async with running(ADAPTER, {**parameters(POLICY), "checkMethod": "data.mixerauthz.other"}):
            pass


@pytest.mark.parametrize("bad", [{"policy": []}, {"checkMethod": "allow"}, {"timeLimit": "10s"}, {"regoVersion": "v2"}])
def test_bad_parameters_are_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ADAPTER.parameters.model_validate({**parameters(POLICY), **bad})
