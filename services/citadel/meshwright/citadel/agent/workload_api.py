"""The SPIFFE Workload API (X.509 part) on the agent's Unix socket.

One decision to know: each message of a stream is the full state, as the specification asks. A caller that no
registration fits hears PERMISSION_DENIED at once and asks again, as SPIRE's clients expect; JWT-SVIDs aren't served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, NoReturn

import grpc
import structlog

from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc
from meshwright.citadel.agent.session import Session, attested
from meshwright.citadel.agent.workloads import Workloads
from meshwright.core import errors

HEADER = "workload.spiffe.io"

_log = structlog.get_logger(__name__)


class WorkloadApiServicer(workload_pb2_grpc.SpiffeWorkloadAPIServicer):
    """Serves the callers that `attested` can name."""

    def __init__(self, workloads: Workloads) -> None:
        self._workloads = workloads

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
        """Answer UNIMPLEMENTED, which the specification allows for a profile that isn't served."""
        await _unimplemented(context)

    async def FetchJWTBundles(self, request: Any, context: Any) -> AsyncIterator[Any]:
        """Answer UNIMPLEMENTED."""
        await _unimplemented(context)
        yield

    async def ValidateJWTSVID(self, request: Any, context: Any) -> Any:
        """Answer UNIMPLEMENTED."""
        await _unimplemented(context)

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
        if not svids and not session.awaited():
            _log.info("no_identity_issued", pid=session.peer.pid, selectors=sorted(map(str, session.selectors)))
            raise errors.Forbidden("no identity issued")
        state = (svids, session.bundle)
        if svids and state != sent:
            sent = state
            yield
        await session.changed()


def _check_header(context: Any) -> None:
    """SPIFFE Workload Endpoint, section 4.3: keeps forged requests of browsers and proxies out."""
    values = [value for key, value in context.invocation_metadata() if key.lower() == HEADER]
    if values != ["true"]:
        raise errors.ConfigError("security header missing from request", remedy=f"send the metadata {HEADER}: true")


async def _unimplemented(context: Any) -> NoReturn:
    await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this agent issues X.509 identities only")
    raise errors.Unavailable("unreachable: abort raises")
