"""A registration as a value, and what is refused in one.

A registration with a `k8s:` selector is for pods: citadel itself compares it with the pods that the API server knows
and makes a registration of each that fits (`pods`); agents never see it.

One decision to know: the platform's own namespace can't be registered, so that nobody who may register workloads can
make one that the platform's parts take for one of themselves.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from meshwright.citadel.ca.profile import Profile, is_dns_name
from meshwright.citadel.errors import RegistrationRefused
from meshwright.core import errors, identity

MAX_SELECTORS = 16
MAX_DNS_NAMES = 32
MIN_TTL = timedelta(seconds=2)  # below it renewal can't keep up with one slow answer

_ID = re.compile(r"[a-z0-9]([a-z0-9._-]{0,126}[a-z0-9])?")
_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_SELECTOR_VALUES = {
    "unix:uid": re.compile(r"0|[1-9][0-9]{0,9}"),
    "unix:gid": re.compile(r"0|[1-9][0-9]{0,9}"),
    "unix:path": re.compile(r"/[^\x00\n]{0,4095}"),
    "unix:pid": re.compile(r"[1-9][0-9]{0,9}@[1-9][0-9]{0,19}"),
    "k8s:ns": re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
    "k8s:sa": re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"),
    "k8s:pod-name": re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"),
    "k8s:pod-uid": re.compile(r"[0-9a-f-]{36}"),
    "k8s:pod-label": re.compile(r"[A-Za-z0-9./_-]{1,317}:[A-Za-z0-9._-]{0,63}"),
}
POD = "pod."  # begins the ids of registrations that citadel makes of pods: pod.<uid>, pod.<uid>.<registration>


@dataclass(frozen=True, slots=True, order=True)
class Selector:
    """One fact about a process: `type` such as ``unix:uid``, `value` as text."""

    type: str
    value: str

    def __str__(self) -> str:
        return f"{self.type}:{self.value}"


@dataclass(frozen=True, slots=True)
class Registration:
    """Processes on `node` with all of `selectors` are `spiffe_id`. `ttl` None is citadel's default."""

    id: str
    spiffe_id: str
    selectors: tuple[Selector, ...]
    ttl: timedelta | None = None
    dns_names: tuple[str, ...] = ()
    node: str = ""

    @property
    def is_of_pod(self) -> bool:
        """Whether citadel made it of a pod."""
        return self.id.startswith(POD)

    @property
    def is_for_pods(self) -> bool:
        """Whether it says which pods it is for, and is none of a process."""
        return not self.is_of_pod and any(selector.type.startswith("k8s:") for selector in self.selectors)

    @property
    def is_automatic(self) -> bool:
        """Whether it is what every pod of the mesh has: it gives way to what somebody has registered."""
        return self.is_of_pod and "." not in self.id.removeprefix(POD)

    def profile(self, default_ttl: timedelta, max_ttl: timedelta) -> Profile:
        """Return what the CA may certify for this registration."""
        return Profile(self.spiffe_id, self.dns_names, min(self.ttl or default_ttl, max_ttl), max_ttl)


def check(registration: Registration, trust_domain: str, max_ttl: timedelta) -> None:
    """Raise RegistrationRefused naming the first field that can't be accepted."""
    if not _ID.fullmatch(registration.id):
        raise _refused("id", registration.id, "1 to 128 of a-z 0-9 . _ -, beginning and ending with a letter or digit")
    check_node(registration.node)
    check_spiffe_id(registration.spiffe_id, trust_domain)
    if not 1 <= len(registration.selectors) <= MAX_SELECTORS:
        raise _refused("selectors", len(registration.selectors), f"give 1 to {MAX_SELECTORS}: none would fit everyone")
    for index, selector in enumerate(registration.selectors):
        pattern = _SELECTOR_VALUES.get(selector.type)
        if pattern is None:
            known = ", ".join(_SELECTOR_VALUES)
            raise _refused(f"selectors[{index}].type", selector.type, f"known types: {known}")
        if not pattern.fullmatch(selector.value):
            raise _refused(f"selectors[{index}].value", selector.value, f"not a value of {selector.type}")
    if registration.ttl is not None and not MIN_TTL <= registration.ttl <= max_ttl:
        raise _refused("ttl", registration.ttl, f"from {MIN_TTL} to {max_ttl}")
    if len(registration.dns_names) > MAX_DNS_NAMES:
        raise _refused("dns_names", len(registration.dns_names), f"at most {MAX_DNS_NAMES}")
    for index, name in enumerate(registration.dns_names):
        if not is_dns_name(name):
            raise _refused(f"dns_names[{index}]", name, "a plain lower-case DNS name, no wildcard")
        if name.endswith(f".{identity.SYSTEM_NAMESPACE}.svc"):
            raise _refused(f"dns_names[{index}]", name, "names of the platform's parts can't be registered")


def check_node(node: str) -> None:
    """Raise RegistrationRefused unless `node` is empty or a DNS-like name."""
    if node and not _NODE.fullmatch(node):
        raise _refused("node", node, "a lower-case DNS name, or empty")


def check_spiffe_id(spiffe_id: str, trust_domain: str) -> None:
    """Raise RegistrationRefused unless a workload of this trust domain may have the ID."""
    try:
        identity.check_spiffe_id(spiffe_id)
    except errors.ConfigError as error:
        raise RegistrationRefused(error.message, field="spiffe_id", remedy=error.remedy) from error
    if not spiffe_id.startswith(f"spiffe://{trust_domain}/"):
        raise _refused("spiffe_id", spiffe_id, f"this citadel's trust domain is {trust_domain}")
    if spiffe_id.startswith(f"spiffe://{trust_domain}/ns/{identity.SYSTEM_NAMESPACE}/"):
        raise _refused("spiffe_id", spiffe_id, "the platform's own namespace can't be registered")


def encode(registration: Registration) -> bytes:
    """Return the registration as it is stored."""
    return json.dumps(
        {
            "id": registration.id,
            "spiffeId": registration.spiffe_id,
            "selectors": [{"type": s.type, "value": s.value} for s in registration.selectors],
            "ttlSeconds": registration.ttl.total_seconds() if registration.ttl else None,
            "dnsNames": list(registration.dns_names),
            "node": registration.node,
        },
        separators=(",", ":"),
    ).encode()


def decode(value: bytes) -> Registration:
    """Return a stored registration; raise RegistrationRefused when the record is damaged."""
    try:
        record: dict[str, Any] = json.loads(value)
        ttl = record["ttlSeconds"]
        return Registration(
            id=record["id"],
            spiffe_id=record["spiffeId"],
            selectors=tuple(Selector(s["type"], s["value"]) for s in record["selectors"]),
            ttl=None if ttl is None else timedelta(seconds=ttl),
            dns_names=tuple(record["dnsNames"]),
            node=record["node"],
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RegistrationRefused(f"a stored registration is damaged: {error!r}", field="registration") from error


def _refused(field: str, value: object, remedy: str) -> RegistrationRefused:
    return RegistrationRefused(f"{str(value)[:256]!r} can't be accepted", field=field, remedy=remedy)
