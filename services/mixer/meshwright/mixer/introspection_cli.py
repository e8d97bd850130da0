"""The commands `meshwright mixer explain`, `attributes` and `decisions`; they need the administrator's identity."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import typer

from meshwright.mixer import arguments, calling

Prefix = Annotated[str, typer.Argument(help="Only names that begin with this.")]


def explain_command(
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
    address: arguments.Address = "127.0.0.1:9091",
    identity: arguments.Identity = None,
    insecure_loopback: arguments.Plain = False,
    timeout: arguments.Timeout = 5.0,
    output: arguments.Output = "table",
    json_: arguments.Json = False,
) -> None:
    """Tell why a request with these attributes is decided as it is: each rule tried, each attribute read.

    Nothing is charged. Ends with status 0 when the request may pass, 1 when not.
    """
    from meshwright.api.mixer.v1 import introspection_pb2, introspection_pb2_grpc
    from meshwright.mixer import check

    given = arguments.attributes(
        attribute, string, int64, boolean, double, bytes_, ip, duration, timestamp, string_map
    )  # fmt: skip
    message = introspection_pb2.ExplainRequest(request=check.request(given, arguments.quotas(quota or [])))

    async def ask(channel: Any) -> Any:
        return await introspection_pb2_grpc.IntrospectionStub(channel).Explain(message, timeout=timeout)

    answer = calling.call("explain", address, arguments.folder(identity, insecure_loopback), ask)
    _print(answer, explained(answer), arguments.is_json(output, json_))
    raise typer.Exit(calling.REFUSED if answer.code or answer.refused else 0)


def attributes_command(
    prefix: Prefix = "",
    address: arguments.Address = "127.0.0.1:9091",
    identity: arguments.Identity = None,
    insecure_loopback: arguments.Plain = False,
    timeout: arguments.Timeout = 5.0,
    output: arguments.Output = "table",
    json_: arguments.Json = False,
) -> None:
    """Show which attributes requests and reports really carry, with types and examples; secrets are never shown."""
    from meshwright.api.mixer.v1 import introspection_pb2, introspection_pb2_grpc

    message = introspection_pb2.AttributesRequest(prefix=prefix)

    async def ask(channel: Any) -> Any:
        return await introspection_pb2_grpc.IntrospectionStub(channel).Attributes(message, timeout=timeout)

    answer = calling.call("attributes", address, arguments.folder(identity, insecure_loopback), ask)
    _print(answer, seen(answer), arguments.is_json(output, json_))


def decisions_command(
    last: Annotated[int, typer.Option(min=0, help="How many of those that are kept; 0: all.")] = 20,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Stay, and show those to come.")] = False,
    id_: Annotated[str, typer.Option("--id", help="The decision's id, as spans and metadata have it.")] = "",
    rule: Annotated[str, typer.Option(help="The rule that denied, or would: name or name.namespace.")] = "",
    code: Annotated[int | None, typer.Option(help="google.rpc.Code; 0: those that passed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Those that a dry run would have denied.")] = False,
    denied: Annotated[bool, typer.Option("--denied", help="Denials only.")] = False,
    attribute: Annotated[str, typer.Option(help="Those that read this attribute.")] = "",
    address: arguments.Address = "127.0.0.1:9091",
    identity: arguments.Identity = None,
    insecure_loopback: arguments.Plain = False,
    timeout: arguments.Timeout = 5.0,
    output: arguments.Output = "table",
    json_: arguments.Json = False,
) -> None:
    """Show the last decisions of one mixer: when, what, by which rule."""
    from meshwright.api.mixer.v1 import introspection_pb2, introspection_pb2_grpc

    message = introspection_pb2.DecisionsRequest(
        last=last, follow=follow, id=id_, rule=rule, code=code, dry_run=dry_run, denied=denied, attribute=attribute
    )
    is_json = arguments.is_json(output, json_)

    async def ask(channel: Any) -> None:
        stub = introspection_pb2_grpc.IntrospectionStub(channel)
        async for each in stub.Decisions(message, timeout=None if follow else timeout):
            typer.echo(json.dumps(_plain(each)) if is_json else decided(each))

    try:
        calling.call("decisions", address, arguments.folder(identity, insecure_loopback), ask)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def add_to(app: typer.Typer) -> None:
    """Mount the commands."""
    app.command("explain")(explain_command)
    app.command("attributes")(attributes_command)
    app.command("decisions")(decisions_command)


def explained(answer: Any) -> str:
    """An explanation as people read it."""
    from meshwright.api.mixer.v1 import introspection_pb2

    verdicts = introspection_pb2.Tried.Verdict
    lines = [f"{'denied' if answer.code else 'allowed'}     {calling.code_name(answer.code)}" + _after(answer.message)]
    if answer.rule:
        lines.append(f"by rule    {answer.rule}")
    if answer.refused:
        lines.append(f"quota      refused: {answer.refused}")
    lines.append(f"policy     revision {answer.revision or '(none)'}")
    lines += _reads("namespace", answer.namespace)
    for tried in answer.rules:
        mode = ", dry run" if tried.dry_run else ""
        reason = f": {tried.reason}" if tried.reason else ""
        told = {verdicts.MATCHED: "matches", verdicts.FALSE: "is false", verdicts.UNKNOWN: "can't be told"}
        lines.append(f"\nrule {tried.rule} {told.get(tried.verdict, 'matches, not sampled')}{mode}{reason}")
        lines += _reads("  read     ", tried.reads)
        for acted in tried.actions:
            outcome = "would be asked" if acted.asked else calling.code_name(acted.code)
            decides = "  <- decides" if acted.decides else ""
            lines.append(f"  {acted.handler} on {acted.instance}: {outcome}{_after(acted.message)}{decides}")
    for charge in answer.charges:
        window = f" in {charge.window_nanos / 1e9:g} s" if charge.window_nanos else ""
        lines.append(f"\nquota {charge.quota}: charges {charge.amount} of {charge.max_amount}{window}")
    lines += [f"request header   {each.name}: {each.value}" for each in answer.request_headers]
    lines += [f"response header  {each.name}: {each.value}" for each in answer.response_headers]
    return "\n".join(lines)


def seen(answer: Any) -> str:
    """Attributes as a table."""
    rows = [("ATTRIBUTE", "TYPE", "SEEN", "EXAMPLES")]
    for each in answer.attributes:
        name = _place(each.name, each)
        examples = "(secret)" if each.secret else ", ".join(each.examples)
        rows.append((name, "/".join(sorted(each.types)), str(sum(each.types.values())), examples))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [f"{a:{widths[0]}}  {b:{widths[1]}}  {c:>{widths[2]}}  {d}".rstrip() for a, b, c, d in rows]
    left_out = f"; {answer.left_out} values of further names were left out" if answer.left_out else ""
    return "\n".join([*lines, f"{answer.sampled} requests were looked at{left_out}"])


def decided(decision: Any) -> str:
    """One decision as a line."""
    moment = decision.time.ToDatetime().isoformat(timespec="milliseconds")
    words = [moment, decision.id, calling.code_name(decision.code)]
    if decision.rule:
        words.append(f"rule={decision.rule}")
    words += [f"dry-run={each.rule}:{calling.code_name(each.code)}" for each in decision.dry_runs]
    words.append(f"read={','.join(_place(each.attribute, each) for each in decision.reads)}")
    return " ".join(words) + _after(decision.message)


def _reads(title: str, reads: Iterable[Any]) -> Iterator[str]:
    for each in reads:
        value = f"= {json.dumps(each.value, ensure_ascii=False)}" if each.HasField("value") else "is absent"
        yield f"{title}  {_place(each.attribute, each)} {value}{' (generated)' if each.generated else ''}"


def _place(attribute: str, each: Any) -> str:
    """An attribute, or a key of one, as expressions write it."""
    return f'{attribute}["{each.key}"]' if each.HasField("key") else attribute


def _after(message: str) -> str:
    return f"  {message}" if message else ""


def _plain(message: Any) -> dict[str, Any]:
    from google.protobuf import json_format

    plain: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    return plain


def _print(message: Any, text: str, is_json: bool) -> None:
    typer.echo(json.dumps(_plain(message), indent=2) if is_json else text)
