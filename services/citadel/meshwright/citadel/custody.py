"""The mesh CA in the store: made once, by compare-and-set, so that replicas that start together make one root.

One decision to know: the record is bound to its trust domain and to its certificate by the seal's associated data; a
record that can't be opened is an error and never a reason to make a new root, which would cut the mesh in two.
"""

from __future__ import annotations

import hashlib
import json

from meshwright.citadel.ca import authority, seal
from meshwright.citadel.ca.authority import Authority
from meshwright.citadel.errors import NoAuthority
from meshwright.core import clock as clocks
from meshwright.core.errors import Conflict
from meshwright.core.store import Store

KEY = "/meshwright/citadel/ca/root"

_VERSION = 1


async def open_or_create(store: Store, seal_key: seal.SealKey, trust_domain: str, clock: clocks.Clock) -> Authority:
    """Return the mesh CA of this store, making it when there is none; raise NoAuthority when it can't be opened."""
    entry = await store.get(KEY)
    if entry is None:
        root = authority.new_root(trust_domain, clock.now())
        try:
            await store.put(KEY, _encode(root, seal_key, trust_domain), expect=0)
        except Conflict:
            entry = await store.get(KEY)  # another replica was first: its root is the root
            if entry is None:
                raise NoAuthority(
                    "the mesh CA was removed from the store while citadel started (start again)"
                ) from None
        else:
            return root
    return _decode(entry.value, seal_key, trust_domain)


def _encode(root: Authority, seal_key: seal.SealKey, trust_domain: str) -> bytes:
    sealed = seal_key.seal(root.key_der(), _purpose(trust_domain, root.certificate_pem))
    record = {
        "version": _VERSION,
        "trustDomain": trust_domain,
        "certificate": root.certificate_pem.decode(),
        "key": sealed.record(),
    }
    return json.dumps(record, indent=1).encode()


def _decode(value: bytes, seal_key: seal.SealKey, trust_domain: str) -> Authority:
    try:
        record = json.loads(value)
        version, stored_domain = record["version"], record["trustDomain"]
        certificate = record["certificate"].encode()
        sealed = seal.Sealed.of_record(record["key"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise NoAuthority(f"the record at {KEY} is damaged: {error!r} (restore the store from a backup)") from error
    if version != _VERSION:
        raise NoAuthority(f"the record at {KEY} has version {version}, this citadel knows {_VERSION} (update citadel)")
    if stored_domain != trust_domain:
        raise NoAuthority(
            f"the store holds the CA of trust domain {stored_domain}, but this citadel was started for {trust_domain} "
            f"(start it with --trust-domain {stored_domain})"
        )
    return authority.open_authority(certificate, seal_key.open(sealed, _purpose(trust_domain, certificate)))


def _purpose(trust_domain: str, certificate_pem: bytes) -> bytes:
    return b"mesh CA key of %s, certificate %s" % (trust_domain.encode(), hashlib.sha256(certificate_pem).digest())
