"""The agent's line to citadel: the stream of its node's registrations, and signatures.

One decision to know: what was heard last holds until something newer is heard. A broken stream is opened again with
capped back-off and begins with everything there is, so a missed removal is made good by its absence.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from datetime import UTC

import grpc
import structlog

from meshwright.api.citadel.v1 import agents_pb2, agents_pb2_grpc
from meshwright.citadel.agent.workloads import Workloads
from meshwright.citadel.ca.jwt_svid import Token
from meshwright.citadel.registrations.model import Registration
from meshwright.citadel.rpc import messages
from meshwright.core import clock as clocks
from meshwright.core import errors, renewal
from meshwright.core.grpc import Channel
from meshwright.core.health import Health

MAX_REGISTRATIONS = 10_000
PART = "citadel"  # in health

_SIGN_SECONDS = 5.0

_log = structlog.get_logger(__name__)


class Upstream:
    """Follows citadel into `workloads` and signs for them."""

    def __init__(self, channel: Channel, workloads: Workloads, health: Health, clock: clocks.Clock) -> None:
        self._stub = agents_pb2_grpc.AgentsStub(channel)
        self._workloads, self._health, self._clock = workloads, health, clock

    async def run(self) -> None:
        """Follow until cancelled."""
        backoff = renewal.Backoff(cap=5.0)
        while True:
            try:
                async for _ in self._follow():
                    backoff.reset()
                    self._health.set(PART, True)
                reason = "citadel ended the stream"
            except grpc.RpcError as error:
                reason = str(error.details() or error.code().name)
            except errors.MeshwrightError as error:
                reason = str(error)
            self._health.outage(PART, reason)
            await self._clock.sleep(backoff.delay())

    async def sign(self, registration_id: str, csr: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Have a key of this node's workload certified; raise Unavailable when citadel doesn't."""
        message = agents_pb2.SignWorkloadRequest(registration_id=registration_id, csr=csr)
        try:
            answer = await self._stub.SignWorkload(message, timeout=_SIGN_SECONDS)
        except grpc.RpcError as error:
            raise errors.Unavailable(f"citadel: {error.details() or error.code().name}") from error
        return tuple(answer.chain), tuple(answer.bundle)

    async def sign_token(self, registration: Registration, audience: Sequence[str]) -> Token:
        """Have a JWT-SVID made for a workload of this node; raise what citadel says of the request, or Unavailable."""
        message = agents_pb2.SignTokenRequest(registration_id=registration.id, audience=audience)
        try:
            answer = await self._stub.SignToken(message, timeout=_SIGN_SECONDS)
        except grpc.RpcError as error:
            reason = f"citadel: {error.details() or error.code().name}"
            if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
                raise errors.ConfigError(reason, field="audience") from error
            raise errors.Unavailable(reason) from error
        issued, expires = (moment.ToDatetime(UTC) for moment in (answer.issued, answer.expires))
        return Token(answer.token, registration.spiffe_id, issued, expires)

    async def _follow(self) -> AsyncIterator[None]:
        """Apply the stream's updates; yield after each whole one."""
        listed: set[str] | None = None  # while a whole set is being received: what was in it
        call = self._stub.WatchRegistrations(agents_pb2.WatchRegistrationsRequest())
        with contextlib.ExitStack() as ended:
            ended.callback(call.cancel)
            async for update in call:
                if update.reset:
                    listed = set()
                self._workloads.put_bundle(update.bundle)
                self._workloads.put_token_keys(update.token_keys)
                for message in update.changed:
                    if listed is not None:
                        listed.add(message.id)
                    known = self._workloads.registrations
                    if message.id not in known and len(known) >= MAX_REGISTRATIONS:
                        raise errors.Exhausted(f"more than {MAX_REGISTRATIONS} registrations for one node")
                    self._workloads.put(messages.to_registration(message))
                for registration_id in update.removed:
                    self._workloads.remove(registration_id)
                if update.complete:
                    if listed is not None:
                        for gone in self._workloads.registrations.keys() - listed:
                            self._workloads.remove(gone)
                    listed = None
                    yield
