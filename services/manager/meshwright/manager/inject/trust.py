"""Keeps the API server's trust in the webhook right: the caBundle of one MutatingWebhookConfiguration.

One decision to know: the manager itself does it, because it alone hears when the mesh's authorities change; it may read
and change that one object by name, and changes that one field.
"""

from __future__ import annotations

import asyncio
import base64

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors, renewal
from meshwright.core.health import Health
from meshwright.core.identity import IdentitySource
from meshwright.core.kubernetes import Api

PATH = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
PART = "webhook-trust"
_LOOK_SECONDS = 30.0  # an upgrade of the chart empties the field; another replica may have filled it

_log = structlog.get_logger(__name__)


async def keep(
    api: Api, name: str, identity: IdentitySource, health: Health, clock: clocks.Clock | None = None
) -> None:
    """Keep the object's caBundle at the identity's authorities until cancelled; tell health of what hinders."""
    clock = clock or clocks.SystemClock()
    changed = asyncio.Event()
    unsubscribe = identity.subscribe(lambda _: changed.set())
    backoff = renewal.Backoff(first=0.5, cap=15.0)
    try:
        while True:
            changed.clear()
            try:
                await _set(api, name, identity.current().bundle_pem)
            except errors.MeshwrightError as error:
                health.outage(PART, f"the API server may not trust the webhook: {error}")
                await clock.sleep(backoff.delay())
                continue
            health.set(PART, True)
            backoff.reset()
            await _either(changed, clock)
    finally:
        unsubscribe()


async def _set(api: Api, name: str, bundle: bytes) -> None:
    found = await api.get(f"{PATH}/{name}")
    wanted = base64.b64encode(bundle).decode()
    webhooks = found.get("webhooks") or []
    if all((webhook.get("clientConfig") or {}).get("caBundle") == wanted for webhook in webhooks):
        return
    for webhook in webhooks:
        webhook["clientConfig"] = {**(webhook.get("clientConfig") or {}), "caBundle": wanted}
    # With the revision that was read: what somebody else changed meanwhile isn't undone (409, and tried again).
    revision = (found.get("metadata") or {}).get("resourceVersion")
    await api.merge(f"{PATH}/{name}", {"metadata": {"resourceVersion": revision}, "webhooks": webhooks})
    _log.info("webhook_trusted", configuration=name)


async def _either(changed: asyncio.Event, clock: clocks.Clock) -> None:
    """Wait for new authorities, or until it is time to look again."""
    tasks = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(clock.sleep(_LOOK_SECONDS))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
