"""`meshwright version`."""

from __future__ import annotations

import importlib.metadata

import typer

app = typer.Typer(add_completion=False)


@app.command()
def version() -> None:
    """Print the version."""
    try:
        text = importlib.metadata.version("meshwright")
    except importlib.metadata.PackageNotFoundError:
        text = "not installed (a checkout on the import path)"
    typer.echo(f"meshwright {text}")
