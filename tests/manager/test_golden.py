"""Translators: each `NAME.in.yaml` gives exactly the resources of `NAME.out.yaml`.

The name says which type is shown (`cluster-…`, `endpoint-…`, `listener-…`, `route-…`).
`pytest tests/manager --update-golden` writes the files anew; read the difference before committing it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from meshes import World, message

FOLDER = Path(__file__).parent / "golden"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))


@pytest.mark.parametrize("case", CASES)
def test_translation(case: str, pytestconfig: pytest.Config) -> None:
    """A mesh always gives the same resources."""
    shown = yaml.safe_dump(_resources(case), sort_keys=False, width=120)
    expected = FOLDER / f"{case}.out.yaml"
    if pytestconfig.getoption("--update-golden"):
        expected.write_text(shown)
    assert shown == expected.read_text()


def _resources(case: str) -> dict[str, Any]:
    world = World((FOLDER / f"{case}.in.yaml").read_text())
    shown: dict[str, Any] = {}
    for area in world.mesh.areas.values():
        for workload in sorted(area.workloads):
            view = world.snapshot.view(area.namespace, workload)
            assert view is not None
            match case.split("-", 1)[0]:
                case "cluster":
                    found = [*view.shared.by_name.values(), *view.own_clusters.values()]
                case "endpoint":
                    found = [view.endpoint(name) for name in view.shared.by_name]
                case "listener":
                    found = list(view.listeners.values())
                case _:
                    found = [view.route(name) for name in sorted(view.route_names)]
            shown |= {f"{workload}.{area.namespace}": {r.name: message(r) for r in found if r}} if found else {}
    return shown
