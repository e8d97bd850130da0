"""`meshwright demo`: options into settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from meshwright.platform.cli.up import BasePort, LogLevel, OtlpEndpoint, TrustDomain, checked

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    data: Annotated[
        Path | None, typer.Option(help="Data directory. Default: a temporary one, removed when all went well.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End after the checks, with status 0 or 1.")] = False,
    json: Annotated[Path | None, typer.Option("--json", help="File for the results with their measurements.")] = None,
    mixers: Annotated[int, typer.Option(help="Replicas of mixer, 2 at least.")] = 2,
    base_port: BasePort = None,
    trust_domain: TrustDomain = "mesh.local",
    otlp_endpoint: OtlpEndpoint = None,
    log_level: LogLevel = "info",
) -> None:
    """Run the platform with a small application (shop, catalog, stock) and check what was promised, measuring it.

    Five checks: configuration, identity, policy, telemetry and a network service. Without --once everything stays up
    afterwards, with addresses to try.
    """
    from meshwright.platform.demo import command
    from meshwright.platform.demo.settings import DemoSettings

    settings = checked(
        DemoSettings,
        data=data or command.temporary(),
        once=once,
        report=json,
        mixers=mixers,
        base_port=base_port,
        trust_domain=trust_domain,
        otlp_endpoint=otlp_endpoint,
        log_level=log_level,
    )
    raise typer.Exit(command.run(settings, keep=data is not None))
