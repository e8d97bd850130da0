"""What server and channel need of an identity source, and the native identity that follows it.

One decision to know: typed with protocols, so that this package needs nothing of the services'.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from meshwright.dataplane import _native

_LOG = logging.getLogger("meshwright.dataplane.grpc")

TLS_VERSIONS = ("1.3",)


class X509Identity(Protocol):
    """An X509-SVID in PEM.

    It may have `federated: Mapping[str, bytes]` too, the authorities of other trust domains by name (without the
    scheme): a peer is verified by those of the domain that its SPIFFE ID names, and by no others. And it may have
    `named: Sequence[tuple[bytes, bytes]]`, further certificates as (chain, key): a server shows one to clients that ask
    for a DNS name of its leaf (SNI), exact or "*.domain"; of two for one name the first.
    """

    @property
    def spiffe_id(self) -> str:
        """The one URI name of the leaf."""
        ...

    @property
    def cert_chain_pem(self) -> bytes:
        """Certificates, leaf first."""
        ...

    @property
    def key_pem(self) -> bytes:
        """The leaf's key, PKCS#8."""
        ...

    @property
    def bundle_pem(self) -> bytes:
        """The trust domain's authorities."""
        ...


class IdentitySource(Protocol):
    """Has a current identity, and tells of its rotations (`meshwright.core.identity`)."""

    def current(self) -> X509Identity:
        """Return the identity in use."""
        ...

    def subscribe(self, callback: Callable[..., None], /) -> Callable[[], None]:
        """Call `callback(identity)` after each rotation; return what ends that."""
        ...


def follow(
    source: IdentitySource, tls_versions: Sequence[str] = TLS_VERSIONS
) -> tuple[_native.Identity, Callable[[], None]]:
    """Return a native identity that rotates with `source`, and the function that ends the following.

    An identity that can't be used is logged, and the last one serves on.
    """
    first = source.current()
    native = _native.Identity(
        first.cert_chain_pem, first.key_pem, first.bundle_pem, _federated(first), list(tls_versions), *_named(first)
    )

    def rotate(identity: X509Identity) -> None:
        try:
            native.rotate(
                identity.cert_chain_pem, identity.key_pem, identity.bundle_pem, _federated(identity), *_named(identity)
            )
        except ValueError as error:
            _LOG.error("rotation refused", extra={"spiffe_id": identity.spiffe_id, "reason": str(error)})

    return native, source.subscribe(rotate)


def _federated(identity: X509Identity) -> dict[str, bytes]:
    federated: Mapping[str, bytes] = getattr(identity, "federated", {})
    return dict(federated)


def _named(identity: X509Identity) -> list[list[tuple[bytes, bytes]]]:
    """Return the further argument for `named`, if there is any."""
    named: Sequence[tuple[bytes, bytes]] = getattr(identity, "named", ())
    return [list(named)] if named else []
