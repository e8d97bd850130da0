"""The report page: one HTML file that holds all it needs, for light and dark screens and for paper.

One decision to know: it has no script. What differs between runs is in plots and tables that a person can read, print
and search; what is in it came from files, so all of it is escaped.
"""

from __future__ import annotations

import html
import importlib.resources
from collections.abc import Iterator, Sequence

from meshwright.api.smp import smp_pb2 as smp
from meshwright.platform.perf import plot
from meshwright.platform.perf.results import Stored
from meshwright.platform.perf.smp import documents

_LATENCIES = ("min", "average", "p50", "p90", "p99", "max")


def page(runs: Sequence[Stored]) -> str:
    """Return the page for runs; their distributions are drawn together."""
    style = (importlib.resources.files(__package__) / "report.css").read_text()
    title = " · ".join(dict.fromkeys(_name(stored) for stored in runs))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)} – performance</title><style>{style}</style></head><body><main>"
        f"<header><p>Performance</p><h1>{_text(title)}</h1></header>"
        f"{''.join(_body(runs))}</main></body></html>\n"
    )


def _body(runs: Sequence[Stored]) -> Iterator[str]:
    rows = [(stored, index, result) for stored in runs for index, result in enumerate(stored.measured.results)]
    names = {(stored.name, index): _title(stored, result, len(runs)) for stored, index, result in rows}
    drawn: list[plot.Series] = []
    keys: dict[tuple[str, int], int] = {}
    for stored, index, _ in rows:
        found = plot.series(names[stored.name, index], stored.details[index])
        if found is not None:
            keys[stored.name, index] = len(drawn)
            drawn.append(found)
    yield _figures(rows, names, keys)
    if drawn:
        legend = "".join(f'<li class="s{number % 6}">{_text(one.name)}</li>' for number, one in enumerate(drawn))
        legend = f'<ul class="legend">{legend}</ul>' if len(drawn) > 1 else ""
        yield f"<section><h2>How long requests took</h2>{legend}{plot.distribution(drawn)}</section>"
        yield f"<section><h2>How long the slowest took</h2>{legend}{plot.percentiles(drawn)}</section>"
    else:
        yield "<section><p>No details are beside these results, so there is no distribution to draw.</p></section>"
    for stored in runs:
        yield from _about(stored)


def _figures(
    rows: Sequence[tuple[Stored, int, smp.PerformanceTestResult]],
    names: dict[tuple[str, int], str],
    keys: dict[tuple[str, int], int],
) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("requests/s", *_LATENCIES[:-1], "p99.9", "max", "failed", "not sent")
    )
    body = []
    for stored, index, result in rows:
        labels, latency = result.labels, result.latencies_ms
        failed = _difference(labels.get("requests"), labels.get("good"))
        cells = [
            f"{result.actual_qps:,.1f}",
            *(_ms(getattr(latency, name)) for name in _LATENCIES[:-1]),
            _ms_text(labels.get("latency_ms.p99.9")),
            _ms(latency.max),
            failed,
            labels.get("unsent", "–"),
        ]
        number = keys.get((stored.name, index))
        mark = f' class="s{number % 6}"' if number is not None and len(keys) > 1 else ""
        values = "".join(f"<td>{_text(cell)}</td>" for cell in cells)
        body.append(f"<tr><th{mark}>{_text(names[stored.name, index])}</th>{values}</tr>")
    note = "Latencies in milliseconds, counted from when a request was due."
    return (
        f'<section class="wide"><table><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        f"<p>{note}</p></section>"
    )


def _about(stored: Stored) -> Iterator[str]:
    measured = stored.measured
    yield f"<section><h2>{_text(_name(stored))}</h2>"
    if measured.notes:
        yield f'<ul class="notes">{"".join(f"<li>{_text(note)}</li>" for note in measured.notes)}</ul>'
    config = measured.mesh_config
    if config is None:
        yield "<p>No mesh was running: these are the requests alone.</p>"
    else:
        yield _table("The mesh", _mesh(config))
    if measured.environment is not None:
        yield _table("Where", _where(measured.environment))
    whole = documents.text(documents.plain(measured), "yaml")
    yield f"<details><summary>Everything, in SMP</summary><pre>{_text(whole)}</pre></details></section>"


def _mesh(config: smp.ServiceMeshConfig) -> Iterator[tuple[str, str]]:
    yield "sidecars", f"{config.sidecar.count} ({config.sidecar.cpu_mcores} mcores, {config.sidecar.mem_mb} MB)"
    yield "mutual TLS", "on" if config.mtls_enabled else "off"
    policy, plane = config.mesh_policy, config.mesh_control_plane
    enabled = "asked for each request" if config.mesh_policy_enabled else "not asked"
    yield "policy", f"{enabled}; {policy.count} mixers ({policy.cpu_mcores} mcores), {policy.rps} decisions/s"
    yield "policy cache hits", f"{policy.cache_hit_rate} %"
    yield "control plane", f"{plane.cpu_mcores} mcores, {plane.mem_mb} MB; {plane.services} services"
    yield "change to acknowledgement", f"listeners {plane.lds_latency_ms} ms, clusters {plane.cds_latency_ms} ms"
    yield "build", " · ".join(filter(None, (config.mesh_build, config.proxy_build)))


def _where(environment: smp.EnvironmentConfig) -> Iterator[tuple[str, str]]:
    for node in environment.nodes:
        yield "node", f"{node.type}, {node.cores} cores, {node.mem_mb:,} MB"
    for workload in environment.individual_workloads:
        yield workload.name, f"{workload.cpu_mcores} mcores, {workload.mem_mb} MB"
    yield "endpoint", environment.traffic_metadata.host_endpoint


def _table(caption: str, rows: Iterator[tuple[str, str]]) -> str:
    body = "".join(f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows)
    return f'<table class="facts"><caption>{caption}</caption><tbody>{body}</tbody></table>'


def _name(stored: Stored) -> str:
    test = stored.measured.test
    return (test.name if test else "") or stored.measured.results[0].labels.get("name", "") or stored.name


def _title(stored: Stored, result: smp.PerformanceTestResult, runs: int) -> str:
    several = len(stored.measured.results) > 1
    url = result.labels.get("url", "")
    return " ".join(filter(None, (stored.name if runs > 1 or not several else "", url if several or runs == 1 else "")))


def _ms(value: float) -> str:
    return f"{value:,.3f}" if value < 10 else f"{value:,.1f}"


def _ms_text(value: str | None) -> str:
    try:
        return _ms(float(value)) if value is not None else "–"
    except ValueError:
        return "–"


def _difference(one: str | None, other: str | None) -> str:
    if one is None or other is None or not one.isdecimal() or not other.isdecimal():
        return "–"
    return str(int(one) - int(other))


def _text(value: str) -> str:
    return html.escape(value)
