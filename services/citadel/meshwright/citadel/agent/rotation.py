"""Keys and certificates of the node's workloads: made on the node, renewed at half of their life.

One decision to know: each registration has one task, from its arrival to its end, so a certificate is ready before its
workload asks. With citadel away the last certificates serve on, and renewal is tried again with capped back-off.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Protocol, Self

import prometheus_client
import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshwright.citadel.agent.workloads import Svid, Workloads
from meshwright.citadel.registrations.model import Registration
from meshwright.core import clock as clocks
from meshwright.core import errors, identity, renewal

ROTATIONS = prometheus_client.Counter("meshwright_citadel_agent_rotations", "Workload certificates taken into use")
FAILURES = prometheus_client.Counter("meshwright_citadel_agent_rotation_failures", "Attempts to renew that failed")

_AT_ONCE = 8  # signing requests under way: citadel's restart must not be met by all workloads at once

_log = structlog.get_logger(__name__)


class Signer(Protocol):
    """Whoever certifies a key: citadel, by `agent.upstream`."""

    async def sign(self, registration_id: str, csr: bytes) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Return chain and bundle (DER) for a request (DER)."""
        ...


class Rotation:
    """Keeps `workloads` supplied; entered as a context it owns the tasks."""

    def __init__(self, workloads: Workloads, signer: Signer, clock: clocks.Clock) -> None:
        self._workloads, self._signer, self._clock = workloads, signer, clock
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._tasks: dict[str, tuple[Registration, asyncio.Task[None]]] = {}
        self._stop = workloads.watch(self._follow)

    async def __aenter__(self) -> Self:
        for key in list(self._workloads.registrations):
            self._follow(key)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()
        tasks = [task for _, task in self._tasks.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _follow(self, key: str) -> None:
        """Start a task for a new or changed registration, end that of a removed one."""
        wanted = self._workloads.registrations.get(key)
        known, task = self._tasks.get(key, (None, None))
        if known == wanted:
            return
        if task is not None:
            del self._tasks[key]
            task.cancel()
        if wanted is not None:
            name = f"rotate {wanted.spiffe_id}"
            self._tasks[key] = (wanted, asyncio.create_task(self._keep(wanted), name=name))

    async def _keep(self, registration: Registration) -> None:
        backoff, failing = renewal.Backoff(), False
        while True:
            try:
                async with self._slots:
                    svid, bundle = await self._renewed(registration)
            except errors.MeshwrightError as error:
                FAILURES.inc()
                if not failing:
                    _log.warning("rotation_failed", spiffe_id=registration.spiffe_id, error=str(error))
                failing = True
                await self._clock.sleep(backoff.delay())
                continue
            if failing:
                _log.info("rotation_recovered", spiffe_id=registration.spiffe_id)
            failing = False
            backoff.reset()
            ROTATIONS.inc()
            self._workloads.put_svid(svid, bundle)
            await renewal.half_life(self._clock, svid.not_after)

    async def _renewed(self, registration: Registration) -> tuple[Svid, tuple[bytes, ...]]:
        key = ec.generate_private_key(ec.SECP256R1())
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
        chain, bundle = await self._signer.sign(registration.id, request.public_bytes(serialization.Encoding.DER))
        try:
            leaf = x509.load_der_x509_certificate(chain[0])
        except (ValueError, IndexError) as error:
            raise errors.Unavailable(f"citadel's certificate can't be read: {error}") from error
        if leaf.public_key() != key.public_key() or identity.spiffe_id(leaf) != registration.spiffe_id:
            raise errors.Unavailable(f"citadel's certificate isn't the one of {registration.spiffe_id}")
        key_der = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return Svid(registration.id, registration.spiffe_id, chain, key_der, leaf.not_valid_after_utc), bundle
