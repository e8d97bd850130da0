"""What the commands have in common: their options, the connection to a manager, and how failures end them.

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
from typing import Annotated, NoReturn, TypeVar

import typer

from meshwright.core import errors, identity, process
from meshwright.core.config import Key, Object, read_documents
from meshwright.manager import pictures
from meshwright.manager.client import Client
from meshwright.manager.errors import Refused
from meshwright.manager.model import kinds

T = TypeVar("T")

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
ShowXds = Annotated[
    bool, typer.Option("--show-xds", help="With --dry-run: also how the text of proxies' resources differs.")
]
Message = Annotated[str, typer.Option("-m", "--message", help="Why; it is kept in the history.")]
Expected = Annotated[
    int | None,
    typer.Option(
        "--expect-revision", min=0, help="Only if this is the newest revision still; else it says who was faster."
    ),
]
Wait = Annotated[
    float | None, typer.Option("--wait", min=0.1, max=86400, help="Wait so many seconds until all proxies have it.")
]
Unvalidated = Annotated[bool, typer.Option("--accept-unvalidated", help="Go on although an owner can't be asked.")]


def run(
    work: Callable[[Client], Awaitable[T]], server: str | None, folder: Path | None, plain: bool, timeout: float
) -> T:
    """Do `work` with a client of the manager that the options name; end the command where that fails."""

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
        fail(error, process.EX_CONFIG)
    except errors.Unavailable as error:
        fail(error, process.EX_UNAVAILABLE)
    except errors.MeshwrightError as error:
        fail(error, 1)


async def _use(work: Callable[[Client], Awaitable[T]], client: Client) -> T:
    async with client:
        return await work(client)


def fail(error: errors.MeshwrightError, status: int) -> NoReturn:
    """Say why, and end the command."""
    typer.echo(f"meshwright: {error}", err=True)
    raise typer.Exit(status)


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


def kind(given: str) -> str:
    """Return the kind that a person names in any case, singular or plural; end the command when there is none."""
    for known in kinds.KINDS:
        if given.lower() in (known.name.lower(), f"{known.name.lower()}s"):
            return known.name
    near = kinds.nearest("", given)
    hint = f"did you mean {near.name}?" if near else f"there are {', '.join(known.name for known in kinds.KINDS)}"
    fail(errors.ConfigError(f"unknown kind {given}: {hint}"), process.EX_CONFIG)


def read(name: str, namespace: str | None) -> list[Object]:
    """Read documents; those that name no namespace are put into `namespace`."""
    found = read_documents(name if name == "-" else Path(name))
    if not found:
        raise errors.ConfigError(
            f"{name} holds no document", remedy="write at least one object with apiVersion and kind"
        )
    return [pictures.placed(document, namespace) for document in found]


def distinct(objects: list[Object]) -> list[Object]:
    """Refuse two documents of one object."""
    seen: dict[Key, str] = {}
    for found in objects:
        if found.key in seen:
            raise errors.ConfigError(f"{found.source}: {found.key} is already in {seen[found.key]}", remedy="keep one")
        seen[found.key] = found.source
    return objects
