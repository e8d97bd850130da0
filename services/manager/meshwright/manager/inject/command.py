"""`meshwright inject`: puts the sidecar into files, with the webhook's own code, for clusters without the webhook."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Annotated

import typer
import yaml

from meshwright.core import errors, process
from meshwright.core.config import read_documents
from meshwright.manager.inject.manifests import inject_manifest
from meshwright.manager.inject.options import Options

app = typer.Typer(add_completion=False)


@app.command("inject")
def inject_command(
    filename: Annotated[
        list[str], typer.Option("-f", "--filename", help="File, folder, or - for standard input; may be repeated.")
    ],
    image: Annotated[str, typer.Option(help="Image of the sidecar. Default: meshwright/sidecar of this version.")] = "",
    pull_policy: Annotated[str, typer.Option(help="IfNotPresent, Always or Never.")] = "IfNotPresent",
    trust_domain: Annotated[str, typer.Option(help="SPIFFE trust domain of the mesh.")] = "mesh.local",
    platform_namespace: Annotated[str, typer.Option(help="Where the platform's parts are.")] = "meshwright-system",
) -> None:
    """Print Kubernetes objects with sidecars in their pods; apply them with kubectl."""
    options = Options(image or default_image(), pull_policy, trust_domain, platform_namespace)
    try:
        found = [document for name in filename for document in read_documents(name if name == "-" else Path(name))]
        made = []
        for document in found:
            try:
                made.append(inject_manifest(document.document(), options))
            except errors.ConfigError as error:
                raise errors.ConfigError(f"{document.source}: {document.key}: {error}") from error
    except errors.ConfigError as error:
        typer.echo(f"meshwright: {error}", err=True)
        raise typer.Exit(process.EX_CONFIG) from None
    typer.echo(yaml.safe_dump_all(made, sort_keys=False, width=120), nl=False)


def default_image() -> str:
    """Return the sidecar's image of this version."""
    try:
        version = importlib.metadata.version("meshwright")
    except importlib.metadata.PackageNotFoundError:
        version = "latest"
    return f"meshwright/sidecar:{version}"
