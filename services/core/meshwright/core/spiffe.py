"""How the platform's identities are named; here alone, because programs that start in every pod need the names only."""

from __future__ import annotations

SYSTEM_NAMESPACE = "meshwright-system"


def part_id(trust_domain: str, part: str) -> str:
    """Return the SPIFFE ID of one of the platform's own parts."""
    return workload_id(trust_domain, SYSTEM_NAMESPACE, part)


def workload_id(trust_domain: str, namespace: str, service_account: str) -> str:
    """Return the SPIFFE ID of a workload, in Istio's form."""
    return f"spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"


def part_dns(part: str) -> str:
    """Return the DNS name that only this part's certificate carries, for clients that can't verify URI names."""
    return f"{part}.{SYSTEM_NAMESPACE}.svc"
