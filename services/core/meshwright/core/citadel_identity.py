"""An identity from citadel: the first for a one-time token, the next ones by mutual TLS with the last.

One decision to know: getting a new identity never needs a certificate that is still valid. When the last one has ended
(a machine that was suspended for a week) the part begins again at citadel's Unix socket: with the token file when there
is one, else with a token that it asks for itself, which the socket grants to citadel's own user and to root only.
Keys and tokens are never logged; each certificate has a new key.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
import structlog
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshwright.api.citadel.v1 import admin_pb2, admin_pb2_grpc
from meshwright.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from meshwright.core import clock as clocks
from meshwright.core import errors, identity, renewal
from meshwright.core.grpc import Channel
from meshwright.core.settings import ServiceSettings

_CALL_SECONDS = 5.0

_log = structlog.get_logger(__name__)


def source(settings: ServiceSettings, *, part: str | None = None) -> identity.IdentitySource | None:
    """Return the identity source that a service's settings name, or None for plain text on loopback."""
    if settings.identity is not None:
        return identity.FileIdentity(settings.identity)
    if settings.citadel_socket is not None:
        return CitadelIdentity(
            identity.part_id(settings.trust_domain, part or settings.part),
            socket=settings.citadel_socket,
            address=settings.citadel,
            token=settings.citadel_token,
        )
    return None


class CitadelIdentity(identity.Rotating):
    """The identity `spiffe_id` of one part of the platform, renewed at half of each certificate's life.

    `socket` is citadel's admin socket (``unix:/path``), `address` its TCP listener (host:port; None: every renewal goes
    over the socket), `token` the file with the one-time token, removed once it is used. Entering waits up to `patience`
    seconds for citadel, then raises Unavailable, or Unauthorized when citadel refuses.
    """

    def __init__(
        self,
        spiffe_id: str,
        *,
        socket: str,
        address: str | None = None,
        token: Path | None = None,
        validity_seconds: int = 0,
        patience: float = 30.0,
        clock: clocks.Clock | None = None,
    ) -> None:
        super().__init__()
        self._spiffe_id, self._socket, self._address = spiffe_id, socket, address
        self._token, self._validity, self._patience = token, validity_seconds, patience
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
                raise errors.Unavailable(f"{error}; over {self._socket}: {second}") from error

    async def _exchange(self, address: str) -> identity.X509Identity:
        key, request = _request()
        citadel = identity.part_id(self.current().trust_domain, "citadel")
        async with Channel(address, self, peer=citadel) as channel:
            stub = ca_pb2_grpc.IstioCertificateServiceStub(channel)
            message = ca_pb2.IstioCertificateRequest(
                csr=request.public_bytes(serialization.Encoding.PEM).decode(), validity_duration=self._validity
            )
            try:
                answer = await stub.CreateCertificate(message, timeout=_CALL_SECONDS)
            except grpc.RpcError as error:
                raise _translated(error, address) from error
        certificates = [element.encode() for element in answer.cert_chain]
        return self._accept(key, certificates[:-1], certificates[-1:])

    async def _bootstrap(self) -> identity.X509Identity:
        key, request = _request()
        async with Channel(self._socket, None) as channel:
            stub = admin_pb2_grpc.AdminStub(channel)
            try:
                token = self._read_token() or await self._own_token(stub)
                message = admin_pb2.BootstrapRequest(
                    token=token,
                    csr=request.public_bytes(serialization.Encoding.DER),
                    validity_seconds=self._validity,
                )
                answer = await stub.Bootstrap(message, timeout=_CALL_SECONDS)
            except grpc.RpcError as error:
                translated = _translated(error, self._socket)
                if isinstance(translated, errors.Unauthorized):
                    self._remove_token()  # used or expired: the next attempt asks for one, or finds a fresh file
                    raise errors.Unavailable(str(translated)) from error
                raise translated from error
        self._remove_token()
        return self._accept(key, _pem(answer.chain), _pem(answer.bundle))

    async def _own_token(self, stub: admin_pb2_grpc.AdminStub) -> str:
        part, _, node = self._spiffe_id.partition(f"/ns/{identity.SYSTEM_NAMESPACE}/sa/")[2].partition("/node/")
        try:
            answer = await stub.MintToken(admin_pb2.MintTokenRequest(part=part, node=node), timeout=_CALL_SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED and self._token is not None:
                raise errors.Unavailable(
                    f"no token in {self._token}, and {self._socket} gives none to this user (write a fresh token there)"
                ) from error
            raise
        return str(answer.token)

    def _read_token(self) -> str | None:
        if self._token is None:
            return None
        try:
            return self._token.read_text().strip() or None
        except FileNotFoundError:
            return None
        except OSError as error:
            raise errors.ConfigError(f"can't read {self._token}: {error.strerror}", field="citadel_token") from error

    def _remove_token(self) -> None:
        if self._token is not None:
            self._token.unlink(missing_ok=True)

    def _accept(
        self, key: ec.EllipticCurvePrivateKey, chain: Sequence[bytes], bundle: Sequence[bytes]
    ) -> identity.X509Identity:
        """Check that what citadel sent is for our key and our ID, and verifies with the bundle beside it."""
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


def _request() -> tuple[ec.EllipticCurvePrivateKey, x509.CertificateSigningRequest]:
    """Make a key and a request without names: citadel knows who is asking."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return key, builder.sign(key, hashes.SHA256())


def _pem(certificates: Sequence[bytes]) -> list[bytes]:
    try:
        return [x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in certificates]
    except ValueError as error:
        raise errors.Unavailable(f"citadel sent a certificate that can't be read: {error}") from error


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _translated(error: grpc.RpcError, where: str) -> errors.MeshwrightError:
    message = f"citadel at {where}: {error.details()}"
    match error.code():
        case grpc.StatusCode.UNAUTHENTICATED:
            return errors.Unauthorized(message)
        case grpc.StatusCode.PERMISSION_DENIED:
            return errors.Forbidden(message)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return errors.ConfigError(message)
    return errors.Unavailable(message)
