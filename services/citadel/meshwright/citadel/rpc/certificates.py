"""istio.v1.auth.IstioCertificateService: an authenticated caller renews its own identity, never another's.

One decision to know: a workload may renew only while it is registered, so that removing a registration ends an identity
at the end of its last certificate.
"""

from __future__ import annotations

from typing import Any

from meshwright.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from meshwright.citadel.ca.profile import Profile, split_part_id
from meshwright.citadel.issuer import Issuer
from meshwright.citadel.registrations.registry import Registry
from meshwright.core import errors
from meshwright.core.grpc import peer_id


class CertificatesServicer(ca_pb2_grpc.IstioCertificateServiceServicer):
    """Signs for the identity that mutual TLS proved."""

    def __init__(self, issuer: Issuer, registry: Registry) -> None:
        self._issuer, self._registry = issuer, registry

    async def CreateCertificate(self, request: Any, context: Any) -> Any:
        """Return leaf and root, each a PEM element of its own, root last."""
        caller = peer_id(context)
        if caller is None:
            raise errors.Unauthorized("no client certificate (call with mutual TLS)")
        issued = self._issuer.issue(
            request.csr, self._profile(caller), caller=caller, via="renewal", asked_seconds=request.validity_duration
        )
        chain = [issued.certificate_pem.decode(), self._issuer.authority.certificate_pem.decode()]
        return ca_pb2.IstioCertificateResponse(cert_chain=chain)

    def _profile(self, caller: str) -> Profile:
        part = split_part_id(caller, self._issuer.trust_domain)
        if part is not None:
            return self._issuer.part(*part)
        registration = self._registry.of_identity(caller)
        if registration is None:
            raise errors.Forbidden(f"{caller} isn't registered (register the workload, or ask the node's agent)")
        self._registry.check_fresh(registration)
        return self._issuer.workload(registration)
