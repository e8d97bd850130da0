"""meshwright.citadel.v1.Agents: a node's agent follows its registrations and has its workloads' keys certified.

One decision to know: the node is part of the agent's own SPIFFE ID, so an agent that was taken over can get identities
of its own node's workloads and of nobody else's.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from meshwright.api.citadel.v1 import agents_pb2, agents_pb2_grpc
from meshwright.citadel.ca.profile import split_part_id
from meshwright.citadel.issuer import Issuer
from meshwright.citadel.registrations.model import Registration
from meshwright.citadel.registrations.registry import Registry
from meshwright.citadel.rpc import messages
from meshwright.core import errors
from meshwright.core.grpc import peer_id

AGENT = "citadel-agent"

_BATCH = 500  # registrations in one message: some 200 KiB at the usual size


class AgentsServicer(agents_pb2_grpc.AgentsServicer):
    """Serves agents over mutual TLS."""

    def __init__(self, issuer: Issuer, registry: Registry) -> None:
        self._issuer, self._registry = issuer, registry

    async def WatchRegistrations(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Stream the registrations of the caller's node."""
        _, node = self._agent(context)
        await self._registry.whole()
        bundle: list[bytes] = [self._issuer.authority.certificate_der]
        sent_keys = b""
        async with contextlib.aclosing(self._registry.follow(node)) as updates:
            async for update in updates:
                token_keys = self._issuer.token_keys.bundle
                changed = [messages.from_registration(registration) for registration in update.changed]
                for begin in range(0, max(len(changed), 1), _BATCH):
                    yield agents_pb2.RegistrationsUpdate(
                        reset=update.reset and begin == 0,
                        complete=begin + _BATCH >= len(changed),
                        changed=changed[begin : begin + _BATCH],
                        removed=update.removed if begin == 0 else (),
                        bundle=bundle,
                        token_keys=b"" if token_keys == sent_keys else token_keys,
                    )
                    bundle, sent_keys = [], token_keys

    async def SignWorkload(self, request: Any, context: Any) -> Any:
        """Certify a key for one registration of the caller's node."""
        agent, registration = self._asked(request, context)
        issued = self._issuer.issue(
            request.csr, self._issuer.workload(registration), caller=agent, via="agent", registration=registration.id
        )
        return messages.certificate(issued, self._issuer.authority)

    async def SignToken(self, request: Any, context: Any) -> Any:
        """Make a JWT-SVID for one registration of the caller's node."""
        agent, registration = self._asked(request, context)
        token = self._issuer.token(registration, request.audience, caller=agent)
        answer = agents_pb2.SignedToken(token=token.text)
        answer.issued.FromDatetime(token.issued)
        answer.expires.FromDatetime(token.expires)
        return answer

    def _asked(self, request: Any, context: Any) -> tuple[str, Registration]:
        """Return the calling agent and the registration of its node that it asks about."""
        agent, node = self._agent(context)
        registration = self._registry.get(request.registration_id)
        # One answer: another node's ids aren't to be probed. What is for pods is nobody's before a pod fits it.
        if registration is None or registration.node != node or registration.is_for_pods:
            raise errors.NotFound(f"no registration {request.registration_id[:128]!r} on this agent's node")
        self._registry.check_fresh(registration)
        return agent, registration

    def _agent(self, context: Any) -> tuple[str, str]:
        """Return the calling agent's ID and its node; raise Forbidden for anybody else."""
        caller = peer_id(context)
        part, node = split_part_id(caller or "", self._issuer.trust_domain) or ("", "")
        if caller is None or part != AGENT:
            raise errors.Forbidden(f"{caller or 'a caller without a certificate'} isn't a node's agent")
        return caller, node
