"""Builds the demo top to bottom: the platform, the application, two callers, then the checks in an order that fits.

One decision to know: the identity check waits for certificates to rotate, so it runs beside the policy and network
checks; requests of its own run from the first moment to its end, and none of them may fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import time
from collections.abc import AsyncIterator

from rich.console import Console

from meshwright.core import errors
from meshwright.core.identity import workload_id
from meshwright.platform.dashboard import app as dashboard
from meshwright.platform.demo import harness, load, objects, session
from meshwright.platform.demo.application import Application
from meshwright.platform.demo.checks import configuration, identity, network, policy, telemetry
from meshwright.platform.demo.harness import Check, Result
from meshwright.platform.demo.session import CUSTOMER, MALLORY, Session
from meshwright.platform.demo.settings import DemoSettings
from meshwright.platform.demo.workloads import NAMESPACE, workloads
from meshwright.platform.up import display
from meshwright.platform.up.app import Platform, Start

_STEADY_PER_SECOND = 10.0
_START_SECONDS = 40.0
CALLERS = (CUSTOMER, MALLORY, "line")  # identities that this process takes, by registrations of its own


async def run(settings: DemoSettings, console: Console, stop: asyncio.Event) -> list[Result]:
    """Run the demo; return the results. Without `once` it stays up until `stop` is set."""
    began = time.monotonic()
    chain = workloads(settings.base_port)
    start = Start(settings, [workload.port for workload in chain])
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(display.showing(start.supervisor, console))
        platform = await stack.enter_async_context(start.run())
        console.print(start.summary(), highlight=False)
        current = await stack.enter_async_context(application(platform, Application(platform, chain)))
        console.print(f"application: healthy after {time.monotonic() - began:.1f} s")
        results = await _checks(current, console)
        seconds = round(time.monotonic() - began, 1)
        console.print(f"{harness.summary(results)}; {seconds} s from the start", highlight=False)
        if settings.report:
            harness.write(settings.report, results, healthy_after_seconds=start.healthy_after, seconds=seconds)
        if not settings.once:
            _invite(console, current)
            async with dashboard.serving(platform) as address:
                console.print(f"  dashboard: {address} (opens once)", markup=False, highlight=False, soft_wrap=True)
                await stop.wait()
    return results


@contextlib.asynccontextmanager
async def application(platform: Platform, application: Application) -> AsyncIterator[Session]:
    """Register the callers, start the services and their sidecars, and wait until the shop answers."""
    trust_domain = platform.settings.trust_domain
    for name in CALLERS:
        await application.register(name, workload_id(trust_domain, NAMESPACE, name), os.getpid())
    async with session.opened(platform, application) as current:
        # Objects first: the manager serves a proxy only when it knows the workload with that identity.
        await current.apply_file(objects.application(current.folder, platform.layout, application.workloads))
        parts = list(application.parts())
        for part in parts:
            platform.supervisor.add(part)
        await platform.supervisor.until_healthy([part.name for part in parts], _START_SECONDS)

        async def answers() -> str:
            try:
                answer = await current.shop()
            except errors.MeshwrightError as error:
                return f"the shop: {error}"
            return "" if answer.status == 200 else f"the shop: status {answer.status} {answer.body[:200]!r}"

        await harness.until(answers, _START_SECONDS)
        yield current


async def _checks(current: Session, console: Console) -> list[Result]:
    results: list[Result] = []

    async def one(name: str, promise: str, observe: object, deadline: float = 120.0) -> None:
        check = Check(name, promise, observe, deadline)  # type: ignore[arg-type]
        result = await harness.run(check)
        harness.show(console, check, result)
        results.append(result)

    watch = identity.Watch()
    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch.run(current), name="watch certificates")
        async with load.steady(current.shop, _STEADY_PER_SECOND) as steady:
            await one(
                "1 configuration",
                "a traffic split reaches every proxy and does what it says, also when changed under load",
                functools.partial(configuration.run, current),
            )
            waiting = group.create_task(
                one(
                    "2 identity",
                    "every hop is mutual TLS with rotating SPIFFE certificates; no port talks to strangers",
                    functools.partial(identity.run, current, watch, steady),
                    deadline=180.0,
                ),
                name="check 2",
            )
            await one(
                "3 policy",
                "a rule denies one caller, a quota holds over two mixers and two sidecars",
                functools.partial(policy.run, current),
            )
            await one(
                "5 network service",
                "two namespaces are connected by policy, over descriptors, and nothing is left behind",
                functools.partial(network.run, current),
            )
            await waiting
        watching.cancel()
        await one(
            "4 telemetry",
            "one request is one trace, and every record arrives once although exporter and mixers were killed",
            functools.partial(telemetry.run, current),
        )
    return sorted(results, key=lambda result: result.name)


def _invite(console: Console, current: Session) -> None:
    layout = current.platform.layout
    shop = current.workload("shop")
    console.print("\nThe mesh stays up; stop it with Ctrl-C. To try:", highlight=False)
    for line in (
        f"curl --unix-socket {shop.outbound(layout)} http://catalog/           # as the shop, through its sidecar",
        f"curl --unix-socket {shop.outbound(layout)} http://catalog/limited    # more than {policy.QUOTA}/s: 429",
        f"export MESHWRIGHT_DATA={layout.data} MESHWRIGHT_MANAGER={current.platform.ports.manager.address}",
        "meshwright status",
        f"meshwright apply -f {current.folder / 'split.yaml'}",
        f"meshwright up --status --data {layout.data}",
    ):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
