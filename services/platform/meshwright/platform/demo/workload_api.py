"""A client of the SPIFFE Workload API (SPIFFE_Workload_API section 5): the identities that this process may have.

One decision to know: a process can be more than one workload (the demo's driver is `customer` and `mallory`), so a
source is for one named ID, or for the first that the agent gives.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from meshwright.api.spiffe.workload import workload_pb2, workload_pb2_grpc
from meshwright.core import errors, identity
from meshwright.core.grpc import Channel

_HEADER = (("workload.spiffe.io", "true"),)
_RETRY_SECONDS = 0.2


class WorkloadIdentity(identity.Rotating):
    """An identity from the agent's socket, replaced whenever the agent sends a new one.

    Entering waits up to `patience` seconds: a registration made a moment ago may still be on its way to the agent.
    """

    def __init__(self, socket: Path, spiffe_id: str | None = None, *, patience: float = 20.0) -> None:
        super().__init__()
        self._socket, self._spiffe_id, self._patience = socket, spiffe_id, patience
        self._task: asyncio.Task[None] | None = None
        self._fault = "no answer"

    async def __aenter__(self) -> Self:
        """Wait for the first identity."""
        arrived = asyncio.Event()
        unsubscribe = self.subscribe(lambda _: arrived.set())
        self._task = asyncio.create_task(self._follow(), name=f"workload API {self._spiffe_id or ''}")
        try:
            async with asyncio.timeout(self._patience):
                await arrived.wait()
        except TimeoutError:
            await self.__aexit__(None, None, None)
            raise errors.Unavailable(
                f"no identity{f' {self._spiffe_id}' if self._spiffe_id else ''} from {self._socket}: {self._fault}"
            ) from None
        finally:
            unsubscribe()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop following."""
        if self._task:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _follow(self) -> None:
        async with Channel(f"unix:{self._socket}", None) as channel:
            stub = workload_pb2_grpc.SpiffeWorkloadAPIStub(channel)
            while True:
                try:
                    async for answer in stub.FetchX509SVID(workload_pb2.X509SVIDRequest(), metadata=_HEADER):
                        self._take(answer)
                    self._fault = "the agent ended the stream"
                except grpc.aio.AioRpcError as error:
                    self._fault = f"{error.code().name}: {error.details()}"
                await asyncio.sleep(_RETRY_SECONDS)

    def _take(self, answer: workload_pb2.X509SVIDResponse) -> None:
        for svid in answer.svids:
            if self._spiffe_id in (None, svid.spiffe_id):
                fresh = decode(svid)
                if fresh != self._identity:  # an answer repeats everything when anything changed
                    self.replace(fresh)
                return
        self._fault = f"the agent gave only {', '.join(svid.spiffe_id for svid in answer.svids) or 'nothing'}"


def decode(svid: workload_pb2.X509SVID) -> identity.X509Identity:
    """Turn an answer (concatenated DER, PKCS#8) into an identity in PEM."""
    return identity.parse(_pem(svid.x509_svid), _key(svid.x509_svid_key), _pem(svid.bundle))


def _pem(ders: bytes) -> bytes:
    certificates: list[bytes] = []
    while ders:
        length = _der_length(ders)
        certificates.append(x509.load_der_x509_certificate(ders[:length]).public_bytes(serialization.Encoding.PEM))
        ders = ders[length:]
    return b"".join(certificates)


def _der_length(data: bytes) -> int:
    """Return the length of the first element (X.690 section 8.1.3)."""
    if len(data) < 2:
        raise errors.ConfigError("the agent sent a certificate that is cut off")
    if data[1] < 0x80:
        return 2 + data[1]
    count = data[1] & 0x7F
    return 2 + count + int.from_bytes(data[2 : 2 + count], "big")


def _key(der: bytes) -> bytes:
    key = serialization.load_der_private_key(der, password=None)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
