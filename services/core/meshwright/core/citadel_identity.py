"""An identity from citadel: the first by a token, the next ones by mutual TLS with the last.

One decision to know: getting a new identity never needs a certificate that is still valid. When the last one has ended
(a machine that was suspended for a week) the part begins again as it did at its start (`first_certificate`).
Keys and tokens are never logged; each certificate has a new key.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshwright.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from meshwright.core import clock as clocks
from meshwright.core import errors, first_certificate, identity, renewal
from meshwright.core.first_certificate import Certified, FirstCertificate, KubernetesLogin, SocketLogin
from meshwright.core.grpc import Channel
from meshwright.core.settings import ServiceSettings

_log = structlog.get_logger(__name__)


def source(settings: ServiceSettings, *, part: str | None = None) -> identity.IdentitySource | None:
    """Return the identity source that a service's settings name, or None for plain text on loopback."""
    if settings.identity is not None:
        return identity.FileIdentity(settings.identity)
    spiffe_id = identity.part_id(settings.trust_domain, part or settings.part)
    if settings.citadel_login and settings.citadel_login_tls and settings.kubernetes_token:
        login = KubernetesLogin(settings.citadel_login, settings.citadel_login_tls, settings.kubernetes_token)
        # Parts of one release start together: citadel waits for etcd, whose image may still be on its way.
        return CitadelIdentity(spiffe_id, first=login, address=settings.citadel, patience=_TOGETHER_SECONDS)
    if settings.citadel_socket is not None:
        return CitadelIdentity(
            spiffe_id, socket=settings.citadel_socket, address=settings.citadel, token=settings.citadel_token
        )
    return None


_TOGETHER_SECONDS = 300.0


class CitadelIdentity(identity.Rotating):
    """The identity `spiffe_id` of one part of the platform, renewed at half of each certificate's life.

    `socket` is citadel's admin socket (``unix:/path``) and `token` the file with the one-time token, removed once it is
    used; or `first` is another way to the first certificate. `address` is citadel's TCP listener (host:port; None:
    every renewal begins again). Entering waits up to `patience` seconds for citadel, then raises Unavailable, or
    Unauthorized when citadel refuses.
    """

    def __init__(
        self,
        spiffe_id: str,
        *,
        socket: str | None = None,
        address: str | None = None,
        token: Path | None = None,
        first: FirstCertificate | None = None,
        validity_seconds: int = 0,
        patience: float = 30.0,
        clock: clocks.Clock | None = None,
    ) -> None:
        super().__init__()
        if first is None:
            if socket is None:
                raise errors.ConfigError("no way to a first certificate", field="citadel_socket", remedy="give one")
            first = SocketLogin(socket, token)
        self._spiffe_id, self._first, self._address = spiffe_id, first, address
        self._validity, self._patience = validity_seconds, patience
        self._clock = clock or clocks.SystemClock()
        self._task: asyncio.Task[None] | None = None
        self.fault: str | None = None  # why the last renewal failed, for health; None when it succeeded

    async def __aenter__(self) -> Self:
        """Get the first identity and begin to renew it."""
        backoff, give_up = renewal.Backoff(cap=2.0), self._clock.monotonic() + self._patience
        while True:
            try:
                self.replace(await self._bootstrap())
                break
            except errors.Unavailable:
                if self._clock.monotonic() >= give_up:
                    raise
                await self._clock.sleep(backoff.delay())
        self._task = asyncio.create_task(self._renew(), name=f"identity {self._spiffe_id}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop renewing."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _renew(self) -> None:
        backoff = renewal.Backoff()
        while True:
            if self.fault is None:
                await renewal.half_life(self._clock, self.current().not_after)
            try:
                fresh = await self._next()
            except errors.MeshwrightError as error:
                if self.fault is None:
                    _log.warning("identity_renewal_failed", spiffe_id=self._spiffe_id, error=str(error))
                self.fault = str(error)
                await self._clock.sleep(backoff.delay())
                continue
            if self.fault is not None:
                _log.info("identity_renewal_recovered", spiffe_id=self._spiffe_id)
                self.fault = None
            backoff.reset()
            self.replace(fresh)

    async def _next(self) -> identity.X509Identity:
        """Renew with the certificate in use; when it has ended, or citadel refuses it, begin again at the socket."""
        if self._address is None or self._clock.now() >= self.current().not_after:
            return await self._bootstrap()
        try:
            return await self._exchange(self._address)
        except errors.MeshwrightError as error:
            try:
                return await self._bootstrap()
            except errors.MeshwrightError as second:
                raise errors.Unavailable(f"{error}; at {self._first.where}: {second}") from error

    async def _exchange(self, address: str) -> identity.X509Identity:
        key, request = self._request()
        citadel = identity.part_id(self.current().trust_domain, "citadel")
        async with Channel(address, self, peer=citadel) as channel:
            stub = ca_pb2_grpc.IstioCertificateServiceStub(channel)
            message = ca_pb2.IstioCertificateRequest(
                csr=request.public_bytes(serialization.Encoding.PEM).decode(), validity_duration=self._validity
            )
            try:
                answer = await stub.CreateCertificate(message, timeout=first_certificate.CALL_SECONDS)
            except grpc.RpcError as error:
                raise first_certificate.refusal(error, address) from error
        return self._accept(key, first_certificate.of_answer(answer))

    async def _bootstrap(self) -> identity.X509Identity:
        key, request = self._request()
        return self._accept(key, await self._first.obtain(self._spiffe_id, request, self._validity))

    def _request(self) -> tuple[ec.EllipticCurvePrivateKey, x509.CertificateSigningRequest]:
        """Make a key and a request that names who we are, as one service account may be several parts."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self._spiffe_id)])
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        return key, builder.add_extension(names, critical=True).sign(key, hashes.SHA256())

    def _accept(self, key: ec.EllipticCurvePrivateKey, certified: Certified) -> identity.X509Identity:
        """Check that what citadel sent is for our key and our ID, and verifies with the bundle beside it."""
        chain, bundle = certified.chain, certified.bundle
        if not chain or not bundle:
            raise errors.Unavailable("citadel sent no certificate or no trust bundle")
        key_pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        fresh = identity.parse(b"".join(chain), key_pem, b"".join(bundle))
        if fresh.spiffe_id != self._spiffe_id:
            raise errors.Unauthorized(f"citadel certified {fresh.spiffe_id}, expected {self._spiffe_id}")
        last = x509.load_pem_x509_certificate(chain[-1])
        if not any(_issued_by(last, x509.load_pem_x509_certificate(root)) for root in bundle):
            raise errors.Unauthorized("citadel's certificate doesn't verify with its own trust bundle")
        return fresh


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True
