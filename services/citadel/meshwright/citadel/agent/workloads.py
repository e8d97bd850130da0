"""The identities of this node's workloads, in memory only: registrations, keys, certificates and the trust bundle.

One decision to know: readers get whole values (`Svid`, bundle) and are told which registration changed; they
compare with what they sent last. A certificate that has ended isn't handed out any more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from cryptography.hazmat.primitives import serialization

from meshwright.citadel.ca.authority import pem
from meshwright.citadel.registrations.model import Registration, Selector
from meshwright.core import clock as clocks

Watcher = Callable[[str], None]  # given the id of the registration that changed, "" for the trust bundle


@dataclass(frozen=True, slots=True)
class Svid:
    """One certificate with its key. `chain` is DER, leaf first, without the root; `key` is PKCS #8 DER."""

    registration_id: str
    spiffe_id: str
    chain: tuple[bytes, ...]
    key: bytes
    not_after: datetime

    def __repr__(self) -> str:
        """Name the identity without its key: representations end in logs."""
        return f"Svid({self.spiffe_id}, not_after={self.not_after.isoformat()})"

    def chain_pem(self) -> bytes:
        """Return the chain in PEM."""
        return b"".join(map(pem, self.chain))

    def key_pem(self) -> bytes:
        """Return the key in PEM."""
        key = serialization.load_der_private_key(self.key, password=None)
        return key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )


def _rank(known: Registration) -> tuple[bool, int, str, str]:
    return known.is_automatic, -len(known.selectors), known.spiffe_id, known.id


class Workloads:
    """What the node's agent knows. Belongs to one event loop."""

    def __init__(self, trust_domain: str, clock: clocks.Clock) -> None:
        self.trust_domain = trust_domain
        self.bundle: tuple[bytes, ...] = ()  # DER of the roots
        self.token_keys = b""  # the trust domain's keys of JWT-SVIDs, a JWK set
        self.registrations: dict[str, Registration] = {}
        self._svids: dict[str, Svid] = {}
        self._clock = clock
        self._watchers: list[Watcher] = []

    def watch(self, callback: Watcher) -> Callable[[], None]:
        """Call `callback` after each change with the registration's id, or ""; return the function that ends it."""
        self._watchers.append(callback)
        return lambda: self._watchers.remove(callback)

    def matching(self, selectors: frozenset[Selector]) -> list[Registration]:
        """Return the registrations that fit a process: what was registered before what every pod has, and the most
        specific first; the first is its default identity.
        """
        fitting = [known for known in self.registrations.values() if selectors.issuperset(known.selectors)]
        return sorted(fitting, key=_rank)

    def svids(self, selectors: frozenset[Selector]) -> list[Svid]:
        """Return the certificates of a process that are ready and haven't ended, in the order of `matching`."""
        now = self._clock.now()
        ready = (self._svids.get(known.id) for known in self.matching(selectors))
        return [svid for svid in ready if svid is not None and now < svid.not_after]

    def svid(self, registration_id: str) -> Svid | None:
        """Return the certificate of a registration, ended or not."""
        return self._svids.get(registration_id)

    def put_svid(self, svid: Svid, bundle: Iterable[bytes]) -> None:
        """Rotate to a new certificate; ignored when its registration went away meanwhile."""
        if svid.registration_id in self.registrations:
            self._svids[svid.registration_id] = svid
            self.bundle = tuple(bundle) or self.bundle
            self._notify(svid.registration_id)

    def put_bundle(self, bundle: Iterable[bytes]) -> None:
        """Take a new trust bundle."""
        fresh = tuple(bundle)
        if fresh and fresh != self.bundle:
            self.bundle = fresh
            self._notify("")

    def put_token_keys(self, keys: bytes) -> None:
        """Take the keys with which JWT-SVIDs are verified."""
        if keys and keys != self.token_keys:
            self.token_keys = keys
            self._notify("")

    def put(self, registration: Registration) -> None:
        """Take a registration; a certificate that says something else than it is dropped."""
        known = self.registrations.get(registration.id)
        if known == registration:
            return
        self.registrations[registration.id] = registration
        if known and (known.spiffe_id, known.dns_names) != (registration.spiffe_id, registration.dns_names):
            self._svids.pop(registration.id, None)
        self._notify(registration.id)

    def remove(self, registration_id: str) -> None:
        """Forget a registration with its key."""
        if self.registrations.pop(registration_id, None) is not None:
            self._svids.pop(registration_id, None)
            self._notify(registration_id)

    def _notify(self, registration_id: str) -> None:
        for callback in list(self._watchers):
            callback(registration_id)
