"""The adapter object and its handler.

One decision to know: the roles are documents of their own, which the compiler puts into the handler's parameters
(`complete`); so a change of a role is a change of the handler, and takes effect as every change of configuration does.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pydantic
from pydantic import Field

from meshwright.mixer.adapter.v1 import Authorization, CheckResult, Code, Counter, Host
from meshwright.mixer.adapters.rbac.decision import Name, Outcome, Roles
from meshwright.mixer.config.fields import Model, Nanoseconds
from meshwright.mixer.specs.rbac import RbacConfig, ServiceRole, ServiceRoleBinding

_VALID = timedelta(minutes=1)  # the answer is a function of the question; a change of roles asks anew


class Parameters(Model):
    """The original's parameters are accepted and have no effect: roles come from mixer's own configuration."""

    config_store_url: str = ""
    cache_duration: Nanoseconds = 0


class Completed(Parameters):
    """Parameters with the roles of the whole configuration."""

    config: RbacConfig | None = None
    roles: dict[Name, ServiceRole] = Field(default_factory=dict)
    bindings: dict[Name, ServiceRoleBinding] = Field(default_factory=dict)


class RoleHandler:
    """Decides authorization instances."""

    def __init__(self, roles: Roles, permissive: Counter) -> None:
        self._roles, self._permissive = roles, permissive

    def check(self, instance: Authorization) -> CheckResult:
        """Decide; what permissive roles would have denied passes, and is counted."""
        outcome = self._roles.decide(instance)
        if outcome is Outcome.WOULD_DENY:
            self._permissive.inc()
        if outcome is Outcome.DENIED:
            message = "RBAC: no role allows it"
            return CheckResult(code=Code.PERMISSION_DENIED, message=message, valid_duration=_VALID, valid_use_count=-1)
        return CheckResult(valid_duration=_VALID, valid_use_count=-1)


class RbacAdapter:
    """The adapter as entry points name it."""

    name = "rbac"
    templates = frozenset({"authorization"})
    parameters: type[pydantic.BaseModel] = Parameters

    def complete(self, parameters: Any, documents: Mapping[str, Mapping[Name, Any]]) -> Completed:
        """Add the roles; of several RbacConfigs the one named `default` counts, a ClusterRbacConfig before others."""
        configs = {**documents.get("RbacConfig", {}), **documents.get("ClusterRbacConfig", {})}
        chosen = [config for (_, name), config in configs.items() if name == "default"]
        return Completed(
            config=chosen[-1] if chosen else None,
            roles=dict(documents.get("ServiceRole", {})),
            bindings=dict(documents.get("ServiceRoleBinding", {})),
        )

    @asynccontextmanager
    async def open(self, parameters: Parameters, host: Host) -> AsyncIterator[RoleHandler]:
        """Order the roles by namespace."""
        given = parameters if isinstance(parameters, Completed) else Completed()
        permissive = host.metrics.counter("permissive_denials_total", "Requests that permissive roles would deny.")
        yield RoleHandler(Roles(given.config, given.roles, given.bindings), permissive)


ADAPTER = RbacAdapter()
