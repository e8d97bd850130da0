"""meshwright.config.v1.ConfigService: judge, ask the owners, commit in one revision, answer.

One decision to know: requests are judged against the state at one revision, and committed only if that is still the
newest; if another replica was faster, the request is judged again against what that one made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol

import structlog

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.core.grpc import peer_id
from meshwright.manager import metrics
from meshwright.manager.configapi import messages
from meshwright.manager.configapi import plan as plans
from meshwright.manager.configapi.catalogue import Catalogue, State
from meshwright.manager.configapi.owners import Owners
from meshwright.manager.configapi.status import StatusBoard
from meshwright.manager.model import kinds
from meshwright.manager.model.parse import Parsed
from meshwright.manager.xds.convergence import Convergence

_ATTEMPTS = 5
_SETTLE_SECONDS = 5.0
_PAGE_BYTES = 2 << 20

_log = structlog.get_logger(__name__)


class Writer(Protocol):
    """Where committed changes go."""

    async def commit(self, put: Mapping[Key, str], delete: Collection[Key], expected: int) -> int:
        """Commit JSON texts and deletions in one revision and return it; raise Conflict unless `expected` is newest."""
        ...


class ConfigService(config_pb2_grpc.ConfigServiceServicer):
    """The servicer. Without a `writer` the configuration is a folder's, and can't be changed here."""

    def __init__(
        self,
        catalogue: Catalogue,
        writer: Writer | None,
        owners: Owners,
        status: StatusBoard,
        convergence: Convergence,
        owned: plans.Owned = plans.nobodys,
    ) -> None:
        self._catalogue, self._writer, self._owners, self._status = catalogue, writer, owners, status
        self._convergence = convergence
        self._owned = owned  # by a cluster
        self._turn = asyncio.Lock()  # requests at one replica wait for each other instead of losing conflicts

    async def Apply(self, request: Any, context: Any) -> Any:
        """Put objects, all or none."""
        documents = [(messages.key(found.key), found.json) for found in request.objects]
        plan, revision = await self._change(
            lambda state: plans.apply(documents, state, self._owned),
            dry_run=request.dry_run,
            accept_unvalidated=request.accept_unvalidated,
            caller=peer_id(context),
        )
        response = config_pb2.ApplyResponse(revision=revision)
        return _filled(response, plan)

    async def Delete(self, request: Any, context: Any) -> Any:
        """Delete objects, all or none."""
        keys = [messages.key(found) for found in request.keys]
        plan, revision = await self._change(
            lambda state: plans.delete(keys, state, ignore_missing=request.ignore_missing, owned=self._owned),
            dry_run=request.dry_run,
            accept_unvalidated=request.accept_unvalidated,
            caller=peer_id(context),
        )
        return _filled(config_pb2.DeleteResponse(revision=revision), plan)

    async def List(self, request: Any, context: Any) -> Any:
        """List objects, page by page."""
        state = self._catalogue.state
        response = config_pb2.ListResponse(revision=state.revision)
        size = 0
        for name, found in _selected(state, messages.key(request.filter), request.after):
            if size > _PAGE_BYTES:
                break
            response.objects.append(messages.object_message(found, state.revisions.get(found.key, 0)))
            size += len(found.text)
            response.next = name
        else:
            response.next = ""
        return response

    async def ProxyStatus(self, request: Any, context: Any) -> Any:
        """Say what each proxy has acknowledged."""
        response = self._status.here()
        if not request.this_replica:
            await self._status.add_others(response)
        return response

    async def _change(
        self, judge: Callable[[State], plans.Plan], *, dry_run: bool, accept_unvalidated: bool, caller: str | None
    ) -> tuple[plans.Plan, int]:
        if self._writer is None and not dry_run:
            raise errors.ConfigError(
                "this manager serves a folder of files", remedy="change the files, or start it without --config"
            )
        async with self._turn:
            for _ in range(_ATTEMPTS):
                state = self._catalogue.state
                plan = judge(state)
                if not plan.findings.violations:
                    found = await self._owners.judge(plan, accept_unvalidated=accept_unvalidated)
                    plan.findings.violations += found.violations
                    plan.findings.warnings += found.warnings
                if plan.findings.violations:
                    metrics.REJECTED.inc()
                if plan.findings.violations or dry_run or self._writer is None or not (plan.put or plan.delete):
                    return plan, state.revision
                texts = {key: parsed.text for key, parsed in plan.put.items()}
                accepted = self._convergence.now()
                try:
                    revision = await self._writer.commit(texts, plan.delete, state.revision)
                except errors.Conflict:
                    await self._catalogue.reached(state.revision + 1, _SETTLE_SECONDS)
                    continue
                self._convergence.accepted(revision, accepted)
                metrics.COMMITS.inc()
                _log.info("committed", revision=revision, put=len(texts), deleted=len(plan.delete), caller=caller)
                # Whoever applies and lists sees what they applied.
                await self._catalogue.reached(revision, _SETTLE_SECONDS)
                return plan, revision
        raise errors.Conflict(f"others changed the configuration {_ATTEMPTS} times meanwhile: try again")


def _filled(response: Any, plan: plans.Plan) -> Any:
    findings = plan.findings
    response.violations.extend(map(messages.violation_message, findings.violations))
    response.warnings.extend(map(messages.violation_message, findings.warnings))
    if not findings.violations:
        response.results.extend(messages.result_message(key, action) for key, action in plan.results)
    return response


def _selected(state: State, wanted: Key, after: str) -> Iterator[tuple[str, Parsed]]:
    if wanted.kind and not any(kind.name.lower() == wanted.kind.lower() for kind in kinds.KINDS):
        near = kinds.nearest(wanted.api_version, wanted.kind)
        hint = f"did you mean {near.name}?" if near else f"there are {', '.join(kind.name for kind in kinds.KINDS)}"
        raise errors.ConfigError(f"unknown kind {wanted.kind}: {hint}", field="filter.kind")
    for key in sorted(state.objects, key=_order):
        name = "\n".join(_order(key))
        if name > after and _fits(key, wanted):
            yield name, state.objects[key]


def _order(key: Key) -> tuple[str, ...]:
    return key.kind, key.api_version, key.namespace, key.name


def _fits(key: Key, wanted: Key) -> bool:
    return (
        wanted.api_version in ("", key.api_version)
        and wanted.kind.lower() in ("", key.kind.lower())
        and wanted.namespace in ("", key.namespace)
        and wanted.name in ("", key.name)
    )
