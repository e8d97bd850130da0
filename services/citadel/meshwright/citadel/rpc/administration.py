"""meshwright.citadel.v1.Admin on the admin socket: tokens, first certificates and registrations.

One decision to know: the caller is a user of this machine, told by the kernel; only citadel's own user and root may
call. That makes the socket as strong as the files of that user, which hold the seal key anyway.
"""

from __future__ import annotations

import dataclasses
import os
import re
import uuid
from typing import Any

from meshwright.api.citadel.v1 import admin_pb2, admin_pb2_grpc
from meshwright.citadel import audit, tokens
from meshwright.citadel.issuer import Issuer
from meshwright.citadel.registrations import model
from meshwright.citadel.registrations.registry import Registry
from meshwright.citadel.rpc import messages
from meshwright.core import errors

_PAGE, _LARGEST_PAGE = 500, 1000
_PART = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class AdministrationServicer(admin_pb2_grpc.AdminServicer):
    """Serves a Unix socket only: without the kernel's word on the caller nothing is answered."""

    def __init__(self, issuer: Issuer, one_time: tokens.Tokens, registry: Registry) -> None:
        self._issuer, self._tokens, self._registry = issuer, one_time, registry

    async def MintToken(self, request: Any, context: Any) -> Any:
        """Make a token for a part; not for citadel, which signs its own identity."""
        caller = _caller(context)
        if not _PART.fullmatch(request.part) or request.part == "citadel":
            raise errors.ConfigError(
                f"{request.part[:100]!r} isn't a part that needs a token", field="part", remedy="for example manager"
            )
        model.check_node(request.node)
        ttl = messages.lifetime(request.ttl) if request.HasField("ttl") else tokens.DEFAULT_TTL
        minted = await self._tokens.mint(request.part, request.node, ttl)
        audit.token_minted(caller, minted.grant)
        answer = admin_pb2.MintTokenResponse(
            token=minted.token, spiffe_id=self._issuer.part(request.part, request.node).spiffe_id
        )
        answer.expires.FromDatetime(minted.grant.expires)
        return answer

    async def Bootstrap(self, request: Any, context: Any) -> Any:
        """Exchange a token for a certificate. The request is judged first, so that a bad one doesn't cost the token."""
        caller = _caller(context)
        try:
            grant = await self._tokens.look(request.token)
            profile = self._issuer.part(grant.part, grant.node)
            self._issuer.check(request.csr, profile, caller=caller, asked_seconds=request.validity_seconds)
            await self._tokens.use(request.token)
        except errors.Unauthorized as error:
            audit.refused(caller, "first certificate", error)
            raise
        issued = self._issuer.issue(
            request.csr, profile, caller=caller, via="token", asked_seconds=request.validity_seconds
        )
        return messages.certificate(issued, self._issuer.authority)

    async def Register(self, request: Any, context: Any) -> Any:
        """Make or replace a registration."""
        caller = _caller(context)
        registration = messages.to_registration(request.registration)
        if not registration.id:
            registration = dataclasses.replace(registration, id=uuid.uuid4().hex)
        model.check(registration, self._issuer.trust_domain, self._issuer.lifetimes.longest)
        await self._registry.register(registration)
        audit.registered(caller, registration)
        return messages.from_registration(registration)

    async def Unregister(self, request: Any, context: Any) -> Any:
        """Remove a registration; its workload keeps its certificate until that ends."""
        caller = _caller(context)
        existed = await self._registry.unregister(request.id)
        audit.unregistered(caller, request.id, existed)
        return admin_pb2.UnregisterResponse(existed=existed)

    async def ListRegistrations(self, request: Any, context: Any) -> Any:
        """List in the order of ids; the page token is the last id of the page before."""
        _caller(context)
        if not 0 <= request.page_size <= _LARGEST_PAGE:
            raise errors.ConfigError(f"{request.page_size}", field="page_size", remedy=f"0 to {_LARGEST_PAGE}")
        size = request.page_size or _PAGE
        page = self._registry.page(request.page_token, size)
        return admin_pb2.ListRegistrationsResponse(
            registrations=map(messages.from_registration, page),
            next_page_token=page[-1].id if len(page) == size else "",
        )


def _caller(context: Any) -> str:
    """Return the caller for the audit trail; raise Forbidden for another user."""
    values = context.auth_context().get("unix_uid")
    if not values:
        raise errors.Unauthorized("the caller's user isn't known (call over the admin socket)")
    uid = int(values[0])
    if uid not in (0, os.geteuid()):
        audit.refused(f"unix:uid={uid}", "the admin socket", "another user")
        raise errors.Forbidden(f"user {uid} may not administer citadel (call as user {os.geteuid()} or root)")
    return f"unix:uid={uid}"
