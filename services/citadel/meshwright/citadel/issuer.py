"""Whoever signs goes through here: request checked, profile applied, audit line written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import prometheus_client

from meshwright.citadel import audit
from meshwright.citadel.ca import jwt_svid, request
from meshwright.citadel.ca.authority import Authority, Issued
from meshwright.citadel.ca.profile import Profile, part_profile
from meshwright.citadel.jwt_custody import JwtCustody
from meshwright.citadel.registrations.model import Registration
from meshwright.core import clock as clocks
from meshwright.core import errors

ISSUED = prometheus_client.Counter("meshwright_citadel_certificates_issued", "Certificates signed", ["via"])
TOKENS = prometheus_client.Counter("meshwright_citadel_tokens_issued", "JWT-SVIDs signed")
REFUSED = prometheus_client.Counter("meshwright_citadel_requests_refused", "Signing requests refused", ["via"])


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """How long certificates live when nobody says otherwise, and at the longest."""

    part: timedelta
    workload: timedelta
    longest: timedelta
    token: timedelta


class Issuer:
    """One authority with its rules, and the keys of its tokens. `token_issuer` is their ``iss``, empty for none."""

    def __init__(
        self,
        authority: Authority,
        trust_domain: str,
        lifetimes: Lifetimes,
        clock: clocks.Clock,
        service_names: Callable[[str], tuple[str, ...]] = lambda part: (),
        *,
        token_keys: JwtCustody,
        token_issuer: str = "",
    ) -> None:
        self.authority, self.trust_domain, self.lifetimes = authority, trust_domain, lifetimes
        self.token_keys = token_keys
        self._clock, self._service_names, self._token_issuer = clock, service_names, token_issuer

    def part(self, part: str, node: str = "") -> Profile:
        """Return the profile of a part of the platform."""
        return part_profile(
            self.trust_domain,
            part,
            node=node,
            ttl=self.lifetimes.part,
            max_ttl=self.lifetimes.longest,
            service_names=self._service_names(part),
        )

    def workload(self, registration: Registration) -> Profile:
        """Return the profile of a registered workload."""
        return registration.profile(self.lifetimes.workload, self.lifetimes.longest)

    def issue(
        self, csr: bytes | str, profile: Profile, *, caller: str, via: str, asked_seconds: int = 0, **details: str
    ) -> Issued:
        """Check a request (PEM text or DER bytes) and sign it; refusals are audited and raised."""
        try:
            parsed = request.from_pem(csr) if isinstance(csr, str) else request.from_der(csr)
            signed = self.authority.issue(parsed, profile, asked_seconds=asked_seconds, now=self._clock.now())
        except errors.MeshwrightError as error:
            REFUSED.labels(via).inc()
            audit.refused(caller, f"certificate for {profile.spiffe_id}", error)
            raise
        ISSUED.labels(via).inc()
        audit.issued(caller, signed, via=via, **details)
        return signed

    def token(self, registration: Registration, audience: Sequence[str], *, caller: str) -> jwt_svid.Token:
        """Make a JWT-SVID of a registered workload; refusals are audited and raised."""
        now = self._clock.now()
        try:
            wanted = jwt_svid.check_audience(audience)
            key = self.token_keys.signing(now)
        except errors.MeshwrightError as error:
            REFUSED.labels("token").inc()
            audit.refused(caller, f"token for {registration.spiffe_id}", error)
            raise
        expires = now + self.lifetimes.token
        signed = jwt_svid.sign(key, registration.spiffe_id, wanted, now, expires, self._token_issuer)
        TOKENS.inc()
        audit.token_issued(caller, signed, wanted, registration.id)
        return signed

    def check(self, csr: bytes, profile: Profile, *, caller: str, asked_seconds: int = 0) -> None:
        """Raise what `issue` would, without signing."""
        try:
            profile.check(request.from_der(csr))
            profile.lifetime(asked_seconds)
        except errors.MeshwrightError as error:
            audit.refused(caller, f"certificate for {profile.spiffe_id}", error)
            raise
