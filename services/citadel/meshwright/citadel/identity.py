"""Citadel's own identity, which it signs itself: a new key and certificate at half of each certificate's life."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from types import TracebackType
from typing import Self

import structlog
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from meshwright.citadel.ca.request import SigningRequest
from meshwright.citadel.issuer import Issuer
from meshwright.core import clock as clocks
from meshwright.core import errors
from meshwright.core.identity import Rotating, X509Identity

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 5.0  # how often the wall clock is looked at: it may jump while the monotonic one stands


class SelfIssuedIdentity(Rotating):
    """An identity source beside the authority itself."""

    def __init__(self, issuer: Issuer, clock: clocks.Clock) -> None:
        super().__init__()
        self._authority, self._profile, self._clock = issuer.authority, issuer.part("citadel"), clock
        self._task: asyncio.Task[None] | None = None
        self.replace(self._issue())

    async def __aenter__(self) -> Self:
        """Begin to renew."""
        self._task = asyncio.create_task(self._renew(), name="citadel's own identity")
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
        while True:
            lifetime = self._profile.lifetime(0)
            await self._clock.sleep(min(_LOOK_SECONDS, lifetime.total_seconds() / 10))
            left = self.current().not_after - self._clock.now()
            # More than a whole life left: the clock went back, and the certificate may lie in the future.
            if left < lifetime / 2 or left > lifetime + timedelta(seconds=_LOOK_SECONDS):
                try:
                    self.replace(self._issue())
                except errors.MeshwrightError as error:  # the CA ended: what there is serves on, and health says so
                    _log.error("own_identity_not_renewed", error=str(error))

    def _issue(self) -> X509Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        request = SigningRequest(key.public_key(), None, ())
        issued = self._authority.issue(request, self._profile, now=self._clock.now())
        return X509Identity(
            spiffe_id=issued.spiffe_id,
            cert_chain_pem=issued.certificate_pem,
            key_pem=key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            bundle_pem=self._authority.certificate_pem,
            not_after=issued.not_after,
        )
