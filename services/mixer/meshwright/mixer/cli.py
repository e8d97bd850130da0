"""The commands that `meshwright mixer` has: a policy question from the command line, sent as a real Check.

Ends with status 0 when the request may pass and all its quota was granted, 1 when not.
"""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(no_args_is_help=True, add_completion=False)

_REFUSED, _USAGE, _UNAVAILABLE = 1, 64, 69


@app.callback()
def _group() -> None:
    """Ask mixer for decisions."""


Given = Annotated[list[str] | None, typer.Option("-a", "--attribute", help="name=value, the type guessed.")]
Strings = Annotated[list[str] | None, typer.Option("-s", "--string", help="name=text")]
Integers = Annotated[list[str] | None, typer.Option("-i", "--int64", help="name=whole number")]
Booleans = Annotated[list[str] | None, typer.Option("-b", "--bool", help="name=true or name=false")]
Doubles = Annotated[list[str] | None, typer.Option("-d", "--double", help="name=number")]
Addresses = Annotated[list[str] | None, typer.Option("--ip", help="name=address")]
Durations = Annotated[list[str] | None, typer.Option("--duration", help="name=duration, such as 1.5s")]
Timestamps = Annotated[list[str] | None, typer.Option("--timestamp", help="name=moment in RFC 3339")]
Maps = Annotated[list[str] | None, typer.Option("--string-map", help="name=key:value,key:value")]
Quotas = Annotated[list[str] | None, typer.Option("-q", "--quota", help="name=amount of a quota to ask for")]
BestEffort = Annotated[bool, typer.Option("--best-effort", help="Take what is left of a quota if less than asked.")]
Deduplication = Annotated[
    str | None, typer.Option("--deduplication-id", help="The same id again is charged once. Default: a new one.")
]
Address = Annotated[str, typer.Option(envvar="MESHWRIGHT_MIXER", help="Mixer's address: host:port or unix:/path.")]
Identity = Annotated[
    Path | None,
    typer.Option(
        envvar="MESHWRIGHT_IDENTITY",
        help="Folder with cert.pem, key.pem and ca.pem. Default: pki/admin of the data directory.",
    ),
]
Plain = Annotated[bool, typer.Option("--insecure-loopback", help="Plain text, to a mixer that serves it.")]
Timeout = Annotated[float, typer.Option(min=0.001, max=600, help="Seconds to wait for the answer.")]
Output = Annotated[str, typer.Option("-o", "--output", help="table or json")]


@app.command("check")
def check_command(
    attribute: Given = None,
    string: Strings = None,
    int64: Integers = None,
    boolean: Booleans = None,
    double: Doubles = None,
    ip: Addresses = None,
    duration: Durations = None,
    timestamp: Timestamps = None,
    string_map: Maps = None,
    quota: Quotas = None,
    best_effort: BestEffort = False,
    deduplication_id: Deduplication = None,
    address: Address = "127.0.0.1:9091",
    identity: Identity = None,
    insecure_loopback: Plain = False,
    timeout: Timeout = 5.0,
    output: Output = "table",
) -> None:
    """Ask whether a request with these attributes may pass, and charge its quotas."""
    from meshwright.core.errors import ConfigError
    from meshwright.mixer import check

    if output not in ("table", "json"):
        _fail(_USAGE, f"--output: {output!r} is unknown: use table or json")
    typed = {
        None: attribute, "string": string, "int64": int64, "bool": boolean, "double": double, "ip": ip,
        "duration": duration, "timestamp": timestamp, "string_map": string_map,
    }  # fmt: skip
    try:
        attributes = dict(check.parse_attribute(text, kind) for kind, texts in typed.items() for text in texts or ())
        quotas = dict(check.parse_quota(text) for text in quota or ())
    except ConfigError as error:
        _fail(_USAGE, str(error))
    message = check.request(attributes, quotas, best_effort=best_effort, deduplication_id=deduplication_id)
    folder = None if insecure_loopback else identity or _admin_identity()
    answer = asyncio.run(_ask(address, folder, message, timeout))
    typer.echo(json.dumps(answer, indent=2) if output == "json" else _table(answer))
    granted = all(answer["quotas"].get(name, {}).get("granted", 0) >= amount for name, amount in quotas.items())
    raise typer.Exit(0 if answer["code"] == 0 and (granted or best_effort) else _REFUSED)


def _admin_identity() -> Path:
    """Where `meshwright up` puts the command line's identity."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(os.environ.get("MESHWRIGHT_DATA") or Path(state) / "meshwright") / "pki" / "admin"


async def _ask(address: str, folder: Path | None, message: Any, timeout: float) -> dict[str, Any]:
    import grpc

    from meshwright.core import errors
    from meshwright.core.grpc import Channel
    from meshwright.core.identity import FileIdentity, part_id
    from meshwright.mixer import check

    try:
        source = FileIdentity(folder) if folder else None
        peer = part_id(source.current().trust_domain, "mixer") if source else None
        async with Channel(address, source, peer=peer) as channel:
            return check.describe(await check.check(channel, message, timeout))
    except errors.ConfigError as error:
        _fail(_USAGE, str(error))
    except grpc.aio.AioRpcError as error:
        away = error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        remedy = f" (is mixer running at {address}?)" if away else ""
        _fail(_UNAVAILABLE if away else _REFUSED, f"{error.code().name}: {error.details()}{remedy}")


def _fail(status: int, reason: str) -> NoReturn:
    typer.echo(f"meshwright mixer check: {reason}", err=True)
    raise typer.Exit(status)


def _table(answer: dict[str, Any]) -> str:
    import grpc

    names = {code.value[0]: code.name for code in grpc.StatusCode}
    status = names.get(answer["code"], str(answer["code"]))
    lines = [
        f"status      {status}" + (f": {answer['message']}" if answer["message"] else ""),
        f"valid for   {answer['valid_seconds']:g} s, {answer['valid_uses']} uses",
    ]
    for name, each in answer["quotas"].items():
        error = f", {each['error']}" if "error" in each else ""
        lines.append(f"quota       {name}: granted {each['granted']}, valid for {each['valid']:g} s{error}")
    lines += [f"referenced  {each['attribute']} ({each['condition']})" for each in answer["referenced"]]
    return "\n".join(lines)
