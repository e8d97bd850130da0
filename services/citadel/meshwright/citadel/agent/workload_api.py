"""The SPIFFE Workload API on the agent's Unix socket.

One decision to know: each message of a stream is the full state, as the specification asks. A caller that no
registration fits hears PERMISSION_DENIED at once and asks again, as SPIRE's clients expect. Who only verifies needs no
identity of its own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import structlog

from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc
from meshwright.citadel.agent.session import Session, attested
from meshwright.citadel.agent.tokens import Tokens
from meshwright.citadel.agent.workloads import Workloads
from meshwright.citadel.ca.jwt_svid import check_audience
from meshwright.core import errors, identity

HEADER = "workload.spiffe.io"

_log = structlog.get_logger(__name__)


class WorkloadApiServicer(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Serves the callers that `attested` can name."""

    def __init__(self, workloads: Workloads, tokens: Tokens) -> None:
        self._workloads, self._tokens = workloads, tokens

    async def FetchX509SVID(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Stream the caller's certificates: at once, and after each rotation."""
        _check_header(context)
        async with attested(context, self._workloads) as session:
            async for _ in _changes(session):
                yield workload_pb2.X509SVIDResponse(
                    svids=[
                        workload_pb2.X509SVID(
                            spiffe_id=svid.spiffe_id,
                            x509_svid=b"".join(svid.chain),
                            x509_svid_key=svid.key,
                            bundle=b"".join(session.bundle),
                        )
                        for svid in session.svids()
                    ]
                )

    async def FetchX509Bundles(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Stream the trust bundle of this mesh: at once, and when it changes."""
        _check_header(context)
        trust_domain = f"spiffe://{self._workloads.trust_domain}"
        sent: tuple[bytes, ...] = ()
        async with attested(context, self._workloads) as session:
            async for _ in _changes(session):
                if session.bundle != sent:
                    sent = session.bundle
                    yield workload_pb2.X509BundlesResponse(bundles={trust_domain: b"".join(sent)})

    async def FetchJWTSVID(self, request: Any, context: Any) -> Any:
        """Return a token of each of the caller's identities, or of the one that it names."""
        _check_header(context)
        audience = check_audience(request.audience)
        if request.spiffe_id:
            identity.check_spiffe_id(request.spiffe_id)
        async with attested(context, self._workloads) as session:
            found = {each.spiffe_id: each for each in reversed(session.registrations())}
            names = [request.spiffe_id] if request.spiffe_id else list(reversed(found))
            if not names or names[0] not in found:
                raise _not_issued(session)
            made = [await self._tokens.token(found[name], audience) for name in names]
        svids = [workload_pb2.JWTSVID(spiffe_id=token.spiffe_id, svid=token.text) for token in made]
        return workload_pb2.JWTSVIDResponse(svids=svids)

    async def FetchJWTBundles(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Stream the keys with which this mesh's tokens are verified: at once, and when they change."""
        _check_header(context)
        trust_domain = f"spiffe://{self._workloads.trust_domain}"
        sent = b""
        async with attested(context, self._workloads) as session:
            while not session.ended:
                if not session.registrations():
                    raise _not_issued(session)
                if self._workloads.token_keys != sent:
                    sent = self._workloads.token_keys
                    yield workload_pb2.JWTBundlesResponse(bundles={trust_domain: sent})
                await session.changed()

    async def ValidateJWTSVID(self, request: Any, context: Any) -> Any:
        """Return the claims of a token that is valid for the audience; INVALID_ARGUMENT for any other."""
        _check_header(context)
        (audience,) = check_audience([request.audience])
        claims = self._tokens.claims(request.svid, audience)
        answer = workload_pb2.ValidateJWTSVIDResponse(spiffe_id=claims["sub"])
        answer.claims.update(claims)
        return answer

    async def FetchWITSVID(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Answer UNIMPLEMENTED."""
        await _unimplemented(context)
        yield

    async def FetchWITBundles(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Answer UNIMPLEMENTED."""
        await _unimplemented(context)
        yield


async def _changes(session: Session) -> AsyncIterator[None]:
    """Yield now and whenever the caller's certificates or the bundle are others than before, as long as it has any."""
    sent: object = None
    while not session.ended:
        svids = session.svids()
        if not svids and not session.registrations():
            raise _not_issued(session)
        state = (svids, session.bundle)
        if svids and state != sent:
            sent = state
            yield
        await session.changed()


def _not_issued(session: Session) -> errors.Forbidden:
    """Return the refusal, after saying to who runs this agent what was known of the caller."""
    _log.info("no_identity_issued", pid=session.peer.pid, selectors=sorted(map(str, session.selectors)))
    return errors.Forbidden("no identity issued")


def _check_header(context: Any) -> None:
    """SPIFFE Workload Endpoint, section 4.3: keeps forged requests of browsers and proxies out."""
    values = [value for key, value in context.invocation_metadata() if key.lower() == HEADER]
    if values != ["true"]:
        raise errors.ConfigError("security header missing from request", remedy=f"send the metadata {HEADER}: true")


async def _unimplemented(context: Any) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this agent issues no WIT-SVIDs")
    raise errors.Unavailable("unreachable: abort raises")
