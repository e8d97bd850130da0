"""`meshwright proto`: where the proto files and their descriptor set are, for clients in other languages."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(add_completion=False)

DESCRIPTORS = "meshwright.binpb"


def folder() -> Path:
    """The root of the shipped proto files, with `meshwright.binpb` beside them."""
    from meshwright.api import contract

    return Path(contract.__file__ or "").parent


@app.command()
def proto(
    export: Annotated[Path | None, typer.Option(help="Copy them into this folder, which is made.")] = None,
) -> None:
    """Print the folder of the proto files; in it meshwright.binpb, a FileDescriptorSet of them and what they import."""
    if export is None:
        typer.echo(str(folder()))
        return
    keep = shutil.ignore_patterns("__init__.py", "__pycache__")
    try:
        shutil.copytree(folder(), export, ignore=keep, dirs_exist_ok=True)
    except OSError as error:
        typer.echo(f"meshwright proto: --export: {error}", err=True)
        raise typer.Exit(64) from error
    typer.echo(str(export))
