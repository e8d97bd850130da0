"""`meshwright apply|get|delete|status|wait`: the configuration API from the command line.

One decision to know: without options the commands find the platform of this user's `meshwright up`: the address in
its state file, the administrator's identity in pki/admin of its data directory. Bad input ends with status 78, a
manager that can't be reached with 69, what didn't come true in time with 1.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

import typer

from meshwright.core import errors, identity, process
from meshwright.core.config import Key, read_documents
from meshwright.manager import pictures
from meshwright.manager.client import Client, Outcome
from meshwright.manager.errors import Refused
from meshwright.manager.model import kinds

T = TypeVar("T")

app = typer.Typer(no_args_is_help=True, add_completion=False)

_DEFAULT_PORT = 15012


class Output(StrEnum):
    """How something is printed."""

    TABLE = "table"
    YAML = "yaml"
    JSON = "json"


Server = Annotated[
    str | None,
    typer.Option(
        envvar="MESHWRIGHT_MANAGER",
        help="Manager's address: host:port or unix:/path. Default: the running platform's, else 127.0.0.1:15012.",
    ),
]
Identity = Annotated[
    Path | None,
    typer.Option(
        "--identity",
        envvar="MESHWRIGHT_IDENTITY",
        help="Folder with cert.pem, key.pem and ca.pem. Default: pki/admin of the data directory.",
    ),
]
Plain = Annotated[bool, typer.Option("--insecure-loopback", help="Plain text, to a manager that serves it.")]
Timeout = Annotated[float, typer.Option(min=0.1, max=86400, help="Seconds to wait for the manager's answer.")]
Files = Annotated[
    list[str] | None, typer.Option("-f", "--filename", help="File, folder, or - for standard input; may be repeated.")
]
Namespace = Annotated[str | None, typer.Option("-n", "--namespace", help="Namespace; default: default, get: all.")]
Format = Annotated[Output, typer.Option("-o", "--output", help="How to print it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Judge it without doing it.")]
Unvalidated = Annotated[bool, typer.Option("--accept-unvalidated", help="Go on although an owner can't be asked.")]


@app.command("apply")
def apply_command(
    filename: Files = None,
    namespace: Namespace = None,
    dry_run: DryRun = False,
    accept_unvalidated: Unvalidated = False,
    output: Format = Output.TABLE,
    server: Server = None,
    identity_folder: Identity = None,
    insecure_loopback: Plain = False,
    timeout: Timeout = 15.0,
) -> None:
    """Apply configuration from files or folders of YAML: all of it in one revision, or nothing."""
    if not filename:
        _fail(errors.ConfigError("nothing to apply", field="-f", remedy="name a file, a folder or - for stdin"), 64)

    async def work(client: Client) -> Outcome:
        objects = _distinct([found for name in filename or () for found in _read(name, namespace)])
        return await client.apply(objects, dry_run=dry_run, accept_unvalidated=accept_unvalidated)

    outcome = _run(work, server, identity_folder, insecure_loopback, timeout)
    pictures.outcome(outcome, output, dry_run=dry_run)


@app.command("get")
def get_command(
    kind: Annotated[str, typer.Argument(help="Kind, for example TrafficSplit; all for everything.")],
    name: Annotated[str, typer.Argument(help="Name; none: all.")] = "",
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    server: Server = None,
    identity_folder: Identity = None,
    insecure_loopback: Plain = False,
    timeout: Timeout = 15.0,
) -> None:
    """Show configuration."""
    wanted = "" if kind.lower() == "all" else _kind(kind)
    found, revision = _run(
        lambda client: client.list(wanted, name, namespace or ""), server, identity_folder, insecure_loopback, timeout
    )
    if name and not found:
        where = f" in namespace {namespace}" if namespace else ""
        _fail(errors.NotFound(f"there is no {wanted} {name}{where}: see 'meshwright get {wanted}'"), 1)
    pictures.objects(found, revision, output, single=bool(name))


@app.command("delete")
def delete_command(
    kind: Annotated[str, typer.Argument(help="Kind, for example TrafficSplit.")] = "",
    name: Annotated[str, typer.Argument(help="Name.")] = "",
    filename: Files = None,
    namespace: Namespace = None,
    ignore_missing: Annotated[bool, typer.Option("--ignore-missing", help="What isn't there is no fault.")] = False,
    dry_run: DryRun = False,
    accept_unvalidated: Unvalidated = False,
    output: Format = Output.TABLE,
    server: Server = None,
    identity_folder: Identity = None,
    insecure_loopback: Plain = False,
    timeout: Timeout = 15.0,
) -> None:
    """Delete configuration by kind and name, or what files contain: all of it in one revision, or nothing."""
    if bool(filename) == bool(kind and name):
        _fail(errors.ConfigError("what to delete?", remedy="give a kind and a name, or -f FILE"), 64)

    async def work(client: Client) -> Outcome:
        pairs = [(found.key, found.source) for given in filename or () for found in _read(given, namespace)]
        if not filename:
            pairs = [(Key("", _kind(kind), namespace or "", name), "")]
        return await client.delete(
            [key for key, _ in pairs],
            ignore_missing=ignore_missing,
            dry_run=dry_run,
            accept_unvalidated=accept_unvalidated,
            sources=[source for _, source in pairs],
        )

    outcome = _run(work, server, identity_folder, insecure_loopback, timeout)
    pictures.outcome(outcome, output, dry_run=dry_run)


@app.command("status")
def status_command(
    output: Format = Output.TABLE,
    server: Server = None,
    identity_folder: Identity = None,
    insecure_loopback: Plain = False,
    timeout: Timeout = 15.0,
) -> None:
    """Show each proxy with the revision it has acknowledged."""
    status = _run(lambda client: client.status(), server, identity_folder, insecure_loopback, timeout)
    pictures.status(status, output)


@app.command("wait")
def wait_command(
    revision: Annotated[int, typer.Option("--revision", min=0, help="Revision that all proxies must acknowledge.")],
    timeout: Annotated[float, typer.Option(min=0.1, max=86400, help="Seconds to wait at most.")] = 30.0,
    proxies: Annotated[int, typer.Option(min=0, help="How many proxies must be connected at least.")] = 0,
    output: Format = Output.TABLE,
    server: Server = None,
    identity_folder: Identity = None,
    insecure_loopback: Plain = False,
) -> None:
    """Wait until every proxy has acknowledged a revision."""
    status = _run(
        lambda client: client.wait(revision, timeout=timeout, proxies=proxies),
        server,
        identity_folder,
        insecure_loopback,
        15.0,
    )
    pictures.status(status, output)


def _run(
    work: Callable[[Client], Awaitable[T]], server: str | None, folder: Path | None, plain: bool, timeout: float
) -> T:
    async def main() -> T:
        data = _data()
        if plain:
            return await _use(work, Client(server or _found(data), None, timeout=timeout))
        place = folder or data / "pki" / "admin"
        if not (place / "cert.pem").exists():
            raise errors.ConfigError(
                f"no identity in {place}",
                field="--identity",
                remedy="start 'meshwright up', which makes one, or name a folder with cert.pem, key.pem and ca.pem",
            )
        credentials = identity.FileIdentity(place)
        credentials.load()
        trust_domain = credentials.current().trust_domain
        client = Client(server or _found(data), credentials, trust_domain=trust_domain, timeout=timeout)
        return await _use(work, client)

    try:
        return asyncio.run(main())
    except Refused as error:
        pictures.refusal(error)
        raise typer.Exit(process.EX_CONFIG) from None
    except errors.ConfigError as error:
        _fail(error, process.EX_CONFIG)
    except errors.Unavailable as error:
        _fail(error, process.EX_UNAVAILABLE)
    except errors.MeshwrightError as error:
        _fail(error, 1)


async def _use(work: Callable[[Client], Awaitable[T]], client: Client) -> T:
    async with client:
        return await work(client)


def _fail(error: errors.MeshwrightError, status: int) -> NoReturn:
    typer.echo(f"meshwright: {error}", err=True)
    raise typer.Exit(status)


def _kind(given: str) -> str:
    for kind in kinds.KINDS:
        if given.lower() in (kind.name.lower(), f"{kind.name.lower()}s"):
            return kind.name
    near = kinds.nearest("", given)
    hint = f"did you mean {near.name}?" if near else f"there are {', '.join(kind.name for kind in kinds.KINDS)}"
    _fail(errors.ConfigError(f"unknown kind {given}: {hint}"), process.EX_CONFIG)


def _read(name: str, namespace: str | None) -> list[Any]:
    found = read_documents(name if name == "-" else Path(name))
    if not found:
        raise errors.ConfigError(
            f"{name} holds no document", remedy="write at least one object with apiVersion and kind"
        )
    return [pictures.placed(document, namespace) for document in found]


def _distinct(objects: list[Any]) -> list[Any]:
    seen: dict[Key, str] = {}
    for found in objects:
        if found.key in seen:
            raise errors.ConfigError(f"{found.source}: {found.key} is already in {seen[found.key]}", remedy="keep one")
        seen[found.key] = found.source
    return objects


def _data() -> Path:
    given = os.environ.get("MESHWRIGHT_DATA")
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "meshwright"


def _found(data: Path) -> str:
    """Return the address of the manager that a running `up` told in its state file."""
    try:
        parts = json.loads((data / "run" / "state.json").read_text())["parts"]
        ports = next(part["ports"] for part in parts if part["name"] == "manager")
        return f"127.0.0.1:{next(iter(ports.values()))}"
    except (OSError, ValueError, KeyError, StopIteration):
        return f"127.0.0.1:{_DEFAULT_PORT}"
