"""The folder of results: one subfolder a run, with the SMP document and details of each result as Fortio has them."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from meshwright.core import errors
from meshwright.platform.perf.run import Run
from meshwright.platform.perf.smp import documents

DOCUMENT = "result.yaml"
_SLUG = re.compile(r"[^a-z0-9]+")
_LARGEST = 16 << 20  # bytes of a file that is read


@dataclass(frozen=True, slots=True)
class Stored:
    """A run as it was read: details are empty for what has none."""

    name: str
    path: Path
    measured: documents.Measured
    details: tuple[dict[str, Any], ...]


def folder(data: Path) -> Path:
    """Where results are in a data directory."""
    return data.expanduser().absolute() / "performance"


def write(data: Path, run: Run) -> Path:
    """Write a run; return the path of its document."""
    test = run.measured.test
    name = _SLUG.sub("-", (test.name if test else "").lower()).strip("-")[:40] or "test"
    base = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{name}"
    place = folder(data)
    place.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = _new(place, base)
    for number, (result, details) in enumerate(zip(run.measured.results, run.details, strict=True), start=1):
        file = target / f"details-{number}.json"
        file.write_text(json.dumps(details, indent=1) + "\n")
        result.details_uri = file.name  # beside the document, so that the folder can be moved
    document = target / DOCUMENT
    document.write_text(documents.text(documents.plain(run.measured), "yaml"))
    return document


def _new(place: Path, base: str) -> Path:
    for number in range(1, 1000):
        target = place / (base if number == 1 else f"{base}-{number}")
        try:
            target.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return target
    raise errors.Exhausted(f"{place / base}: a thousand runs of one second are there: choose another --name")


def read(data: Path, name: str) -> Stored:
    """Read a run by its folder's name in the data directory, or by the path of a folder or a file."""
    path = Path(name)
    if os.sep not in name and not path.exists():
        path = folder(data) / name
    if path.is_dir():
        path = path / DOCUMENT
    measured = documents.read_measured(_bytes(path), str(path))
    details: list[dict[str, Any]] = []
    for result in measured.results:
        beside = path.parent / Path(result.details_uri).name if result.details_uri else None
        details.append(_details(beside) if beside and beside.is_file() else {})
    title = path.parent.name if path.name == DOCUMENT else path.stem
    return Stored(title, path, measured, tuple(details))


def names(data: Path) -> list[str]:
    """Names of all runs, the newest first."""
    try:
        return sorted((entry.name for entry in folder(data).iterdir() if (entry / DOCUMENT).is_file()), reverse=True)
    except OSError:
        return []


def _details(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST)
    except OSError as error:
        raise errors.NotFound(f"{path}: {error.strerror} (meshwright perf list shows what there is)") from error
