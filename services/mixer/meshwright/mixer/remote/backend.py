"""An adapter's side of configuration (InfrastructureBackend): shown a handler, given sessions, relieved of them.

The original defined this service and never called it. An adapter that doesn't serve it has no objections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import grpc
from google.protobuf import any_pb2
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2

from meshwright.api.istio.mixer.adapter.model.v1beta1 import infrastructure_backend_pb2 as pb
from meshwright.api.istio.mixer.adapter.model.v1beta1 import infrastructure_backend_pb2_grpc
from meshwright.dataplane.grpc import NativeChannel

CALL_SECONDS = 3.0
MAX_SESSION_ID = 4096
MAX_REASON = 1000
MAX_FIELDS = 64
_PARAMETER = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]]{0,255}")

Metadata = tuple[tuple[str, str], ...]


class BackendError(Exception):
    """The adapter didn't answer; the message says why."""


class RefusedError(BackendError):
    """The adapter answered that it can't work with the handler; `fields` are the reasons by parameter, if it told."""

    def __init__(self, message: str, fields: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(message)
        self.fields = fields


class Backend:
    """One adapter over a channel."""

    def __init__(self, channel: NativeChannel) -> None:
        self._stub = infrastructure_backend_pb2_grpc.InfrastructureBackendStub(channel)

    async def validate(self, config: bytes, types: Mapping[str, bytes], metadata: Metadata = ()) -> None:
        """Show the handler's parameters; RefusedError with the adapter's reason."""
        request = pb.ValidateRequest(**_given(config, types))
        try:
            answer = await self._stub.Validate(request, timeout=CALL_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return
            raise BackendError(_reason(error)) from error
        _judge(answer)

    async def create(self, config: bytes, types: Mapping[str, bytes], metadata: Metadata = ()) -> str:
        """Begin a session; return its id."""
        request = pb.CreateSessionRequest(**_given(config, types))
        try:
            answer = await self._stub.CreateSession(request, timeout=CALL_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise BackendError(_reason(error)) from error
        _judge(answer)
        session: str = answer.session_id
        if not session or len(session) > MAX_SESSION_ID:
            raise RefusedError(f"it answers a session id of {len(session)} characters: 1 to {MAX_SESSION_ID} are taken")
        return session

    async def close(self, session: str, metadata: Metadata = ()) -> None:
        """End a session."""
        try:
            request = pb.CloseSessionRequest(session_id=session)
            answer = await self._stub.CloseSession(request, timeout=CALL_SECONDS, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise BackendError(_reason(error)) from error
        _judge(answer)


def _given(config: bytes, types: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "adapter_config": any_pb2.Any.FromString(config) if config else None,
        "inferred_types": {name: any_pb2.Any.FromString(blob) for name, blob in types.items() if blob},
    }


def _judge(answer: Any) -> None:
    if answer.status.code:
        reason = answer.status.message[:MAX_REASON] or "no reason given"
        raise RefusedError(f"it refuses: {reason} (code {answer.status.code})", _fields(answer.status))


def _fields(status: Any) -> Mapping[str, str]:
    """What a google.rpc.BadRequest among the details says of single parameters."""
    found: dict[str, str] = {}
    for detail in status.details:
        told = error_details_pb2.BadRequest()
        try:
            if not detail.Unpack(told):
                continue
        except DecodeError:
            continue
        for violation in told.field_violations[:MAX_FIELDS]:
            if _PARAMETER.fullmatch(violation.field):
                found[violation.field] = violation.description[:MAX_REASON] or "refused"
    return found


def _reason(error: grpc.aio.AioRpcError) -> str:
    return f"{error.code().name}: {error.details()}"
