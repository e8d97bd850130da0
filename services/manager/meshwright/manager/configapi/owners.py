"""Asking the services that own kinds whether objects are good: meshwright.config.v1.Validation.

Any one replica's answer counts. When none answers the request fails and says who is missing, because committing what
nobody judged could break that service later; `accept_unvalidated` is the way round it for an emergency.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import grpc
import structlog

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core import errors, identity
from meshwright.core.config import Key
from meshwright.core.grpc import Channel
from meshwright.manager.configapi import messages
from meshwright.manager.configapi.plan import Plan
from meshwright.manager.model import kinds
from meshwright.manager.model.fault import Fault, Findings

_ANSWER_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Owners:
    """Channels to the owners' replicas, by owner: {"mixer": ["127.0.0.1:9091", …]}."""

    def __init__(
        self,
        addresses: Mapping[str, Sequence[str]],
        credentials: identity.IdentitySource | None,
        trust_domain: str,
    ) -> None:
        self._channels = {
            owner: {
                address: Channel(
                    address, credentials, peer=identity.part_id(trust_domain, owner) if credentials else None
                )
                for address in replicas
            }
            for owner, replicas in addresses.items()
        }

    async def close(self) -> None:
        """Close the channels."""
        for replicas in self._channels.values():
            for channel in replicas.values():
                await channel.close()

    async def judge(self, plan: Plan, *, accept_unvalidated: bool) -> Findings:
        """Ask each owner of what the plan touches; raise Unavailable when one can't be asked."""
        findings = Findings()
        places = {key: index for index, (key, _) in enumerate(plan.results)}
        for owner, (changed, deleted) in plan.owned().items():
            try:
                answer = await self._ask(owner, _request(owner, plan, changed, deleted))
            except errors.Unavailable as error:
                if not accept_unvalidated:
                    raise
                findings.warnings += [
                    Fault(key, "", f"was not validated: {error}", places.get(key, -1)) for key in changed
                ]
                continue
            findings.violations += _faults(answer.violations, places)
            findings.warnings += _faults(answer.warnings, places)
        return findings

    async def _ask(self, owner: str, request: Any) -> Any:
        reasons = []
        for address, channel in self._channels.get(owner, {}).items():
            try:
                return await config_pb2_grpc.ValidationStub(channel).Validate(request, timeout=_ANSWER_SECONDS)
            except grpc.aio.AioRpcError as error:
                reasons.append(f"{address}: {error.details() or error.code().name}")
                _log.warning("owner_unreachable", owner=owner, address=address, reason=error.details())
        reason = "; ".join(reasons) or "this manager was given no address of it"
        raise errors.Unavailable(
            f"{owner}, which owns these kinds, can't be asked to validate them ({reason}): start it, or commit "
            "without with --accept-unvalidated"
        )


def _request(owner: str, plan: Plan, changed: Iterable[Key], deleted: Iterable[Key]) -> Any:
    touched = set(changed)
    context = [found for key, found in plan.after.items() if found.kind.owner == owner and key not in touched]
    return config_pb2.ValidateRequest(
        changed=[messages.object_message(plan.after[key]) for key in changed],
        deleted=[messages.key_message(key) for key in deleted],
        context=[messages.object_message(found) for found in context],
    )


def _faults(violations: Iterable[Any], places: Mapping[Key, int]) -> list[Fault]:
    faults = []
    for violation in violations:
        key = messages.key(violation.key)
        kind = kinds.find(key.api_version, key.kind)
        if kind and kind.namespaced and not key.namespace:
            key = Key(key.api_version, key.kind, "default", key.name)
        faults.append(Fault(key, violation.field, violation.message, places.get(key, -1)))
    return faults
