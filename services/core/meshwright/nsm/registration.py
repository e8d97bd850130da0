"""Keeps an endpoint registered: refreshes it in time, and registers it anew when the other side forgot it.

One decision to know: whoever registers also watches its own name. A manager or registry that was killed ends that
stream, so the endpoint is known again within moments instead of after its next refresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, timedelta

import structlog

from meshwright.core import errors
from meshwright.core.clock import Clock
from meshwright.nsm.descriptors import Descriptor
from meshwright.nsm.registry_client import RegistryClient
from meshwright.nsm.wire import NetworkService, NetworkServiceEndpoint

_RETRY_FIRST, _RETRY_MOST = 0.1, 2.0  # seconds, doubling
_SHARE = 1 / 3  # of its life after which a registration is refreshed
_LONGEST_SLEEP = 300.0

log = structlog.get_logger(__name__)

OnChange = Callable[[bool, str], None]
"""Told whether the endpoint is registered now, and why not."""


def _nobody(registered: bool, reason: str) -> None:
    """Tell nobody."""


class Registration:
    """One endpoint with the network services it serves. Run it as a task; `first` completes when it is registered."""

    def __init__(
        self,
        registry: RegistryClient,
        endpoint: NetworkServiceEndpoint,
        clock: Clock,
        *,
        lifetime: timedelta,
        services: Sequence[NetworkService] = (),
        descriptors: Sequence[Descriptor] = (),
        on_change: OnChange = _nobody,
        persistent: bool = False,
    ) -> None:
        self._persistent = persistent
        self._registry, self._endpoint, self._clock, self._lifetime = registry, endpoint, clock, lifetime
        self._services, self._descriptors, self._on_change = tuple(services), tuple(descriptors), on_change
        self._known = endpoint
        self.fault = "no answer"  # why it isn't registered; empty when it is
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Register and stay registered until cancelled.

        A refusal (not an outage) of the first attempt ends it with that error in `first`; a persistent one goes on.
        """
        delay = _RETRY_FIRST
        while True:
            try:
                wait = await self._register()
            except (errors.Unavailable, errors.DeadlineExceeded) as error:
                self._tell(False, str(error))
                await self._clock.sleep(delay)
                delay = min(2 * delay, _RETRY_MOST)
                continue
            except errors.MeshwrightError as error:
                self._tell(False, str(error))
                if not self.first.done() and not self._persistent:
                    self.first.set_exception(error)
                    return
                log.warning("nsm.registration.refused", endpoint=self._endpoint.name, reason=str(error))
                await self._clock.sleep(_RETRY_MOST)
                continue
            delay = _RETRY_FIRST
            self._tell(True, "")
            if not self.first.done():
                self.first.set_result(None)
            await self._until_refresh(wait)

    async def unregister(self) -> None:
        """Take the endpoint out; an outage is left to the registration's expiry."""
        try:
            await self._registry.unregister_endpoint(self._known, timeout=2.0)
        except errors.MeshwrightError as error:
            log.info("nsm.registration.left_to_expire", endpoint=self._endpoint.name, reason=str(error))

    def _tell(self, registered: bool, fault: str) -> None:
        self.fault = fault
        self._on_change(registered, fault)

    async def _register(self) -> float:
        for service in self._services:
            await self._register_service(service)
        wanted = NetworkServiceEndpoint()
        wanted.CopyFrom(self._endpoint)
        now = self._clock.now()
        wanted.expiration_time.FromDatetime(now + self._lifetime)
        self._known, _ = await self._registry.register_endpoint(wanted, descriptors=tuple(self._descriptors))
        granted = self._lifetime
        if self._known.HasField("expiration_time"):
            granted = self._known.expiration_time.ToDatetime(tzinfo=UTC) - now
        return min(_LONGEST_SLEEP, max(_RETRY_FIRST, granted.total_seconds() * _SHARE))

    async def _register_service(self, service: NetworkService) -> None:
        """Register the network service, unless somebody else has: several owners may serve one."""
        try:
            await self._registry.register_service(service)
        except errors.Forbidden:
            if not await self._registry.find_services(NetworkService(name=service.name)):
                raise

    async def _until_refresh(self, wait: float) -> None:
        """Return when it is time to refresh, or as soon as the stream that watches the own name ends."""
        watching = asyncio.create_task(self._watch(), name=f"watch {self._endpoint.name}")
        sleeping = asyncio.create_task(self._clock.sleep(wait), name=f"refresh {self._endpoint.name}")
        try:
            await asyncio.wait({watching, sleeping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (watching, sleeping):
                task.cancel()
            await asyncio.gather(watching, sleeping, return_exceptions=True)

    async def _watch(self) -> None:
        wanted = NetworkServiceEndpoint(name=self._known.name)
        try:
            async for found in self._registry.stream_endpoints(wanted, watch=True):
                if found.deleted:
                    return
        except errors.MeshwrightError as error:
            log.info("nsm.registration.stream_ended", endpoint=self._endpoint.name, reason=str(error))
            if not isinstance(error, errors.Unavailable):
                await self._clock.sleep(_RETRY_MOST)
