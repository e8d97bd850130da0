"""The checks in order; each prints a line, and what failed decides how the command ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from functools import partial

from meshwright.core import citadel_identity, errors, kubernetes, logs
from meshwright.platform.verify import health, round_trip
from meshwright.platform.verify.settings import VerifySettings

PART = "admin"  # who asks: the administrator, as on one machine


async def run(settings: VerifySettings, stop: asyncio.Event) -> None:
    """Do all checks; raise Unavailable naming those that failed. A stop ends the command before the next one."""
    logs.setup(settings.part, settings.log_level)
    identity = citadel_identity.source(settings, part=PART)
    if identity is None:
        raise errors.ConfigError("nobody to ask as", field="identity", remedy="give --citadel-login or --identity")
    failed: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        with _told("identity: citadel gives one for this account's token", failed):
            await stack.enter_async_context(identity)
        if failed:
            raise errors.Unavailable("without an identity nothing else can be asked")
        api = await stack.enter_async_context(kubernetes.Api(kubernetes.in_cluster()))
        checks = {
            f"health of {part}": partial(health.ask, part, host, port, identity, settings.trust_domain)
            for part, host, port in settings.addresses()
        }
        checks["configuration: an object is judged, distributed and taken back"] = partial(
            round_trip.run, api, settings.address("manager"), identity, settings.trust_domain, settings.namespace
        )
        for name, check in checks.items():
            if stop.is_set():
                raise errors.Unavailable("stopped before the end")
            with _told(name, failed):
                async with asyncio.timeout(settings.seconds):
                    await check()
    if failed:
        raise errors.Unavailable(f"{len(failed)} failed: {'; '.join(failed)}")


@contextlib.contextmanager
def _told(name: str, failed: list[str]) -> Iterator[None]:
    """Print how the check `name` went; a failure is noted and doesn't end the others."""
    began = time.monotonic()
    try:
        yield
    except (errors.MeshwrightError, TimeoutError) as error:
        failed.append(name)
        print(f"FAILED  {name}: {str(error) or 'not in time'}", flush=True)
    else:
        print(f"passed  {name} ({time.monotonic() - began:.1f} s)", flush=True)
