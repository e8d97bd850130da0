"""`meshwright adapter gen`: from the proto file of a template to what an adapter in another process needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_USAGE = 64

TemplateFile = Annotated[
    Path | None, typer.Argument(help="template.proto, or the proto file of a handler service.", show_default=False)
]
DescriptorSet = Annotated[
    Path | None,
    typer.Option("--descriptor-set", help="The compiled template in its place: a FileDescriptorSet with all imports."),
]
Config = Annotated[Path | None, typer.Option("--config", help="A proto file with message Params (or its set, .binpb).")]
Name = Annotated[str, typer.Option("--name", help="The adapter's name; handlers name it as `adapter`.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder to write into.")]
Namespace = Annotated[str, typer.Option("--namespace", help="Of the documents.")]
Description = Annotated[str, typer.Option("--description", help="What the adapter is for.")]
Include = Annotated[list[Path] | None, typer.Option("--include", "-I", help="Where imported proto files are.")]
SessionBased = Annotated[bool, typer.Option("--session-based", help="Take parameters once, by CreateSession.")]
Force = Annotated[bool, typer.Option("--force", help="Replace adapter.py if it is there.")]


def gen(
    name: Name,
    template: TemplateFile = None,
    descriptor_set: DescriptorSet = None,
    config: Config = None,
    out: Out = Path(),
    namespace: Namespace = "meshwright-system",
    description: Description = "",
    include: Include = None,
    session_based: SessionBased = False,
    force: Force = False,
) -> None:
    """Write proto files, template.yaml, adapter.yaml and a server in Python for a template of your own."""
    from meshwright.mixer.remote.descriptors import DescriptorError
    from meshwright.mixer.remote.generate.project import Wanted, generate

    source = descriptor_set or template
    if source is None or (descriptor_set is not None and template is not None):
        typer.echo("give template.proto, or --descriptor-set FILE in its place", err=True)
        raise typer.Exit(_USAGE)
    try:
        files = generate(Wanted(source, config, name, namespace, description, session_based, include or []))
    except (DescriptorError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(_USAGE) from error
    for path, content in files.items():
        target = out / path
        if path == "adapter.py" and target.exists() and not force:
            typer.echo(f"{target} is there already and stays (--force replaces it)")
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.encode())
        typer.echo(f"wrote {target}")
