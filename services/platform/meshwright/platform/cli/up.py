"""`meshwright up`: options into settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
import typer

from meshwright.core import process
from meshwright.platform.up.settings import UpSettings, default_data

app = typer.Typer(add_completion=False)

Data = Annotated[
    Path,
    typer.Option(envvar="MESHWRIGHT_DATA", help="Data directory: state, keys, sockets and logs; made when missing."),
]
BasePort = Annotated[
    int | None, typer.Option(help="First of 40 consecutive ports to use instead of the well-known ones.")
]
TrustDomain = Annotated[str, typer.Option(help="SPIFFE trust domain.")]
OtlpEndpoint = Annotated[
    str | None, typer.Option(help="Your own OTLP gRPC endpoint (http://host:port); all telemetry is sent there too.")
]
LogLevel = Annotated[str, typer.Option(help="Least severe level that the parts log.")]

S = TypeVar("S", bound=pydantic.BaseModel)


@app.command()
def up(
    data: Annotated[
        Path | None, typer.Option(envvar="MESHWRIGHT_DATA", help="Data directory; made when missing.")
    ] = None,
    mixers: Annotated[int, typer.Option(help="Replicas of mixer.")] = 1,
    base_port: BasePort = None,
    trust_domain: TrustDomain = "mesh.local",
    otlp_endpoint: OtlpEndpoint = None,
    log_level: LogLevel = "info",
    status: Annotated[bool, typer.Option("--status", help="Show the parts of the platform that runs already.")] = False,
) -> None:
    """Run the platform on this machine: etcd, NATS, manager, mixer, citadel, nsm-registry and the node's three parts.

    Ctrl-C stops everything. A part that ends is started again. A second `up` on the same directory is refused.
    """
    from meshwright.platform.up import command

    if status:
        raise typer.Exit(command.status(data or default_data()))
    settings = checked(
        UpSettings,
        data=data or default_data(),
        mixers=mixers,
        base_port=base_port,
        trust_domain=trust_domain,
        otlp_endpoint=otlp_endpoint,
        log_level=log_level,
    )
    raise typer.Exit(command.run(settings))


def checked(model: type[S], **values: Any) -> S:
    """Build settings; on bad input print one line for each fault and exit with status 64 (usage)."""
    try:
        return model(**values)
    except pydantic.ValidationError as error:
        for fault in error.errors():
            option = str(fault["loc"][0]).replace("_", "-") if fault["loc"] else "options"
            typer.echo(f"meshwright: --{option}: {fault['msg'].removeprefix('Value error, ')}", err=True)
        raise typer.Exit(process.EX_USAGE) from None
