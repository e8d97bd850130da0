"""The commands `meshwright mixer check`, `quota` and `report`: real calls of istio.mixer.v1 from the command line.

They end with status 0 when every request may pass and all its quota was granted, 1 when not.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import typer

from meshwright.mixer import arguments, calling, introspection_cli

app = typer.Typer(no_args_is_help=True, add_completion=False)
introspection_cli.add_to(app)


@app.callback()
def _group() -> None:
    """Ask mixer for decisions, and report to it."""


@app.command("check")
def check_command(
    attribute: arguments.Given = None,
    string: arguments.Strings = None,
    int64: arguments.Integers = None,
    boolean: arguments.Booleans = None,
    double: arguments.Doubles = None,
    bytes_: arguments.Bytes = None,
    ip: arguments.Addresses = None,
    duration: arguments.Durations = None,
    timestamp: arguments.Timestamps = None,
    string_map: arguments.Maps = None,
    quota: arguments.Quotas = None,
    best_effort: arguments.BestEffort = False,
    deduplication_id: arguments.Deduplication = None,
    repeat: arguments.Repeat = 1,
    concurrency: arguments.Concurrency = 1,
    rate: arguments.Rate = None,
    address: arguments.Address = "127.0.0.1:9091",
    identity: arguments.Identity = None,
    insecure_loopback: arguments.Plain = False,
    timeout: arguments.Timeout = 5.0,
    output: arguments.Output = "table",
    json_: arguments.Json = False,
) -> None:
    """Ask whether a request with these attributes may pass, and charge its quotas."""
    given = arguments.attributes(
        attribute, string, int64, boolean, double, bytes_, ip, duration, timestamp, string_map
    )  # fmt: skip
    _check(
        "check", given, arguments.quotas(quota or []), best_effort, deduplication_id,
        _Way(address, arguments.folder(identity, insecure_loopback), timeout, repeat, concurrency, rate),
        arguments.is_json(output, json_),
    )  # fmt: skip


@app.command("quota")
def quota_command(
    wanted: arguments.Wanted,
    attribute: arguments.Given = None,
    string: arguments.Strings = None,
    int64: arguments.Integers = None,
    boolean: arguments.Booleans = None,
    double: arguments.Doubles = None,
    bytes_: arguments.Bytes = None,
    ip: arguments.Addresses = None,
    duration: arguments.Durations = None,
    timestamp: arguments.Timestamps = None,
    string_map: arguments.Maps = None,
    best_effort: arguments.BestEffort = False,
    deduplication_id: arguments.Deduplication = None,
    repeat: arguments.Repeat = 1,
    concurrency: arguments.Concurrency = 1,
    rate: arguments.Rate = None,
    address: arguments.Address = "127.0.0.1:9091",
    identity: arguments.Identity = None,
    insecure_loopback: arguments.Plain = False,
    timeout: arguments.Timeout = 5.0,
    output: arguments.Output = "table",
    json_: arguments.Json = False,
) -> None:
    """Charge quotas for a request with these attributes; nothing is charged when it may not pass."""
    given = arguments.attributes(
        attribute, string, int64, boolean, double, bytes_, ip, duration, timestamp, string_map
    )  # fmt: skip
    _check(
        "quota", given, arguments.quotas(wanted), best_effort, deduplication_id,
        _Way(address, arguments.folder(identity, insecure_loopback), timeout, repeat, concurrency, rate),
        arguments.is_json(output, json_),
    )  # fmt: skip


@app.command("report")
def report_command(
    attribute: arguments.Given = None,
    string: arguments.Strings = None,
    int64: arguments.Integers = None,
    boolean: arguments.Booleans = None,
    double: arguments.Doubles = None,
    bytes_: arguments.Bytes = None,
    ip: arguments.Addresses = None,
    duration: arguments.Durations = None,
    timestamp: arguments.Timestamps = None,
    string_map: arguments.Maps = None,
    report_batch_size: arguments.BatchSize = 1,
    repeat: arguments.Repeat = 1,
    concurrency: arguments.Concurrency = 1,
    rate: arguments.Rate = None,
    address: arguments.Address = "127.0.0.1:9091",
    identity: arguments.Identity = None,
    insecure_loopback: arguments.Plain = False,
    timeout: arguments.Timeout = 5.0,
    output: arguments.Output = "table",
    json_: arguments.Json = False,
) -> None:
    """Report records with these attributes, `--repeat` batches of `--report-batch-size` each."""
    from meshwright.mixer import check

    given = arguments.attributes(
        attribute, string, int64, boolean, double, bytes_, ip, duration, timestamp, string_map
    )  # fmt: skip
    message = check.report_request(given, report_batch_size)
    is_json = arguments.is_json(output, json_)
    way = _Way(
        address,
        arguments.folder(identity, insecure_loopback),
        timeout,
        repeat,
        concurrency,
        rate,
    )

    async def call(channel: Any) -> None:
        await check.report(channel, message, timeout)

    answer = way.go("report", call)
    answer["records"] = answer["calls"] * report_batch_size
    text = f"reported    {answer['records']} records\n{_timing(answer)}"
    typer.echo(json.dumps(answer, indent=2) if is_json else text)


def _check(
    command: str,
    attributes: Mapping[str, Any],
    quotas: Mapping[str, int],
    best_effort: bool,
    deduplication_id: str | None,
    way: _Way,
    is_json: bool,
) -> None:
    from meshwright.mixer import check

    answers: list[dict[str, Any]] = []
    codes: Counter[int] = Counter()
    granted: Counter[str] = Counter()
    refused = 0

    async def call(channel: Any) -> None:
        nonlocal refused
        message = check.request(attributes, quotas, best_effort=best_effort, deduplication_id=deduplication_id)
        answer = check.describe(await check.check(channel, message, way.timeout))
        got = {name: answer["quotas"].get(name, {}).get("granted", 0) for name in quotas}
        # A release gives back what was taken, which may be less.
        is_full = best_effort or all(got[name] >= amount for name, amount in quotas.items())
        refused += answer["code"] != 0 or not is_full
        codes[answer["code"]] += 1
        granted.update(got)
        answers[:] = [answer]

    timing = way.go(command, call)
    answer = answers[0]
    if way.repeat > 1:
        answer |= {
            "repeated": timing,
            "codes": {calling.code_name(code): count for code, count in sorted(codes.items())},
            "granted": dict(granted),
        }
    if is_json:
        typer.echo(json.dumps(answer, indent=2))
    else:
        typer.echo(_table(answer, quotas))
    raise typer.Exit(calling.REFUSED if refused else 0)


class _Way:
    """How to reach mixer, and how often."""

    def __init__(
        self, address: str, folder: Path | None, timeout: float, repeat: int, concurrency: int, rate: float | None
    ) -> None:
        self.address, self.folder, self.timeout = address, folder, timeout
        self.repeat, self.concurrency, self.rate = repeat, concurrency, rate

    def go(self, command: str, call: Callable[[Any], Awaitable[None]]) -> dict[str, Any]:
        """Make the calls; a failure ends the process."""
        return calling.call(command, self.address, self.folder, lambda channel: self._repeat(channel, call))

    async def _repeat(self, channel: Any, call: Callable[[Any], Awaitable[None]]) -> dict[str, Any]:
        from meshwright.mixer import repetition

        outcome = await repetition.repeat(
            lambda: call(channel), times=self.repeat, concurrency=self.concurrency, rate=self.rate
        )
        return outcome.describe()


def _table(answer: dict[str, Any], quotas: Mapping[str, int]) -> str:
    lines = [
        f"status      {calling.code_name(answer['code'])}" + (f": {answer['message']}" if answer["message"] else ""),
        f"valid for   {answer['valid_seconds']:g} s, {answer['valid_uses']} uses",
        *(f"referenced  {each['attribute']} ({each['condition']})" for each in answer["referenced"]),
    ]
    if answer["quotas"]:
        width = max(5, *map(len, answer["quotas"]))
        lines += ["", f"{'QUOTA':{width}}  {'ASKED':>8}  {'GRANTED':>8}  VALID FOR"]
        for name, each in answer["quotas"].items():
            error = f"  {each['error']}" if "error" in each else ""
            lines.append(f"{name:{width}}  {quotas.get(name, 0):>8}  {each['granted']:>8}  {each['valid']:g} s{error}")
    if repeated := answer.get("repeated"):
        codes = ", ".join(f"{count} × {code}" for code, count in answer["codes"].items())
        lines += ["", f"answers     {codes}"]
        lines += [f"granted     {name}: {amount} in all" for name, amount in answer["granted"].items()]
        lines.append(_timing(repeated))
    return "\n".join(lines)


def _timing(timing: dict[str, Any]) -> str:
    spread = ", ".join(f"{name} {value:g}" for name, value in timing["milliseconds"].items())
    rate = f"{timing['calls_per_second']:g} a second"
    return f"calls       {timing['calls']} in {timing['seconds']:g} s, {rate}\nms          {spread}"
