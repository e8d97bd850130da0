"""The adapter object and its handler.

One decision to know: Rego itself runs in Rust (`meshwright.dataplane.rego`), which is imported when a handler opens:
compilers are used where there is no native module.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic
from pydantic import Field

from meshwright.mixer.adapter.v1 import Authorization, CheckResult, Code, Host
from meshwright.mixer.adapters.plain import plain_map
from meshwright.mixer.config.fields import Model, Nanoseconds

if TYPE_CHECKING:
    from meshwright.dataplane.rego import RegoPolicy

_VALID = timedelta(seconds=5)  # as the original's; a policy may look at the time of day


class Parameters(Model):
    """`policy` are modules, `checkMethod` is the rule that decides; with `failClose` a failing rule denies.

    `regoVersion` says how modules are written that don't say `import rego.v1`: v0 as in the original's days.
    """

    policy: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=1 << 20)]], Field(min_length=1, max_length=100)
    ]
    check_method: Annotated[str, Field(pattern=r"^data(\.[A-Za-z_][A-Za-z0-9_]*)+$", max_length=512)]
    fail_close: bool = False
    rego_version: Literal["v0", "v1"] = "v0"
    time_limit: Annotated[Nanoseconds, Field(gt=0, le=1_000_000_000, description="Of one decision.")] = 50_000_000


class RegoHandler:
    """Decides authorization instances: `input.subject` and `input.action`, with the template's names."""

    def __init__(self, policy: RegoPolicy, *, fails_closed: bool) -> None:
        self._policy, self._fails_closed = policy, fails_closed

    def check(self, instance: Authorization) -> CheckResult:
        """Ask the rule. When it fails the request passes, or is denied with `failClose`, as in the original."""
        try:
            allowed = self._policy.allows(json.dumps(_document(instance)))
        except RuntimeError as error:
            if self._fails_closed:
                return CheckResult.deny(f"opa: the policy failed: {str(error)[:500]}")
            return CheckResult(valid_duration=timedelta(0), valid_use_count=0)
        if allowed:
            return CheckResult(valid_duration=_VALID, valid_use_count=-1)
        message = "opa: request was rejected"
        return CheckResult(code=Code.PERMISSION_DENIED, message=message, valid_duration=_VALID, valid_use_count=-1)


class OpaAdapter:
    """The adapter as entry points name it."""

    name = "opa"
    templates = frozenset({"authorization"})
    parameters: type[pydantic.BaseModel] = Parameters

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[RegoHandler]:
        """Read the modules; ValueError tells which can't be read."""
        from meshwright.dataplane.rego import RegoPolicy

        policy = RegoPolicy(
            [(f"policy[{number}]", text) for number, text in enumerate(parameters.policy)],
            parameters.check_method,
            is_v1=parameters.rego_version == "v1",
            limit_seconds=parameters.time_limit / 1e9,
        )
        yield RegoHandler(policy, fails_closed=parameters.fail_close)


def _document(instance: Authorization) -> dict[str, Any]:
    subject, action = instance.subject, instance.action
    return {
        "subject": {"user": subject.user, "groups": subject.groups, "properties": plain_map(subject.properties)},
        "action": {
            "namespace": action.namespace,
            "service": action.service,
            "method": action.method,
            "path": action.path,
            "properties": plain_map(action.properties),
        },
    }


ADAPTER = OpaAdapter()
