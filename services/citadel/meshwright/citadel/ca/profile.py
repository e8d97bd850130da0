"""What one caller may be certified as. Whoever authenticated the caller makes the profile; the CA only compares."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from meshwright.citadel.ca.request import SigningRequest
from meshwright.citadel.errors import RequestRefused
from meshwright.core import identity

DEFAULT_TTL = timedelta(hours=1)
MAX_TTL = timedelta(days=1)

_DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Profile:
    """The one SPIFFE ID and the DNS names of a caller, and how long its certificates live.

    Every certificate carries all of `dns_names`: a request may ask for some of them, never for another.
    """

    spiffe_id: str
    dns_names: tuple[str, ...] = ()
    ttl: timedelta = DEFAULT_TTL
    max_ttl: timedelta = MAX_TTL

    def check(self, request: SigningRequest) -> None:
        """Raise RequestRefused unless every name that the request asks for is this caller's."""
        if request.uri is not None and request.uri != self.spiffe_id:
            raise RequestRefused(
                f"asks to be {request.uri[:256]!r}", field="csr.names", remedy=f"the caller is {self.spiffe_id}"
            )
        for name in request.dns_names:
            if name not in self.dns_names:
                raise RequestRefused(
                    f"asks for DNS name {name[:256]!r}",
                    field="csr.names",
                    remedy=f"{self.spiffe_id} is registered for {', '.join(self.dns_names) or 'no DNS name'}",
                )

    def lifetime(self, asked_seconds: int) -> timedelta:
        """Return the lifetime for a request of `asked_seconds`; 0 means the default, above the maximum is an error.

        An error rather than a silent cut: a caller that plans its renewal by what it asked for would come too late.
        """
        if asked_seconds == 0:
            return min(self.ttl, self.max_ttl)
        if not 0 < asked_seconds <= self.max_ttl.total_seconds():
            raise RequestRefused(
                f"{asked_seconds} seconds",
                field="validity_duration",
                remedy=f"1 to {int(self.max_ttl.total_seconds())}, or 0 for the default",
            )
        return timedelta(seconds=asked_seconds)


def part_profile(
    trust_domain: str,
    part: str,
    *,
    node: str = "",
    ttl: timedelta,
    max_ttl: timedelta,
    service_names: tuple[str, ...] = (),
) -> Profile:
    """Return the profile of one of the platform's own parts: its ID and, as no workload may have, its DNS names.

    `service_names` are those of its Service in Kubernetes. With `node` the identity is that of the part on one node (an
    agent may sign only for its own node's workloads).
    """
    spiffe_id = identity.part_id(trust_domain, part) + (f"/node/{node}" if node else "")
    dns_names = tuple(dict.fromkeys((identity.part_dns(part), *service_names)))
    return Profile(identity.check_spiffe_id(spiffe_id), dns_names, ttl, max_ttl)


def split_part_id(spiffe_id: str, trust_domain: str) -> tuple[str, str] | None:
    """Return (part, node) of a platform part's SPIFFE ID, or None for anybody else's; node is "" when it names none."""
    prefix = identity.part_id(trust_domain, "")
    if not spiffe_id.startswith(prefix):
        return None
    match spiffe_id.removeprefix(prefix).split("/"):
        case [part]:
            return part, ""
        case [part, "node", node]:
            return part, node
    return None


def is_dns_name(name: str) -> bool:
    """Return whether `name` is a plain lower-case DNS name: no wildcard, no trailing dot, at most 253 characters."""
    return len(name) <= 253 and all(_DNS_LABEL.fullmatch(label) for label in name.split("."))
