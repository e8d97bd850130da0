"""The commands that `meshwright policy` has: what policies become, and tests of them. Neither asks a server.

Status 0: good; 1: a test failed; 78: a document is at fault.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)

_FAILED, _USAGE, _CONFIG = 1, 64, 78


@app.callback()
def _group() -> None:
    """Compile and test policies, offline."""


Files = Annotated[list[Path], typer.Argument(help="Files or folders of YAML; - for standard input.")]


@app.command("compile")
def compile_command(files: Files) -> None:
    """Show the rules, handlers and instances that policies become."""
    import yaml

    from meshwright.core.errors import ConfigError
    from meshwright.mixer.authoring.checked import check, read

    try:
        result = check(read(files))
    except ConfigError as error:
        typer.echo(f"meshwright policy compile: {error}", err=True)
        raise typer.Exit(_CONFIG) from None
    typer.echo(yaml.safe_dump_all([each.document() for each in result.made], sort_keys=False), nl=False)
    for violation in result.faults:
        typer.echo(f"meshwright policy compile: {violation}", err=True)
    raise typer.Exit(_CONFIG if result.faults else 0)


@app.command("test")
def run_command(
    files: Annotated[list[Path] | None, typer.Argument(help="Files or folders with policies and their tests.")] = None,
    min_coverage: Annotated[
        float, typer.Option(min=0, max=100, help="Per cent of the rules that must match in some case.")
    ] = 0,
    output: Annotated[str, typer.Option("-o", "--output", help="text, json or junit")] = "text",
) -> None:
    """Run tests of policies (documents of kind PolicyTest) on the real engine."""
    from meshwright.core.errors import ConfigError
    from meshwright.mixer.authoring import reporting, testing

    formats = {"text": reporting.text, "json": reporting.json_text, "junit": reporting.junit}
    if output not in formats:
        typer.echo(f"meshwright policy test: --output: {output!r} is unknown: use {', '.join(formats)}", err=True)
        raise typer.Exit(_USAGE)
    try:
        report = testing.run(files or [Path()])
    except ConfigError as error:
        typer.echo(f"meshwright policy test: {error}", err=True)
        raise typer.Exit(_CONFIG) from None
    typer.echo(formats[output](report))
    is_covered = report.coverage >= min_coverage
    if not is_covered:
        typer.echo(f"meshwright policy test: coverage {report.coverage:.0f} % is below {min_coverage:g} %", err=True)
    raise typer.Exit(_FAILED if report.failed or not is_covered else 0)
