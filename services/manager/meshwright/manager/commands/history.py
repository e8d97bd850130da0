"""`meshwright history|diff|watch`: who changed what and when, and what changes now."""

from __future__ import annotations

import contextlib
from typing import Annotated

import typer

from meshwright.manager import chronicles
from meshwright.manager.client import Client
from meshwright.manager.commands import session


def history_command(
    kind: Annotated[str, typer.Argument(help="Kind, for example TrafficSplit; none: of everything.")] = "",
    name: Annotated[str, typer.Argument(help="Name; none: all.")] = "",
    namespace: session.Namespace = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many revisions at most.")] = 50,
    before: Annotated[int, typer.Option(min=0, help="Only revisions older than this one; 0: all.")] = 0,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Show revisions, the newest first: who changed what, when and why."""
    wanted = session.kind(kind) if kind else ""
    found, floor = session.run(
        lambda client: client.history(wanted, name, namespace or "", before=before, limit=limit),
        server,
        identity_folder,
        insecure_loopback,
        timeout,
    )
    chronicles.history(found, floor, output)


def diff_command(
    older: Annotated[int, typer.Argument(min=0, help="Revision.", metavar="REVISION")],
    newer: Annotated[
        int | None,
        typer.Argument(min=0, help="Revision it is compared with. Default: the newest.", metavar="[REVISION]"),
    ] = None,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Show how objects differ between two revisions, as a unified difference of their YAML."""
    found, compared = session.run(
        lambda client: client.diff(older, newer), server, identity_folder, insecure_loopback, timeout
    )
    chronicles.differences(found, older, compared, output)


def watch_command(
    kind: Annotated[str, typer.Argument(help="Kind, for example TrafficSplit; none: everything.")] = "",
    name: Annotated[str, typer.Argument(help="Name; none: all.")] = "",
    namespace: session.Namespace = None,
    after: Annotated[
        int | None, typer.Option(min=0, help="Begin with what changed after this revision. Default: the newest.")
    ] = None,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Show each change as it comes, until it is interrupted."""
    wanted = session.kind(kind) if kind else ""

    async def work(client: Client) -> None:
        async with contextlib.aclosing(
            client.watch(after, kind=wanted, name=name, namespace=namespace or "")
        ) as events:
            async for event in events:
                chronicles.event(event, output)

    session.run(work, server, identity_folder, insecure_loopback, timeout)
