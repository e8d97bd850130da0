"""What the commands of `meshwright mixer` take: their options, and reading them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

USAGE = 64
"""Status of a command that was called wrongly."""

Given = Annotated[list[str] | None, typer.Option("-a", "--attribute", help="name=value, the type guessed.")]
Strings = Annotated[list[str] | None, typer.Option("-s", "--string", help="name=text")]
Integers = Annotated[list[str] | None, typer.Option("-i", "--int64", help="name=whole number")]
Booleans = Annotated[list[str] | None, typer.Option("-b", "--bool", help="name=true or name=false")]
Doubles = Annotated[list[str] | None, typer.Option("-d", "--double", help="name=number")]
Bytes = Annotated[list[str] | None, typer.Option("--bytes", help="name=bytes in base64")]
Addresses = Annotated[list[str] | None, typer.Option("--ip", help="name=address")]
Durations = Annotated[list[str] | None, typer.Option("--duration", help="name=duration, such as 1.5s")]
Timestamps = Annotated[list[str] | None, typer.Option("-t", "--timestamp", help="name=moment in RFC 3339")]
Maps = Annotated[list[str] | None, typer.Option("--string-map", "--stringmap", help="name=key:value,key:value")]
Quotas = Annotated[list[str] | None, typer.Option("-q", "--quota", help="name=amount of a quota to ask for")]
Wanted = Annotated[list[str], typer.Argument(metavar="NAME[=AMOUNT]...", help="Quotas; a negative amount gives back.")]
BestEffort = Annotated[bool, typer.Option("--best-effort", help="Take what is left of a quota if less than asked.")]
Deduplication = Annotated[
    str | None, typer.Option("--deduplication-id", help="The same id again is charged once. Default: new ones.")
]
Repeat = Annotated[int, typer.Option("-r", "--repeat", min=1, max=100_000_000, help="How often to do it.")]
Concurrency = Annotated[int, typer.Option("-c", "--concurrency", min=1, max=10_000, help="Calls at the same time.")]
Rate = Annotated[float | None, typer.Option(min=0.001, help="Calls a second at most. Default: no limit.")]
BatchSize = Annotated[int, typer.Option("--report-batch-size", min=1, max=10_000, help="Records of one Report.")]
Address = Annotated[str, typer.Option(envvar="MESHWRIGHT_MIXER", help="Mixer's address: host:port or unix:/path.")]
Identity = Annotated[
    Path | None,
    typer.Option(
        envvar="MESHWRIGHT_IDENTITY",
        help="Folder with cert.pem, key.pem and ca.pem. Default: pki/admin of the data directory.",
    ),
]
Plain = Annotated[bool, typer.Option("--insecure-loopback", help="Plain text, to a mixer that serves it.")]
Timeout = Annotated[float, typer.Option(min=0.001, max=600, help="Seconds to wait for each answer.")]
Output = Annotated[str, typer.Option("-o", "--output", help="table or json")]
Json = Annotated[bool, typer.Option("--json", help="The same as --output json.")]

KINDS = (None, "string", "int64", "bool", "double", "bytes", "ip", "duration", "timestamp", "string_map")
"""Of attributes, in the order of the options; None: guessed."""


def attributes(*texts: list[str] | None) -> dict[str, Any]:
    """Those of all options, in the order of `KINDS`."""
    from meshwright.core.errors import ConfigError
    from meshwright.mixer import check

    try:
        return dict(
            check.parse_attribute(text, kind) for kind, given in zip(KINDS, texts, strict=True) for text in given or ()
        )
    except ConfigError as error:
        fail(USAGE, str(error))


def quotas(texts: list[str]) -> dict[str, int]:
    """Amounts by name."""
    from meshwright.core.errors import ConfigError
    from meshwright.mixer import check

    try:
        return dict(check.parse_quota(text) for text in texts)
    except ConfigError as error:
        fail(USAGE, str(error))


def is_json(output: str, json_: bool) -> bool:
    """Whether to print JSON."""
    if output not in ("table", "json"):
        fail(USAGE, f"--output: {output!r} is unknown: use table or json")
    return json_ or output == "json"


def folder(identity: Path | None, insecure_loopback: bool) -> Path | None:
    """Where the identity is; by default where `meshwright up` puts the command line's."""
    if insecure_loopback or identity is not None:
        return None if insecure_loopback else identity
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("MESHWRIGHT_DATA") or Path(state) / "meshwright") / "pki" / "admin"


def fail(status: int, reason: str, command: str = "") -> NoReturn:
    """End the process with a reason."""
    typer.echo(f"meshwright mixer{command and ' '}{command}: {reason}", err=True)
    raise typer.Exit(status)
