"""How the command line prints history: tables and differences for people, YAML and JSON for programs."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from typing import Any

import yaml
from rich.table import Table

from meshwright.core.config import Key, Object
from meshwright.manager import pictures
from meshwright.manager.answers import Event, ObjectDiff, Revision

_SHOWN = 3  # changes of one revision in a table


def history(revisions: Sequence[Revision], floor: int, output: str) -> None:
    """Print revisions."""
    if output != "table":
        pictures.data({"revisions": [_revision(found) for found in revisions], "floor": floor}, output)
        return
    if not revisions:
        pictures.console().print(
            "no such change is in the history" + (f", which goes back to {floor}" if floor else "")
        )
        return
    table = Table("REVISION", "TIME", "AUTHOR", "WHAT", "MESSAGE", box=None, pad_edge=False, header_style="bold")
    for found in revisions:
        what = ", ".join(f"{key} {action}" for key, action in found.changes[:_SHOWN])
        what += f" and {found.changed - _SHOWN} more" if found.changed > _SHOWN else ""
        author = found.author.rpartition("/")[2] if found.author.startswith("spiffe://") else found.author
        table.add_row(str(found.revision), found.time, author or "-", what, found.message)
    pictures.console().print(table)


def differences(found: Sequence[ObjectDiff], older: int, newer: int, output: str) -> None:
    """Print how objects differ between two revisions."""
    if output != "table":
        changes = [
            {
                **_key(entry.key),
                "action": entry.action,
                "before": _document(entry.before),
                "after": _document(entry.after),
            }
            for entry in found
        ]
        pictures.data({"older": older, "newer": newer, "objects": changes}, output)
        return
    for entry in found:
        sys.stdout.write(unified(entry, older, newer))
    if not found:
        pictures.console().print(f"nothing differs between revisions {older} and {newer}")


def unified(entry: ObjectDiff, older: int, newer: int) -> str:
    """Return one object's unified difference, of its YAML."""
    before, after = (_yaml(side).splitlines(keepends=True) for side in (entry.before, entry.after))
    was = f"{entry.key} (revision {older})" if before else "/dev/null"
    now = f"{entry.key} (revision {newer})" if after else "/dev/null"
    return "".join(difflib.unified_diff(before, after, was, now))


def event(found: Event, output: str) -> None:
    """Print one revision as it comes; JSON is one line an event."""
    if output == "table":
        for key, after in found.changes.items():
            print(f"{found.revision}  {found.time}  {key} {'put' if after else 'deleted'}", flush=True)
        return
    plain = {
        "revision": found.revision,
        "author": found.author,
        "time": found.time,
        "message": found.message,
        "changes": [{**_key(key), "object": _document(after)} for key, after in found.changes.items()],
    }
    text = (
        json.dumps(plain, ensure_ascii=False) if output == "json" else f"---\n{yaml.safe_dump(plain, sort_keys=False)}"
    )
    print(text.rstrip("\n"), flush=True)


def _revision(found: Revision) -> dict[str, Any]:
    return {
        "revision": found.revision,
        "author": found.author,
        "time": found.time,
        "message": found.message,
        "changes": [{**_key(key), "action": action} for key, action in found.changes],
        "changed": found.changed,
    }


def _key(key: Key) -> dict[str, str]:
    return {"apiVersion": key.api_version, "kind": key.kind, "namespace": key.namespace, "name": key.name}


def _document(found: Object | None) -> dict[str, Any] | None:
    return found.document() if found else None


def _yaml(found: Object | None) -> str:
    return yaml.safe_dump(found.document(), sort_keys=False, allow_unicode=True) if found else ""
