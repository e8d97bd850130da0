"""`meshwright get|status`: what is in force, and which proxies have it."""

from __future__ import annotations

from typing import Annotated

import typer

from meshwright.core import errors
from meshwright.manager import pictures
from meshwright.manager.commands import session


def get_command(
    kind: Annotated[str, typer.Argument(help="Kind, for example TrafficSplit; all for everything.")],
    name: Annotated[str, typer.Argument(help="Name; none: all.")] = "",
    namespace: session.Namespace = None,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Show configuration."""
    wanted = "" if kind.lower() == "all" else session.kind(kind)
    found, revision = session.run(
        lambda client: client.list(wanted, name, namespace or ""), server, identity_folder, insecure_loopback, timeout
    )
    if name and not found:
        where = f" in namespace {namespace}" if namespace else ""
        session.fail(errors.NotFound(f"there is no {wanted} {name}{where}: see 'meshwright get {wanted}'"), 1)
    pictures.objects(found, revision, output, single=bool(name))


def status_command(
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Show each proxy with the revision it has acknowledged."""
    status = session.run(lambda client: client.status(), server, identity_folder, insecure_loopback, timeout)
    pictures.status(status, output)
