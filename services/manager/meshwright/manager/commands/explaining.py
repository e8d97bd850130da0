"""`meshwright explain route`: why a request goes where it goes."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from meshwright.core import errors
from meshwright.manager import pictures
from meshwright.manager.commands import session
from meshwright.manager.explain.request import Request
from meshwright.manager.explain.route import Explanation

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Say why the mesh does what it does.")


@app.callback()
def _root() -> None:
    """Say why the mesh does what it does."""


@app.command("route")
def route_command(
    host: Annotated[str, typer.Argument(help="Host as the caller names it, with or without :PORT.")],
    path: Annotated[str, typer.Argument(help="Path, with or without ?QUERY.")] = "/",
    workload: Annotated[
        str, typer.Option("--from", help="The calling workload: NAME, or NAMESPACE/NAME.", show_default=False)
    ] = "",
    header: Annotated[list[str] | None, typer.Option("--header", "-H", help="NAME: VALUE; may be repeated.")] = None,
    method: Annotated[str, typer.Option("--method", "-X", help="The request's method.")] = "GET",
    namespace: session.Namespace = None,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 15.0,
) -> None:
    """Say which route takes a request, and which condition kept each route before from taking it."""
    if not workload:
        session.fail(errors.ConfigError("who calls?", field="--from", remedy="name a workload"), 64)
    headers: dict[str, str] = {}
    for given in header or ():
        name, colon, value = given.partition(":")
        if not colon or not name.strip():
            session.fail(errors.ConfigError(f"is {given!r}", field="--header", remedy="write NAME: VALUE"), 64)
        headers[name.strip().lower()] = value.strip()
    where, _, name = workload.rpartition("/")
    request = Request(host, path, method.upper(), headers)
    found = session.run(
        lambda client: client.explain(request, name, where or namespace or "default"),
        server,
        identity_folder,
        insecure_loopback,
        timeout,
    )
    _print(found, output)


def _print(found: Explanation, output: str) -> None:
    if output != "table":
        pictures.data(
            {
                "host": found.host,
                "port": found.port,
                "steps": [
                    {"route": step.route, "taken": step.taken, "reasons": list(step.reasons)} for step in found.steps
                ],
                "answer": found.answer,
                "destinations": [
                    {"host": share.host, "port": share.port, "percent": share.percent, "detail": share.detail}
                    for share in found.shares
                ],
            },
            output,
        )
        return
    printer = pictures.console()
    printer.print(f"{found.host}:{found.port}" if found.port else found.host)
    for step in found.steps:
        mark = ("takes it: ", "green") if step.taken else ("not: ", "dim")
        printer.print(Text.assemble("  ", step.route, " ", mark, "; ".join(step.reasons)))
    printer.print(found.answer)
    for share in found.shares:
        detail = f" ({share.detail})" if share.detail else ""
        printer.print(f"  {share.percent:.3g} % {share.host}:{share.port}{detail}")
