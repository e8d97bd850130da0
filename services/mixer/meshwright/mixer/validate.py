"""meshwright.config.v1.Validation: the manager asks it before it commits rules, handlers or instances.

One decision to know: a change is judged by compiling everything as it would be afterwards, on the path that a snapshot
takes when it is served, the engine's own check included; so what is accepted here is also served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from meshwright.api.config.v1 import config_pb2, config_pb2_grpc
from meshwright.core.config import objects
from meshwright.core.errors import ConfigError
from meshwright.mixer.adapter.v1 import Adapter
from meshwright.mixer.config.compiler import Compiled, compile_policy
from meshwright.mixer.config.documents import identity_of
from meshwright.mixer.config.violation import Identity, PolicyError, Violation

Load = Callable[[bytes], None]
"""Lets an engine read a policy; raises ValueError with the reason when it refuses."""


def compile_checked(
    documents: Sequence[objects.Object],
    adapters: Mapping[str, Adapter],
    load: Load,
    *,
    revision: str = "",
    export: bool = False,
) -> Compiled:
    """Compile and let `load` read the result; PolicyError in either's words when it can't be used."""
    compiled = compile_policy(documents, adapters, revision=revision, export=export)
    try:
        load(compiled.policy)
    except ValueError as error:
        explained = compiled.places.explain(str(error))
        if explained is None:
            raise ConfigError(f"the engine refuses the policy: {error}") from error
        raise explained from error
    return compiled


class ValidationServicer(config_pb2_grpc.ValidationServicer):
    """Judges changes. `load` reads into an engine that serves nobody."""

    def __init__(self, adapters: Mapping[str, Adapter], load: Load, *, export: bool) -> None:
        self._adapters, self._load, self._export = adapters, load, export

    async def Validate(self, request: Any, context: Any) -> Any:
        """Answer every violation; warnings only for objects that the change touches."""
        response = config_pb2.ValidateResponse()
        deleted = {_key(key) for key in request.deleted}
        documents: dict[tuple[str, ...], objects.Object] = {}
        positions: dict[Identity, int] = {}
        for index, given in [*enumerate(request.changed), *((-1, each) for each in request.context)]:
            key = _key(given.key)
            if index < 0 and (key in deleted or key in documents):
                continue
            try:
                document = objects.from_json(given.json, "the change" if index >= 0 else "the store")
            except ConfigError as error:
                response.violations.add(key=given.key, field=error.field, message=error.message, index=index)
                continue
            documents[key] = document
            if index >= 0:
                positions[identity_of(document)] = index
        try:
            compiled = compile_checked([*documents.values()], self._adapters, self._load, export=self._export)
        except PolicyError as error:
            response.violations.extend(_told(each, documents.values(), positions) for each in error.violations)
        except ConfigError as error:
            response.violations.add(field=error.field, message=error.message, index=-1)
        else:
            touched = [each for each in compiled.warnings if each.object in positions]
            response.warnings.extend(_told(each, documents.values(), positions) for each in touched)
        return response


def _key(key: Any) -> tuple[str, ...]:
    return (key.api_version, key.kind, key.namespace, key.name)


def _told(violation: Violation, documents: Any, positions: Mapping[Identity, int]) -> config_pb2.Violation:
    """A violation in the API's terms; index -1 says that the object is not part of the change."""
    found = next((each for each in documents if identity_of(each) == violation.object), None)
    identity = violation.object
    key = config_pb2.Key(kind=identity.kind, namespace=identity.namespace, name=identity.name)
    if found is not None:
        key.api_version, key.namespace = found.api_version, found.namespace
    index = positions.get(identity, -1)
    prefix = "" if index >= 0 else f"{identity}, which the change doesn't touch: "
    return config_pb2.Violation(key=key, field=violation.field, message=f"{prefix}{violation.message}", index=index)
