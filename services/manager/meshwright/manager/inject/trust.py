"""Keeps the API server's trust in the webhooks right: the caBundle of one MutatingWebhookConfiguration, and of the
definitions whose objects the manager converts.

One decision to know: the manager itself does it, because it alone hears when the mesh's authorities change; it may read
and change those objects by name, and changes that one field. A definition that isn't there, or that somebody else
converts, is nobody's trouble.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from meshwright.core import clock as clocks
from meshwright.core import errors, renewal
from meshwright.core.health import Health
from meshwright.core.identity import IdentitySource
from meshwright.core.kubernetes import Api

PATH = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
CONVERT = "/convert"
PART = "webhook-trust"
_LOOK_SECONDS = 30.0  # an upgrade of the chart empties the field; another replica may have filled it

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Trusting:
    """An object that holds a caBundle. `patch` says what to merge into it for a bundle; None: it is right already."""

    path: str
    patch: Callable[[dict[str, Any], str], dict[str, Any] | None]
    optional: bool = False


def admission(name: str) -> Trusting:
    """Return the MutatingWebhookConfiguration of a name."""
    return Trusting(f"{PATH}/{name}", _admission)


def definition(name: str) -> Trusting:
    """Return the definition of a name (``trafficsplits.split.smi-spec.io``)."""
    return Trusting(f"{DEFINITIONS}/{name}", _definition, optional=True)


async def keep(
    api: Api,
    objects: Sequence[Trusting],
    identity: IdentitySource,
    health: Health,
    clock: clocks.Clock | None = None,
) -> None:
    """Keep the objects' caBundle at the identity's authorities until cancelled; tell health of what hinders."""
    clock = clock or clocks.SystemClock()
    changed = asyncio.Event()
    unsubscribe = identity.subscribe(lambda _: changed.set())
    backoff = renewal.Backoff(first=0.5, cap=15.0)
    try:
        while True:
            changed.clear()
            try:
                for found in objects:
                    await _set(api, found, base64.b64encode(identity.current().bundle_pem).decode())
            except errors.MeshwrightError as error:
                health.outage(PART, f"the API server may not trust the webhook: {error}")
                await clock.sleep(backoff.delay())
                continue
            health.set(PART, True)
            backoff.reset()
            await _either(changed, clock)
    finally:
        unsubscribe()


async def _set(api: Api, trusting: Trusting, wanted: str) -> None:
    try:
        found = await api.get(trusting.path)
    except errors.NotFound:
        if trusting.optional:
            return
        raise
    patch = trusting.patch(found, wanted)
    if patch is None:
        return
    # With the revision that was read: what somebody else changed meanwhile isn't undone (409, and tried again).
    revision = (found.get("metadata") or {}).get("resourceVersion")
    await api.merge(trusting.path, {"metadata": {"resourceVersion": revision}, **patch})
    _log.info("webhook_trusted", object=trusting.path.rpartition("/")[2])


def _admission(found: dict[str, Any], wanted: str) -> dict[str, Any] | None:
    webhooks = found.get("webhooks") or []
    if all((webhook.get("clientConfig") or {}).get("caBundle") == wanted for webhook in webhooks):
        return None
    for webhook in webhooks:
        webhook["clientConfig"] = {**(webhook.get("clientConfig") or {}), "caBundle": wanted}
    return {"webhooks": webhooks}


def _definition(found: dict[str, Any], wanted: str) -> dict[str, Any] | None:
    conversion = (found.get("spec") or {}).get("conversion") or {}
    client = (conversion.get("webhook") or {}).get("clientConfig") or {}
    ours = (client.get("service") or {}).get("path") == CONVERT
    if not ours or client.get("caBundle") == wanted:
        return None
    return {"spec": {"conversion": {"webhook": {"clientConfig": {"caBundle": wanted}}}}}


async def _either(changed: asyncio.Event, clock: clocks.Clock) -> None:
    """Wait for new authorities, or until it is time to look again."""
    tasks = [asyncio.ensure_future(changed.wait()), asyncio.ensure_future(clock.sleep(_LOOK_SECONDS))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
