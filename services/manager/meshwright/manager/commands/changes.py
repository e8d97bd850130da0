"""`meshwright apply|delete|rollback`: all of it in one revision, or nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager import pictures
from meshwright.manager.answers import Expectation, Outcome, Preview
from meshwright.manager.client import Client
from meshwright.manager.commands import session


def apply_command(
    filename: session.Files = None,
    namespace: session.Namespace = None,
    message: session.Message = "",
    dry_run: session.DryRun = False,
    show_xds: session.ShowXds = False,
    expect_revision: session.Expected = None,
    wait: session.Wait = None,
    accept_unvalidated: session.Unvalidated = False,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Apply configuration from files or folders of YAML: all of it in one revision, or nothing."""
    if not filename:
        session.fail(
            errors.ConfigError("nothing to apply", field="-f", remedy="name a file, a folder or - for stdin"), 64
        )

    async def work(client: Client) -> Outcome:
        objects = session.distinct([found for name in filename or () for found in session.read(name, namespace)])
        outcome = await client.apply(
            objects,
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
            message=message,
            expected=Expectation(expect_revision),
            preview=_preview(dry_run=dry_run, show_xds=show_xds),
        )
        return await _awaited(client, outcome, None if dry_run else wait)

    outcome = session.run(work, server, identity_folder, insecure_loopback, timeout)
    pictures.outcome(outcome, output, dry_run=dry_run)


def delete_command(
    kind: Annotated[str, typer.Argument(help="Kind, for example TrafficSplit.")] = "",
    name: Annotated[str, typer.Argument(help="Name.")] = "",
    filename: session.Files = None,
    namespace: session.Namespace = None,
    ignore_missing: Annotated[bool, typer.Option("--ignore-missing", help="What isn't there is no fault.")] = False,
    message: session.Message = "",
    dry_run: session.DryRun = False,
    show_xds: session.ShowXds = False,
    expect_revision: session.Expected = None,
    wait: session.Wait = None,
    accept_unvalidated: session.Unvalidated = False,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Delete configuration by kind and name, or what files contain: all of it in one revision, or nothing."""
    if bool(filename) == bool(kind and name):
        session.fail(errors.ConfigError("what to delete?", remedy="give a kind and a name, or -f FILE"), 64)

    async def work(client: Client) -> Outcome:
        pairs = [(found.key, found.source) for given in filename or () for found in session.read(given, namespace)]
        if not filename:
            pairs = [(Key("", session.kind(kind), namespace or "", name), "")]
        outcome = await client.delete(
            [key for key, _ in pairs],
            ignore_missing=ignore_missing,
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
            message=message,
            expected=Expectation(expect_revision),
            preview=_preview(dry_run=dry_run, show_xds=show_xds),
            sources=[source for _, source in pairs],
        )
        return await _awaited(client, outcome, None if dry_run else wait)

    outcome = session.run(work, server, identity_folder, insecure_loopback, timeout)
    pictures.outcome(outcome, output, dry_run=dry_run)


def rollback_command(
    revision: Annotated[int, typer.Argument(min=0, help="Revision whose state is made again; see 'history'.")],
    message: session.Message = "",
    dry_run: session.DryRun = False,
    show_xds: session.ShowXds = False,
    expect_revision: session.Expected = None,
    wait: session.Wait = None,
    accept_unvalidated: session.Unvalidated = False,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Make every object what it was at a revision, in a new revision. What belongs to a cluster is refused."""

    async def work(client: Client) -> Outcome:
        outcome = await client.rollback(
            revision,
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
            message=message,
            expected=Expectation(expect_revision),
            preview=_preview(dry_run=dry_run, show_xds=show_xds),
        )
        return await _awaited(client, outcome, None if dry_run else wait)

    outcome = session.run(work, server, identity_folder, insecure_loopback, timeout)
    pictures.outcome(outcome, output, dry_run=dry_run)


async def _awaited(client: Client, outcome: Outcome, wait: float | None) -> Outcome:
    if wait is not None:
        try:
            await client.wait(outcome.revision, timeout=wait)
        except errors.DeadlineExceeded as error:
            raise errors.DeadlineExceeded(f"revision {outcome.revision} is in force; {error}") from error
    return outcome


def _preview(*, dry_run: bool, show_xds: bool) -> Preview:
    return "text" if show_xds else "names" if dry_run else "none"
