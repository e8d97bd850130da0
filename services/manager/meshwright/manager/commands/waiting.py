"""`meshwright wait`: for proxies to have a revision, or for something to be true of an object."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from meshwright.core import errors
from meshwright.core.config import Key
from meshwright.manager import pictures
from meshwright.manager.answers import Status
from meshwright.manager.client import Client
from meshwright.manager.commands import session

_ANSWER_SECONDS = 15.0


class Condition(StrEnum):
    """What can be waited for."""

    ACCEPTED = "Accepted"
    RESOLVED = "ResolvedRefs"
    PROGRAMMED = "Programmed"
    DELETED = "Deleted"


def wait_command(
    objects: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KIND NAME [NAME]...]", help="Objects; none: all proxies are waited for."),
    ] = None,
    revision: Annotated[
        int | None,
        typer.Option("--revision", min=0, help="Revision that all proxies must acknowledge. Default: the newest."),
    ] = None,
    condition: Annotated[
        Condition, typer.Option("--for", help="What must be true of the objects.", case_sensitive=False)
    ] = Condition.PROGRAMMED,
    namespace: session.Namespace = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=86400, help="Seconds to wait at most.")] = 30.0,
    proxies: Annotated[int, typer.Option(min=0, help="How many proxies must be connected at least.")] = 0,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
) -> None:
    """Wait until every proxy has acknowledged a revision, or until something is true of objects."""
    if objects and (len(objects) < 2 or revision is not None):
        remedy = "give a kind and names, or --revision"
        session.fail(errors.ConfigError("what to wait for?", remedy=remedy), 64)

    async def all_proxies(client: Client) -> Status:
        wanted = revision if revision is not None else (await client.status()).revision
        return await client.wait(wanted, timeout=timeout, proxies=proxies)

    if not objects:
        status = session.run(all_proxies, server, identity_folder, insecure_loopback, _ANSWER_SECONDS)
        pictures.status(status, output)
        return
    kind = session.kind(objects[0])
    keys = [Key("", kind, namespace or "", name) for name in objects[1:]]
    session.run(
        lambda client: client.wait_for(keys, condition.value, timeout=timeout),
        server,
        identity_folder,
        insecure_loopback,
        _ANSWER_SECONDS,
    )
    for name in objects[1:]:
        typer.echo(f"{kind} {name}: {condition.value}")
