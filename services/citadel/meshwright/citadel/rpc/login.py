"""istio.v1.auth.IstioCertificateService on the login port: a part's certificate for the token of its service account.

One decision to know: who calls is who the token says, in the `authorization` metadata; the client certificate of the
port, which all parts share, only keeps strangers from having tokens reviewed (ADR 29).
"""

from __future__ import annotations

from typing import Any

from meshwright.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from meshwright.citadel import audit
from meshwright.citadel.ca import request as requests
from meshwright.citadel.issuer import REFUSED, Issuer
from meshwright.citadel.kubernetes.accounts import Accounts
from meshwright.citadel.kubernetes.parts import PartsTable
from meshwright.core import errors

_SCHEME = "bearer "
_VIA = "kubernetes"


class LoginServicer(ca_pb2_grpc.IstioCertificateServiceServicer):
    """Signs for the account that the API server names."""

    def __init__(self, issuer: Issuer, accounts: Accounts, parts: PartsTable) -> None:
        self._issuer, self._accounts, self._parts = issuer, accounts, parts

    async def CreateCertificate(self, request: Any, context: Any) -> Any:
        """Return leaf and root, each a PEM element of its own, root last."""
        asked = requests.from_pem(request.csr)  # first, so that a bad request doesn't cost a review
        caller = "a service account's token"
        try:
            account = await self._accounts.of_token(_token(context))
            caller = str(account)
            part, node = self._parts.choose(account, asked.uri, self._issuer.trust_domain)
        except (errors.Unauthorized, errors.Forbidden) as error:
            REFUSED.labels(_VIA).inc()
            audit.refused(caller, asked.uri or "a part's certificate", error)
            raise
        issued = self._issuer.issue(
            request.csr,
            self._issuer.part(part, node),
            caller=caller,
            via=_VIA,
            asked_seconds=request.validity_duration,
        )
        chain = [issued.certificate_pem.decode(), self._issuer.authority.certificate_pem.decode()]
        return ca_pb2.IstioCertificateResponse(cert_chain=chain)


def _token(context: Any) -> str:
    values = [value for key, value in context.invocation_metadata() if key.lower() == "authorization"]
    if len(values) != 1 or not str(values[0]).lower().startswith(_SCHEME):
        raise errors.Unauthorized("no service account's token (send metadata authorization: Bearer <token>)")
    return str(values[0])[len(_SCHEME) :]
