"""`meshwright perf`: options into what a test, a comparison or a report needs."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from meshwright.core import errors, process
from meshwright.platform.up.settings import default_data

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Measure performance, in SMP.")


class Output(StrEnum):
    """How something is printed."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


Data = Annotated[
    Path | None, typer.Option(envvar="MESHWRIGHT_DATA", help="Data directory: of the mesh, and where results are.")
]
Format = Annotated[Output, typer.Option("-o", "--output", help="How to print it.")]
RunName = Annotated[str, typer.Argument(help="A run of `perf list`, or the path of a folder or a file.")]


@app.command("apply")
def apply_command(
    profile: Annotated[str | None, typer.Argument(help="Name of the test; as --name.")] = None,
    filename: Annotated[
        str | None, typer.Option("-f", "--file", "--filename", help="Test in SMP, YAML or JSON; - for standard input.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the test.")] = None,
    url: Annotated[str | None, typer.Option(help="URL to load, in place of the file's.")] = None,
    qps: Annotated[int | None, typer.Option(help="Requests a second; 0: as many as come.")] = None,
    concurrent_requests: Annotated[int | None, typer.Option("-c", "--concurrent-requests", help="Connections.")] = None,
    duration: Annotated[str | None, typer.Option("-t", "--duration", help="How long: 30s, 1m30s.")] = None,
    load_generator: Annotated[str | None, typer.Option("-g", "--load-generator", help="Ours is meshwright.")] = None,
    mesh: Annotated[str | None, typer.Option(help="Type of the mesh, as SMP names it.")] = None,
    cert_path: Annotated[Path | None, typer.Option(help="PEM of the server's authority.")] = None,
    options: Annotated[str | None, typer.Option("--options", help="additional_options: warm_up=2s streams=8 …")] = None,
    internal: Annotated[
        bool | None, typer.Option("--internal/--external", help="Call as a member of the mesh.")
    ] = None,
    output: Format = Output.TABLE,
    out: Annotated[Path | None, typer.Option(help="File for the result too, .yaml or .json.")] = None,
    data: Data = None,
) -> None:
    """Carry out a performance test and write its result, with the mesh's part in it, as SMP has them."""
    from meshwright.platform.perf import command, tests

    overrides = tests.Overrides(
        name=name or profile,
        url=url,
        qps=qps,
        connections=concurrent_requests,
        duration=duration,
        load_generator=load_generator,
        mesh=mesh,
        certificate=str(cert_path) if cert_path else None,
        options=options,
        internal=internal,
    )
    try:
        test = tests.read(filename, overrides)
    except errors.MeshwrightError as error:
        typer.echo(f"meshwright perf apply: {error}", err=True)
        raise typer.Exit(process.EX_CONFIG) from None
    raise typer.Exit(command.apply(test, data or default_data(), output.value, out))


@app.command("compare")
def compare_command(one: RunName, other: RunName, output: Format = Output.TABLE, data: Data = None) -> None:
    """Show two runs side by side, with ratios."""
    from meshwright.platform.perf import command

    raise typer.Exit(command.compare(data or default_data(), one, other, output.value))


@app.command("report")
def report_command(
    names: Annotated[list[str], typer.Argument(help="Runs of `perf list`, or paths; several are drawn together.")],
    out: Annotated[Path | None, typer.Option(help="File to write. Default: report.html beside the first run.")] = None,
    data: Data = None,
) -> None:
    """Write one page that shows runs with their distributions of latencies; it needs no network."""
    from meshwright.platform.perf import command

    raise typer.Exit(command.report(data or default_data(), names, out))


@app.command("list")
def list_command(data: Data = None) -> None:
    """List the runs in the data directory."""
    from meshwright.platform.perf import command

    raise typer.Exit(command.listing(data or default_data()))


@app.command("suite")
def suite_command(
    qps: Annotated[int, typer.Option(help="Requests a second in every stage.")] = 500,
    duration: Annotated[str, typer.Option("-t", "--duration", help="How long each stage is measured.")] = "10s",
    connections: Annotated[int, typer.Option("-c", "--connections", help="Connections.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, max=20, help="Rounds of all stages; medians are shown.")] = 3,
    output: Format = Output.TABLE,
    data: Data = None,
) -> None:
    """Measure what each step costs: direct, a sidecar, with mutual TLS, with policy checks; on a mesh of its own
    where none runs."""
    from meshwright.platform.perf import plan
    from meshwright.platform.perf import suite as suites

    try:
        settings = suites.SuiteSettings(qps, plan.seconds(duration, "--duration"), connections, rounds)
    except errors.ConfigError as error:
        print(f"meshwright perf suite: {error}", file=sys.stderr)
        raise typer.Exit(process.EX_USAGE) from None
    raise typer.Exit(suites.command(settings, data, output.value))
