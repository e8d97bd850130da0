"""What the command line prints: tables for people, YAML and JSON for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from meshwright.core.config import Object, from_document
from meshwright.manager.answers import Outcome, Resource, Status
from meshwright.manager.errors import Problem, Refused
from meshwright.manager.model import kinds

_COLOURS = {"created": "green", "changed": "yellow", "deleted": "red", "unchanged": "dim"}


def placed(found: Object, namespace: str | None) -> Object:
    """Put a document without a namespace into `namespace`, unless its kind lives in none."""
    kind = kinds.find(found.api_version, found.kind)
    if namespace is None or found.namespace or (kind and not kind.namespaced):
        return found
    document = found.document()
    document["metadata"]["namespace"] = namespace
    return replace(from_document(document, found.source), source=found.source)


def outcome(result: Outcome, output: str, *, dry_run: bool) -> None:
    """Print what a request did."""
    if output != "table":
        data(
            {
                "revision": result.revision,
                "dryRun": dry_run,
                "results": [
                    {"apiVersion": key.api_version, "kind": key.kind, "namespace": key.namespace, "name": key.name}
                    | {"action": action}
                    for key, action in result.results
                ],
                "warnings": [_plain(problem) for problem in result.warnings],
                "resources": [_resource(found) for found in result.resources],
                "resourcesLeftOut": result.resources_left_out,
            },
            output,
        )
        return
    printer = console()
    for key, action in result.results:
        printer.print(Text.assemble(str(key), " ", (action, _COLOURS[action])))
    _warnings(result.warnings)
    changed = any(action != "unchanged" for _, action in result.results)
    if dry_run:
        _resources(result)
        printer.print("nothing was changed (dry run)")
    else:
        printer.print(f"revision {result.revision}" + ("" if changed else " (nothing differed)"))


def _resources(result: Outcome) -> None:
    """Print what proxies would be sent."""
    printer = console()
    for found in result.resources:
        what = f"{found.type_url.rpartition('.')[2]} {found.name} "
        proxies = f" at {found.proxies} prox{'y' if found.proxies == 1 else 'ies'}"
        printer.print(Text.assemble(what, (found.action, _COLOURS[found.action]), proxies))
        if found.diff:
            printer.print(found.diff)
    if not result.resources:
        printer.print("no proxy's resources would change")
    if result.resources_left_out:
        printer.print("more resources would change than are shown")


def _resource(found: Resource) -> dict[str, Any]:
    return {
        "typeUrl": found.type_url,
        "name": found.name,
        "action": found.action,
        "proxies": found.proxies,
        "diff": found.diff,
    }


def refusal(error: Refused) -> None:
    """Print why nothing was applied."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for problem in error.problems:
        console.print(str(problem))
    console.print(f"nothing was changed: {len(error.problems)} fault{'s' if len(error.problems) > 1 else ''}")


def objects(found: Sequence[Object], revision: int, output: str, *, single: bool) -> None:
    """Print configuration objects; YAML is a stream of documents that `apply -f -` takes."""
    if output == "yaml":
        sys.stdout.write(yaml.safe_dump_all((entry.document() for entry in found), sort_keys=False))
    elif output == "json":
        documents = [entry.document() for entry in found]
        data(documents[0] if single and len(documents) == 1 else {"revision": revision, "items": documents}, output)
    elif not found:
        console().print(f"nothing found at revision {revision}")
    else:
        table = Table("KIND", "NAMESPACE", "NAME", "WHAT", box=None, pad_edge=False, header_style="bold")
        for entry in found:
            table.add_row(entry.kind, entry.namespace or "-", entry.name, _summary(entry.kind, entry.spec))
        console().print(table)


def status(found: Status, output: str) -> None:
    """Print each proxy with its acknowledged revision."""
    if output != "table":
        data(_status(found), output)
        return
    printer = console()
    if found.proxies:
        table = Table("PROXY", "STATE", "REVISION", "IDENTITY", box=None, pad_edge=False, header_style="bold")
        for proxy in sorted(found.proxies, key=lambda proxy: proxy.workload):
            late = found.revision - proxy.acknowledged_revision
            state = Text("ok", "green") if late <= 0 else Text(f"{late} behind", "yellow")
            if proxy.error:
                state = Text("refused", "red")
            table.add_row(proxy.workload, state, str(proxy.acknowledged_revision), proxy.spiffe_id or "-")
        printer.print(table)
        for proxy in found.proxies:
            if proxy.error:
                printer.print(Text(f"{proxy.workload}: {proxy.error}", "red"))
    else:
        printer.print("no proxy is connected")
    done = len(found.proxies) - len(found.behind(found.revision))
    printer.print(f"revision {found.revision}: acknowledged by {done} of {len(found.proxies)} proxies")
    for name in found.unreachable:
        printer.print(Text(f"manager {name} doesn't answer: its proxies are missing here", "yellow"))


def _status(found: Status) -> dict[str, Any]:
    return {
        "revision": found.revision,
        "proxies": [
            {
                "nodeId": proxy.node_id,
                "workload": proxy.workload,
                "spiffeId": proxy.spiffe_id,
                "acknowledgedRevision": proxy.acknowledged_revision,
                "behind": max(0, found.revision - proxy.acknowledged_revision),
                "error": proxy.error,
                "manager": proxy.manager,
                "types": [
                    {
                        "typeUrl": state.type_url,
                        "sentVersion": state.sent_version,
                        "acknowledgedVersion": state.acknowledged_version,
                        "error": state.error,
                    }
                    for state in proxy.types
                ],
            }
            for proxy in found.proxies
        ],
        "unreachable": list(found.unreachable),
    }


def _summary(kind: str, spec: Any) -> str:
    match kind:
        case "Service":
            ports = ", ".join(f"{port.get('name', 'http')} {port['port']}" for port in spec["ports"])
            return f"{ports} → {_labels(spec.get('selector', {}))}"
        case "WorkloadEntry":
            return f"{spec['address']} as {spec['serviceAccount']} ({_labels(spec.get('labels', {}))})"
        case "TrafficSplit":
            total = sum(backend["weight"] for backend in spec["backends"])
            shares = ", ".join(f"{b['service']} {100 * b['weight'] / total:.3g} %" for b in spec["backends"])
            return f"{spec['service']} → {shares}"
        case "Sidecar":
            ports = ", ".join(str(listener["port"]["number"]) for listener in spec.get("ingress", []))
            selector = spec.get("workloadSelector", {}).get("labels", {})
            return f"{_labels(selector) or 'all workloads'}; serves {ports or 'nothing'}"
        case "rule":
            return str(spec.get("match", "always"))
        case "handler" | "instance":
            return str(spec.get("compiledAdapter") or spec.get("compiledTemplate") or spec.get("adapter") or "")
    return ""


def _labels(labels: Any) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())


def _warnings(problems: Sequence[Problem]) -> None:
    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    for problem in problems:
        console.print(f"warning: {problem}", style="yellow")


def _plain(problem: Problem) -> dict[str, str]:
    return {"object": str(problem.key), "source": problem.source, "field": problem.field, "message": problem.message}


def data(value: Any, output: str) -> None:
    """Print a value for programs."""
    if output == "json":
        sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def console() -> Console:
    """Return where tables and sentences go: no line is broken, so that programs can search them."""
    return Console(soft_wrap=True, highlight=False, markup=False)
