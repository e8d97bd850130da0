"""meshwright.config.v1.Validation: the manager asks it before it commits documents of mixer's kinds.

One decision to know: a change is judged by compiling everything as it would be afterwards, on the path that a snapshot
takes when it is served, the engine's own check included. What would be left out then and isn't already is refused; old
faults of documents that the change doesn't touch don't stand in its way. Of what is good then, adapters in other
processes are asked about the handlers that are new to them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core.config import objects
from meshwright.core.errors import ConfigError
from meshwright.mixer.config.documents import identity_of, shown
from meshwright.mixer.config.kinds import HANDLER, MEANINGS
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.config.violation import Identity, Violation
from meshwright.mixer.remote.handlers import RemoteHandler
from meshwright.mixer.remote.objections import Objections

_By = Mapping[Identity, objects.Object]


@dataclass(frozen=True, slots=True)
class _Judged:
    """`remotes` are the handlers of other processes' adapters; none when something is wrong without asking these."""

    response: Any
    documents: _By = field(default_factory=dict)
    positions: Mapping[Identity, int] = field(default_factory=dict)
    remotes: Mapping[str, RemoteHandler] = field(default_factory=dict)


class ValidationServicer(config_pb2_grpc.ValidationServicer):
    """Judges changes. The loader's engine serves nobody; `left_out` is what is wrong already.

    `in_force` gives the handler of another process's adapter that mixer uses at present, by `name.namespace`.
    """

    def __init__(
        self,
        loader: PolicyLoader,
        left_out: Callable[[], Sequence[Violation]],
        objections: Objections,
        in_force: Callable[[str], RemoteHandler | None],
    ) -> None:
        self._loader, self._left_out = loader, left_out
        self._objections, self._in_force = objections, in_force
        self._lock = asyncio.Lock()
        self._parsed: dict[str, objects.Object] = {}  # of the last request: most of the next one is the same

    async def Validate(self, request: Any, context: Any) -> Any:
        """Answer every violation; warnings only for objects that the change touches."""
        async with self._lock:
            judged = await asyncio.to_thread(self._judge, request)
        await self._ask(judged)
        return judged.response

    async def _ask(self, judged: _Judged) -> None:
        """Add what adapters say of handlers that they haven't accepted yet.

        A refusal counts as a fault of the change when this touches the handler or makes another one of it.
        """
        new = [each for name, each in judged.remotes.items() if self._in_force(name) != each]
        identities = {
            f"{shown(identity)}.{identity.namespace}": identity
            for identity in judged.documents
            if MEANINGS.get(identity.kind) == HANDLER
        }
        for objection in await self._objections.ask(new):
            identity = identities[objection.handler]
            told = _told(
                Violation(identity, objection.field, objection.message, ""), judged.documents, judged.positions
            )
            is_changed = identity in judged.positions or self._in_force(objection.handler) is not None
            if objection.refused and is_changed:
                judged.response.violations.append(told)
            else:
                judged.response.warnings.append(told)

    def _judge(self, request: Any) -> _Judged:
        response = config_pb2.ValidateResponse()
        deleted = {_key(key) for key in request.deleted}
        documents: dict[tuple[str, ...], objects.Object] = {}
        positions: dict[Identity, int] = {}
        parsed: dict[str, objects.Object] = {}
        for index, given in [*enumerate(request.changed), *((-1, each) for each in request.context)]:
            key = _key(given.key)
            if index < 0 and (key in deleted or key in documents):
                continue
            try:
                document = self._parsed.get(given.json) or objects.from_json(given.json, "the change")
            except ConfigError as error:
                response.violations.add(key=given.key, field=error.field, message=error.message, index=index)
                continue
            documents[key] = parsed[given.json] = document
            if index >= 0:
                positions[identity_of(document)] = index
        self._parsed = parsed
        by_identity = {identity_of(each): each for each in documents.values()}
        old = {(each.object, each.field, each.message) for each in self._left_out()}
        try:
            compiled = self._loader.load([*documents.values()])
        except ConfigError as error:
            response.violations.add(field=error.field, message=error.message, index=-1)
            return _Judged(response)
        faults = [
            each
            for each in compiled.dropped
            if each.object in positions or (each.cause is None and (each.object, each.field, each.message) not in old)
        ]
        response.violations.extend(_told(each, by_identity, positions) for each in faults)
        if not faults:
            touched = [each for each in compiled.warnings if each.object in positions]
            response.warnings.extend(_told(each, by_identity, positions) for each in touched)
        if response.violations:
            return _Judged(response)
        return _Judged(response, by_identity, positions, compiled.remotes)


def _key(key: Any) -> tuple[str, str, str, str]:
    return (key.api_version, key.kind, key.namespace, key.name)


def _told(violation: Violation, documents: _By, positions: Mapping[Identity, int]) -> config_pb2.Violation:
    """A violation in the API's terms; index -1 says that the object is not part of the change."""
    identity = violation.object
    key = config_pb2.Key(kind=identity.kind, namespace=identity.namespace, name=identity.name)
    if identity in documents:
        key.api_version, key.namespace = documents[identity].api_version, documents[identity].namespace
    index = positions.get(identity, -1)
    prefix = "" if index >= 0 else f"{identity}, which the change doesn't touch: "
    return config_pb2.Violation(key=key, field=violation.field, message=f"{prefix}{violation.message}", index=index)
