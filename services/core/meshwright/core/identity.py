"""X.509 identities (SPIFFE X509-SVIDs) and where they come from.

One decision to know: whoever needs a certificate holds an `IdentitySource`, never a certificate: identities rotate
while the process runs, and `current()` is asked at every handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from cryptography import x509

from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.spiffe import SYSTEM_NAMESPACE, part_dns, part_id, workload_id

__all__ = [
    "LOGIN_CLIENT",
    "LOGIN_SERVER",
    "SYSTEM_NAMESPACE",
    "FileIdentity",
    "IdentitySource",
    "Rotating",
    "StaticIdentity",
    "X509Identity",
    "check_spiffe_id",
    "parse",
    "part_dns",
    "part_id",
    "spiffe_id",
    "workload_id",
]

# The two sides of citadel's login port, certified by the infrastructure CA, a trust domain of its own (ADR 29).
LOGIN_SERVER = "spiffe://infrastructure.meshwright/citadel"
LOGIN_CLIENT = "spiffe://infrastructure.meshwright/part"

_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}")
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class X509Identity:
    """One SVID: certificate chain (leaf first), its key (PKCS#8) and the trust bundle, all PEM.

    `federated` has the bundles of other trust domains by name: whose members may be peers too. `named` has further
    certificates, each (chain, key): a server shows one to clients that ask for a DNS name of its leaf (SNI).
    """

    spiffe_id: str
    cert_chain_pem: bytes
    key_pem: bytes
    bundle_pem: bytes
    not_after: datetime
    federated: Mapping[str, bytes] = field(default_factory=dict)
    named: tuple[tuple[bytes, bytes], ...] = ()

    def __repr__(self) -> str:
        """Name the identity without its key: representations end in logs."""
        return f"X509Identity({self.spiffe_id}, not_after={self.not_after.isoformat()})"

    @property
    def trust_domain(self) -> str:
        """The trust domain's name, without the scheme."""
        return self.spiffe_id.removeprefix("spiffe://").split("/", 1)[0]


class IdentitySource(Protocol):
    """Something that always has a current identity; entered as a context it keeps that identity fresh."""

    def current(self) -> X509Identity:
        """Return the identity to use for a handshake that starts now."""
        ...

    def subscribe(self, callback: Callable[[X509Identity], None]) -> Callable[[], None]:
        """Call `callback` after each rotation; return the function that ends the subscription."""
        ...

    async def __aenter__(self) -> Self:
        """Get the first identity and begin to renew it."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop renewing."""
        ...


class Rotating:
    """The subscriber list that every source shares."""

    def __init__(self) -> None:
        self._identity: X509Identity | None = None
        self._subscribers: list[Callable[[X509Identity], None]] = []

    def current(self) -> X509Identity:
        """Return the identity in use."""
        if self._identity is None:
            raise errors.Unavailable("no identity yet: enter the identity source before using it")
        return self._identity

    def subscribe(self, callback: Callable[[X509Identity], None]) -> Callable[[], None]:
        """Call `callback` after each rotation."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def replace(self, identity: X509Identity) -> None:
        """Rotate to `identity` and tell the subscribers."""
        self._identity = identity
        for callback in list(self._subscribers):
            callback(identity)

    async def __aenter__(self) -> Self:
        """Begin; sources that renew override this."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End; sources that renew override this."""


class StaticIdentity(Rotating):
    """An identity given by the caller; `replace` rotates it."""

    def __init__(self, identity: X509Identity) -> None:
        super().__init__()
        self._identity = identity


class FileIdentity(Rotating):
    """`cert.pem`, `key.pem` and `ca.pem` in a folder, reloaded when one of them changes.

    `federated/<trust domain>.pem` are the bundles of other trust domains, if there are any; `named/<any>/cert.pem` and
    `key.pem` further certificates, for clients that ask for one of their DNS names. A set that doesn't belong together
    (seen while somebody is writing it) is left alone until the next look.
    """

    def __init__(self, folder: Path, *, period: float = 1.0, clock: clocks.Clock | None = None) -> None:
        super().__init__()
        self._folder, self._period, self._clock = folder, period, clock or clocks.SystemClock()
        self._seen: tuple[tuple[Path, int], ...] = ()
        self._task: asyncio.Task[None] | None = None
        self.load()

    def load(self) -> bool:
        """Read the files if they changed; return whether the identity was replaced."""
        paths = [self._folder / name for name in ("cert.pem", "key.pem", "ca.pem")]
        try:
            foreign = sorted((self._folder / "federated").glob("*.pem"))
            named = [(path, path.with_name("key.pem")) for path in sorted(self._folder.glob("named/*/cert.pem"))]
            every = (*paths, *foreign, *(path for pair in named for path in pair))
            seen = tuple((path, path.stat().st_mtime_ns) for path in every)
            if seen == self._seen:
                return False
            chain, key, bundle = (path.read_bytes() for path in paths)
            pairs = [(chain.read_bytes(), key.read_bytes()) for chain, key in named]
            identity = parse(chain, key, bundle, {path.stem: path.read_bytes() for path in foreign}, pairs)
        except OSError as error:
            raise errors.ConfigError(
                f"can't read {error.filename}: {error.strerror}",
                field="identity",
                remedy="the folder must hold cert.pem, key.pem and ca.pem",
            ) from error
        self._seen = seen
        self.replace(identity)
        return True

    async def __aenter__(self) -> Self:
        """Begin to watch the folder."""
        self._task = asyncio.create_task(self._watch(), name=f"identity {self._folder}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._period)
            with contextlib.suppress(errors.ConfigError):  # half written, or gone: the last identity serves on
                self.load()


def parse(
    cert_chain_pem: bytes,
    key_pem: bytes,
    bundle_pem: bytes,
    federated: Mapping[str, bytes] | None = None,
    named: Sequence[tuple[bytes, bytes]] = (),
) -> X509Identity:
    """Build an identity from PEM and check that each key belongs to its certificate; raise ConfigError if not."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        pairs = [
            (x509.load_pem_x509_certificates(chain)[0], load_pem_private_key(key, password=None))
            for chain, key in ((cert_chain_pem, key_pem), *named)
        ]
        for bundle in (bundle_pem, *(federated or {}).values()):
            x509.load_pem_x509_certificates(bundle)
    except (ValueError, TypeError) as error:
        raise errors.ConfigError(f"not PEM as expected: {error}", field="identity") from error
    for name in federated or {}:
        if not _TRUST_DOMAIN.fullmatch(name):
            raise errors.ConfigError(f"{name!r} is no trust domain's name", field="identity.federated")
    for index, (certificate, private) in enumerate(pairs):
        if private.public_key() != certificate.public_key():
            where = f"identity.named[{index - 1}]" if index else "identity"
            raise errors.ConfigError("the key doesn't belong to the certificate", field=where)
    leaf, _ = pairs[0]
    return X509Identity(
        spiffe_id=spiffe_id(leaf),
        cert_chain_pem=cert_chain_pem,
        key_pem=key_pem,
        bundle_pem=bundle_pem,
        not_after=leaf.not_valid_after_utc,
        federated=federated or {},
        named=tuple(named),
    )


def spiffe_id(certificate: x509.Certificate) -> str:
    """Return the one SPIFFE ID of a certificate (X509-SVID section 2); ConfigError when there isn't exactly one."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except x509.ExtensionNotFound:
        uris = []
    if len(uris) != 1:
        raise errors.ConfigError(
            f"the certificate has {len(uris)} URI names", field="identity", remedy="an X509-SVID has exactly one"
        )
    return check_spiffe_id(uris[0])


def check_spiffe_id(text: str) -> str:
    """Return `text` if it is a SPIFFE ID with a path (SPIFFE-ID section 2); ConfigError with the reason if not."""
    scheme, separator, rest = text.partition("://")
    trust_domain, _, path = rest.partition("/")
    reason = ""
    if len(text.encode()) > 2048:
        reason = "longer than 2048 bytes"
    elif scheme != "spiffe" or not separator:
        reason = "the scheme must be spiffe://"
    elif not _TRUST_DOMAIN.fullmatch(trust_domain):
        reason = "a trust domain has 1-255 of a-z 0-9 . - _"
    elif not path:
        reason = "the path is empty"
    elif not all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in path.split("/")):
        reason = "path segments have A-Z a-z 0-9 . - _ and are not empty, '.' or '..'"
    if reason:
        raise errors.ConfigError(f"{text[:100]!r} isn't a SPIFFE ID: {reason}", field="spiffe_id")
    return text
