"""meshwright.config.v1.Validation: the manager asks it before it commits documents of mixer's kinds.

One decision to know: a change is judged by compiling everything as it would be afterwards, on the path that a snapshot
takes when it is served, the engine's own check included. What would be left out then and isn't already is refused; old
faults of documents that the change doesn't touch don't stand in its way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core.config import objects
from meshwright.core.errors import ConfigError
from meshwright.mixer.config.documents import identity_of
from meshwright.mixer.config.loader import PolicyLoader
from meshwright.mixer.config.violation import Identity, Violation

_By = Mapping[Identity, objects.Object]


class ValidationServicer(config_pb2_grpc.ValidationServicer):
    """Judges changes, one at a time. The loader's engine serves nobody; `left_out` is what is wrong already."""

    def __init__(self, loader: PolicyLoader, left_out: Callable[[], Sequence[Violation]]) -> None:
        self._loader, self._left_out = loader, left_out
        self._lock = asyncio.Lock()
        self._parsed: dict[str, objects.Object] = {}  # of the last request: most of the next one is the same

    async def Validate(self, request: Any, context: Any) -> Any:
        """Answer every violation; warnings only for objects that the change touches."""
        async with self._lock:
            return await asyncio.to_thread(self._judge, request)

    def _judge(self, request: Any) -> Any:
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
            return response
        faults = [
            each
            for each in compiled.dropped
            if each.object in positions or (each.cause is None and (each.object, each.field, each.message) not in old)
        ]
        response.violations.extend(_told(each, by_identity, positions) for each in faults)
        if not faults:
            touched = [each for each in compiled.warnings if each.object in positions]
            response.warnings.extend(_told(each, by_identity, positions) for each in touched)
        return response


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
