"""The two ways to a first certificate from citadel: a one-time token on its Unix socket, or the token of a pod's
service account on its login port.

One decision to know: both begin from nothing that the mesh CA signed, so a part whose certificate has ended goes the
same way again. Tokens are never logged, nor named in errors.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshwright.api.citadel.v1 import admin_pb2, admin_pb2_grpc
from meshwright.api.istio.v1.auth import ca_pb2, ca_pb2_grpc
from meshwright.core import errors, identity
from meshwright.core.grpc import Channel

CALL_SECONDS = 5.0
LOGIN_SECONDS = 15.0  # citadel asks the API server


@dataclass(frozen=True, slots=True)
class Certified:
    """What citadel answered, each certificate as PEM: the chain without the root, and the roots."""

    chain: Sequence[bytes]
    bundle: Sequence[bytes]


class FirstCertificate(Protocol):
    """A way to a certificate that needs none."""

    @property
    def where(self) -> str:
        """Where it is asked, for messages."""
        ...

    async def obtain(self, spiffe_id: str, csr: x509.CertificateSigningRequest, validity_seconds: int) -> Certified:
        """Return a certificate for `spiffe_id`; Unavailable when it may be tried again."""
        ...


class SocketLogin:
    """A one-time token on citadel's admin socket: from a file, else one that the socket gives to this user itself."""

    def __init__(self, socket: str, token: Path | None) -> None:
        self.where, self._token = socket, token

    async def obtain(self, spiffe_id: str, csr: x509.CertificateSigningRequest, validity_seconds: int) -> Certified:
        """Exchange a token; a token file is removed once it is used."""
        async with Channel(self.where, None) as channel:
            stub = admin_pb2_grpc.AdminStub(channel)
            try:
                token = self._read_token() or await self._own_token(stub, spiffe_id)
                message = admin_pb2.BootstrapRequest(
                    token=token,
                    csr=csr.public_bytes(serialization.Encoding.DER),
                    validity_seconds=validity_seconds,
                )
                answer = await stub.Bootstrap(message, timeout=CALL_SECONDS)
            except grpc.RpcError as error:
                translated = refusal(error, self.where)
                if isinstance(translated, errors.Unauthorized):
                    self._remove_token()  # used or expired: the next attempt asks for one, or finds a fresh file
                    raise errors.Unavailable(str(translated)) from error
                raise translated from error
        self._remove_token()
        return Certified(_pem(answer.chain), _pem(answer.bundle))

    async def _own_token(self, stub: admin_pb2_grpc.AdminStub, spiffe_id: str) -> str:
        part, _, node = spiffe_id.partition(f"/ns/{identity.SYSTEM_NAMESPACE}/sa/")[2].partition("/node/")
        try:
            answer = await stub.MintToken(admin_pb2.MintTokenRequest(part=part, node=node), timeout=CALL_SECONDS)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.PERMISSION_DENIED and self._token is not None:
                raise errors.Unavailable(
                    f"no token in {self._token}, and {self.where} gives none to this user (write a fresh token there)"
                ) from error
            raise
        return str(answer.token)

    def _read_token(self) -> str | None:
        return _read(self._token, "citadel_token") if self._token is not None else None

    def _remove_token(self) -> None:
        if self._token is not None:
            self._token.unlink(missing_ok=True)


class KubernetesLogin:
    """The token of this pod's service account on citadel's login port, which the infrastructure CA certifies.

    The file is read each time: the kubelet replaces it long before the token ends. `tls` is the folder of the port's
    client side.
    """

    def __init__(self, address: str, tls: Path, token: Path) -> None:
        self.where, self._tls, self._token = address, tls, token

    async def obtain(self, spiffe_id: str, csr: x509.CertificateSigningRequest, validity_seconds: int) -> Certified:
        """Show the token and get a certificate."""
        token = await asyncio.to_thread(_read, self._token, "kubernetes_token")
        if token is None:
            raise errors.Unavailable(f"no token in {self._token} (mount a projected serviceAccountToken there)")
        message = ca_pb2.IstioCertificateRequest(
            csr=csr.public_bytes(serialization.Encoding.PEM).decode(), validity_duration=validity_seconds
        )
        async with Channel(self.where, identity.FileIdentity(self._tls), peer=identity.LOGIN_SERVER) as channel:
            stub = ca_pb2_grpc.IstioCertificateServiceStub(channel)
            metadata = (("authorization", f"Bearer {token}"),)
            try:
                answer = await stub.CreateCertificate(message, metadata=metadata, timeout=LOGIN_SECONDS)
            except grpc.RpcError as error:
                raise refusal(error, self.where) from error
        return of_answer(answer)


def of_answer(answer: Any) -> Certified:
    """Return the certificates of an IstioCertificateResponse, whose last one is the root."""
    certificates = [element.encode() for element in answer.cert_chain]
    return Certified(certificates[:-1], certificates[-1:])


def refusal(error: grpc.RpcError, where: str) -> errors.MeshwrightError:
    """Return citadel's refusal as one of our errors."""
    message = f"citadel at {where}: {error.details()}"
    match error.code():
        case grpc.StatusCode.UNAUTHENTICATED:
            return errors.Unauthorized(message)
        case grpc.StatusCode.PERMISSION_DENIED:
            return errors.Forbidden(message)
        case grpc.StatusCode.INVALID_ARGUMENT:
            return errors.ConfigError(message)
    return errors.Unavailable(message)


def _read(path: Path, field: str) -> str | None:
    try:
        return path.read_text().strip() or None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise errors.ConfigError(f"can't read {path}: {error.strerror}", field=field) from error


def _pem(certificates: Sequence[bytes]) -> list[bytes]:
    try:
        return [x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM) for der in certificates]
    except ValueError as error:
        raise errors.Unavailable(f"citadel sent a certificate that can't be read: {error}") from error
