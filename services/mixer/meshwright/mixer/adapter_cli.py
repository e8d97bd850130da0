"""The commands that `meshwright adapter` has: for authors of adapters, and for who wants to know what is installed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from meshwright.mixer.remote.cli import gen

app = typer.Typer(no_args_is_help=True, add_completion=False)

_FAULTS, _USAGE = 1, 64


@app.callback()
def _group() -> None:
    """Write adapters, and show which there are."""


@app.command("new")
def new_command(
    name: Annotated[str, typer.Argument(help="The adapter's name: a-z, 0-9 and -.")],
    template: Annotated[str, typer.Option(help="The template whose instances it takes, such as quota or logentry.")],
    output: Annotated[Path | None, typer.Option(help="The new folder. Default: NAME, here.")] = None,
) -> None:
    """Write a project with an adapter that works, its tests, and the documents to deploy it."""
    from meshwright.core.errors import ConfigError
    from meshwright.mixer import scaffold

    folder = output or Path(name)
    try:
        files = scaffold.create(folder, name, template)
    except ConfigError as error:
        _fail("new", _USAGE, str(error))
    for path in files:
        typer.echo(f"wrote {path}")
    typer.echo(f"next: cd {folder} && pip install --editable . && pytest")


app.command("gen")(gen)


@app.command("list")
def list_command(output: Annotated[str, typer.Option("-o", "--output", help="table or json")] = "table") -> None:
    """Show the adapters that this environment's mixer has: templates, and where each comes from."""
    from meshwright.mixer import adapters
    from meshwright.mixer.adapter.v1 import discover
    from meshwright.mixer.config.adapters import NATIVE

    if output not in ("table", "json"):
        _fail("list", _USAGE, f"--output: {output!r} is unknown: use table or json")
    found = discover(adapters.BUILT_IN)
    rows = [(name, sorted(takes), "engine") for name, (_, takes) in NATIVE.items()]
    for name, adapter in found.adapters.items():
        source = found.sources[name]
        origin = f"{source.distribution} {source.version}" if source.distribution else "meshwright"
        rows.append((name, sorted(adapter.templates), origin))
    rows.sort()
    if output == "json":
        listed = [{"name": name, "templates": takes, "from": origin} for name, takes, origin in rows]
        typer.echo(json.dumps({"adapters": listed, "faults": [str(fault) for fault in found.faults]}, indent=2))
    else:
        width = max(len(name) for name, _, _ in rows)
        origins = max(len(origin) for _, _, origin in rows)
        for name, takes, origin in rows:
            typer.echo(f"{name:{width}}  {origin:{origins}}  {', '.join(takes)}")
        for fault in found.faults:
            typer.echo(f"meshwright adapter list: {fault}", err=True)
    raise typer.Exit(_FAULTS if found.faults else 0)


def _fail(command: str, status: int, reason: str) -> NoReturn:
    typer.echo(f"meshwright adapter {command}: {reason}", err=True)
    raise typer.Exit(status)
