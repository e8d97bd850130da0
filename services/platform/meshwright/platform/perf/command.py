"""What the commands `meshwright perf …` do, below their options."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from meshwright.core import errors, process
from meshwright.platform.perf import compare as comparing
from meshwright.platform.perf import mesh, plan, results, run
from meshwright.platform.perf.smp import documents


def apply(test: documents.Test, data: Path, form: str, out: Path | None) -> int:
    """Carry out a test; the result goes to stdout and into the results' folder, all else to stderr."""
    console = Console(stderr=True, soft_wrap=True)
    config = test.config
    problem = _catch(lambda: plan.planned(config), "meshwright perf apply")
    if isinstance(problem, int):
        return problem
    planned, notes = problem
    for note in (*test.notes, *notes):
        console.print(f"note: {note}", markup=False, highlight=False)
    found: list[run.Run] = []

    async def main(stop: asyncio.Event) -> None:
        running = mesh.RunningMesh.find(data)
        console.print(
            f"mesh: {running.layout.data}" if running else "mesh: none runs here; only the requests are measured",
            markup=False,
            highlight=False,
        )
        with _progress(console, planned) as (progress, task):
            counts = [0, 0]

            def advance(seconds: float, good: int, failed: int) -> None:
                counts[0] += good
                counts[1] += failed
                progress.update(task, advance=seconds, good=counts[0], failed=counts[1])

            found.append(await run.run(config, planned, running, advance, stop))

    status = process.run("meshwright perf apply", main)
    if status != process.EX_OK:
        return status
    if test.mesh is not None:
        _name_mesh(found[0].measured, test)
    path = results.write(data, found[0])
    if out is not None:
        out.write_text(documents.text(documents.plain(found[0].measured), "json" if out.suffix == ".json" else "yaml"))
    console.print(f"written: {path}", markup=False, highlight=False)
    if form == "table":
        _show(results.read(data, str(path)))
    else:
        sys.stdout.write(documents.text(documents.plain(found[0].measured), form))
    return process.EX_OK


def compare(data: Path, one: str, other: str, form: str) -> int:
    """Print two runs side by side."""
    found = _catch(
        lambda: comparing.compare(results.read(data, one), results.read(data, other)), "meshwright perf compare"
    )
    if isinstance(found, int):
        return found
    if form != "table":
        sys.stdout.write(documents.text(found.plain(), form))
        return process.EX_OK
    console = Console(soft_wrap=not sys.stdout.isatty())
    for name, rows in (*found.pairs, *((("mesh", found.mesh),) if found.mesh else ())):
        grid = Table(title=name, title_justify="left", box=None, pad_edge=False, header_style="bold")
        grid.add_column("")
        for column in (one, other, "ratio"):
            grid.add_column(Path(column).name, justify="right")
        for row in rows:
            ratio = f"{row.ratio:.2f}" if row.ratio is not None else "-"
            grid.add_row(row.what, f"{row.one:.4g}", f"{row.other:.4g}", ratio)
        console.print(grid)
    for warning in found.warnings:
        Console(stderr=True, soft_wrap=True).print(f"warning: {warning}", markup=False, highlight=False)
    return process.EX_OK


def report(data: Path, names: list[str], out: Path | None) -> int:
    """Write the report page of one or several runs; print where it is."""
    from meshwright.platform.perf import report as pages

    stored = _catch(lambda: [results.read(data, name) for name in names], "meshwright perf report")
    if isinstance(stored, int):
        return stored
    path = out or stored[0].path.parent / "report.html"
    try:
        path.write_text(pages.page(stored))
    except OSError as error:
        print(f"meshwright perf report: {path}: {error.strerror}: choose another place with --out", file=sys.stderr)
        return process.EX_CONFIG
    print(path)
    return process.EX_OK


def listing(data: Path) -> int:
    """Print the runs that there are, the newest first."""
    console = Console(soft_wrap=not sys.stdout.isatty())
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("run", "requests/s", "p50 ms", "p99 ms", "url"):
        grid.add_column(column, justify="left" if column in ("run", "url") else "right")
    for name in results.names(data):
        try:
            stored = results.read(data, name)
        except errors.MeshwrightError as error:
            grid.add_row(name, "-", "-", "-", str(error))
            continue
        for result in stored.measured.results:
            latency = result.latencies_ms
            grid.add_row(
                name,
                f"{result.actual_qps:.1f}",
                f"{latency.p50:.3g}",
                f"{latency.p99:.3g}",
                result.labels.get("url", ""),
            )
    console.print(grid)
    return process.EX_OK


def _catch(work: Any, name: str) -> Any:
    """Do what can fail on bad input; one line and a status for that."""
    try:
        return work()
    except errors.MeshwrightError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return process.EX_CONFIG if isinstance(error, errors.ConfigError) else 1


class _progress:  # noqa: N801 - used as a context only
    """A bar over the seconds of all loads, on stderr."""

    def __init__(self, console: Console, planned: list[plan.Planned]) -> None:
        clients: dict[int, float] = {}
        for one in planned:
            clients[one.client] = clients.get(one.client, 0.0) + one.load.warm_up + one.load.duration
        self._total = sum(clients.values())
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[good]} good, {task.fields[failed]} failed"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )

    def __enter__(self) -> tuple[Progress, Any]:
        """Show it."""
        self._progress.start()
        return self._progress, self._progress.add_task("load", total=self._total, good=0, failed=0)

    def __exit__(self, *_: object) -> None:
        """Take it away."""
        self._progress.stop()


def _name_mesh(measured: documents.Measured, test: documents.Test) -> None:
    """Keep what the author said of the mesh, where nothing is known better."""
    if measured.mesh_config is not None and test.mesh is not None:
        measured.mesh_config.mesh_type.type = test.mesh.type
        measured.mesh_config.mesh_type.labels.update(test.mesh.labels)
        measured.mesh_config.mesh_type.annotations.update(test.mesh.annotations)


def _show(stored: results.Stored) -> None:
    console = Console(soft_wrap=not sys.stdout.isatty())
    for result in stored.measured.results:
        grid = Table(
            title=result.labels.get("url", ""), title_justify="left", box=None, show_header=False, pad_edge=False
        )
        latency = result.latencies_ms
        grid.add_row("requests a second", f"{result.actual_qps:.1f}")
        for name in ("min", "average", "p50", "p90", "p99", "max"):
            grid.add_row(f"latency {name}", f"{getattr(latency, name):.3f} ms")
        for label, value in sorted(result.labels.items()):
            if label.startswith(("status.", "failure.")) or (label == "unsent" and value != "0"):
                grid.add_row(label.replace(".", " ", 1), value)
        console.print(grid)
    config = stored.measured.mesh_config
    if config is not None:
        plane = config.mesh_control_plane
        console.print(
            f"mesh: {config.sidecar.count} sidecars ({config.sidecar.cpu_mcores} mcores, {config.sidecar.mem_mb} MB), "
            f"mTLS {'on' if config.mtls_enabled else 'off'}, policy cache hits {config.mesh_policy.cache_hit_rate} %, "
            f"LDS {plane.lds_latency_ms} ms, CDS {plane.cds_latency_ms} ms",
            highlight=False,
        )
