"""The manager keeps the API server's trust in its webhook, and touches nothing else of the object."""

from __future__ import annotations

import asyncio
import base64
import contextlib
from pathlib import Path
from typing import Any

from envoys import eventually

import kube_api
from meshwright.core.clock import SystemClock
from meshwright.core.health import Health, State
from meshwright.core.identity import StaticIdentity
from meshwright.core.kubernetes import Api
from meshwright.manager.inject import trust
from pki import Pki

NAME = "meshwright-injection"
DEFINITIONS = ("trafficsplits.split.smi-spec.io", "tcproutes.specs.smi-spec.io", "traffictargets.access.smi-spec.io")


def configuration() -> dict[str, Any]:
    client = {"service": {"name": "meshwright-manager", "namespace": "meshwright-system", "path": "/inject"}}
    webhooks = [{"name": "injection.meshwright.io", "failurePolicy": "Fail", "clientConfig": client}]
    return {"metadata": {"name": NAME}, "webhooks": webhooks}


def definition(name: str, path: str) -> dict[str, Any]:
    client = {"service": {"name": "meshwright-manager", "namespace": "meshwright-system", "path": path}}
    conversion = {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}
    return {"metadata": {"name": name}, "spec": {"conversion": conversion}}


def client_of(found: dict[str, Any]) -> dict[str, Any]:
    client: dict[str, Any] = found["spec"]["conversion"]["webhook"]["clientConfig"]
    return client


async def test_the_bundle_follows_the_authorities(pki: Pki, tmp_path: Path) -> None:
    """At the start, when it rotates, and after somebody took the object away and put it back."""
    identity, health = StaticIdentity(pki.part("manager")), Health(trust.PART)
    async with kube_api.serving(tmp_path) as server, Api(server.cluster()) as api:
        keeping = asyncio.create_task(
            trust.keep(api, [trust.admission(NAME), *map(trust.definition, DEFINITIONS)], identity, health, Hasty())
        )
        try:
            await eventually(lambda: health.conditions()[trust.PART].state is not State.OK, "an outage without object")
            split, foreign, _missing = DEFINITIONS
            await api.create(trust.DEFINITIONS, definition(split, "/convert"))
            await api.create(trust.DEFINITIONS, definition(foreign, "/somebody-elses"))
            await api.create(trust.PATH, configuration())
            await eventually(lambda: trusted(api, pki), "trust in the first authority")
            assert (await read(api))["webhooks"][0]["failurePolicy"] == "Fail"

            async def converted_by(authority: Pki) -> bool:
                client = client_of(await api.get(f"{trust.DEFINITIONS}/{split}"))
                return client.get("caBundle") == base64.b64encode(authority.bundle_pem).decode()

            await eventually(lambda: converted_by(pki), "trust in conversion")
            assert "caBundle" not in client_of(await api.get(f"{trust.DEFINITIONS}/{foreign}"))
            other = Pki()
            identity.replace(other.part("manager"))
            await eventually(lambda: trusted(api, other), "trust in the next authority")
            await eventually(lambda: converted_by(other), "trust in conversion by the next authority")
            await api.merge(f"{trust.PATH}/{NAME}", {"webhooks": configuration()["webhooks"]})
            await eventually(lambda: trusted(api, other), "trust after an upgrade of the chart")
            await eventually(lambda: health.conditions()[trust.PART].state is State.OK, "health")
        finally:
            keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeping


class Hasty(SystemClock):
    """Time runs a thousand times faster."""

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 1000)


async def read(api: Api) -> dict[str, Any]:
    return await api.get(f"{trust.PATH}/{NAME}")


async def trusted(api: Api, pki: Pki) -> bool:
    given = [webhook["clientConfig"].get("caBundle") for webhook in (await read(api))["webhooks"]]
    return given == [base64.b64encode(pki.bundle_pem).decode()]
