"""`meshwright analyze`: lints files by themselves, the live mesh, or files over the live mesh.

One decision to know: the status is 1 when something of at least `--fail-on` was found, so that a pipeline stops there.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from meshwright.core import errors, process
from meshwright.manager import pictures
from meshwright.manager.analyze import analysis
from meshwright.manager.analyze.finding import Finding, Severity
from meshwright.manager.client import Client
from meshwright.manager.commands import session

_COLOURS = {Severity.ERROR: "red", Severity.WARNING: "yellow", Severity.INFO: "dim"}


class Level(StrEnum):
    """Severities, and none of them."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"
    NEVER = "never"


def analyze_command(
    filename: session.Files = None,
    live: Annotated[bool, typer.Option("--live", help="Over what is in force. Without files always.")] = False,
    namespace: session.Namespace = None,
    fail_on: Annotated[Level, typer.Option(help="End with status 1 for findings as bad as this.")] = Level.WARNING,
    as_json: Annotated[bool, typer.Option("--json", help="The same as -o json.")] = False,
    output: session.Format = session.Output.TABLE,
    server: session.Server = None,
    identity_folder: session.Identity = None,
    insecure_loopback: session.Plain = False,
    timeout: session.Timeout = 60.0,
) -> None:
    """Find what is probably wrong: names that lead nowhere, routes that nobody reaches, conflicts, identities."""

    async def work(client: Client) -> Sequence[tuple[Finding, str]]:
        objects = session.distinct([found for name in filename or () for found in session.read(name, namespace)])
        return await client.analyze(objects, namespace=namespace or "")

    found: Sequence[tuple[Finding, str]]
    if live or not filename:
        found = session.run(work, server, identity_folder, insecure_loopback, timeout)
    else:
        found = _offline(filename, namespace)
    _print(found, session.Output.JSON if as_json else output)
    if fail_on is not Level.NEVER and any(finding.severity <= Severity[fail_on.name] for finding, _ in found):
        raise typer.Exit(1)


def _offline(files: Sequence[str], namespace: str | None) -> list[tuple[Finding, str]]:
    try:
        objects = session.distinct([found for name in files for found in session.read(name, namespace)])
    except errors.ConfigError as error:
        session.fail(error, process.EX_CONFIG)
    found = analysis.offline([(each.key, each.json) for each in objects])
    sources = [each.source for each in objects]
    return [
        (finding, sources[found.places[finding.key]] if finding.key in found.places else "")
        for finding in found.findings
    ]


def _print(found: Sequence[tuple[Finding, str]], output: str) -> None:
    if output != "table":
        pictures.data({"findings": [_plain(finding, source) for finding, source in found]}, output)
        return
    printer = pictures.console()
    for finding, source in found:
        severity = (finding.severity.name.lower(), _COLOURS[finding.severity])
        place = f"{source}: " if source else ""
        field = f"{finding.field}: " if finding.field else ""
        what = f" {finding.code} {place}{finding.key}: {field}{finding.message}"
        printer.print(Text.assemble(severity, what))
        printer.print(f"    {finding.remedy}")
    counts = [(level, sum(finding.severity is level for finding, _ in found)) for level in Severity]
    said = ", ".join(f"{count} {level.name.lower()}{'s' if count > 1 else ''}" for level, count in counts if count)
    printer.print(said or "nothing found")


def _plain(finding: Finding, source: str) -> dict[str, Any]:
    key = finding.key
    return {
        "code": finding.code,
        "severity": finding.severity.name.lower(),
        "object": {
            "apiVersion": key.api_version,
            "kind": key.kind,
            "namespace": key.namespace,
            "name": key.name,
        },
        "source": source,
        "field": finding.field,
        "message": finding.message,
        "remedy": finding.remedy,
    }
