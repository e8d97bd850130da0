"""The demo's configuration: documents of this package filled with this run's ports and sockets.

The filled files stay in the data directory (demo/*.yaml), to look at and to apply again by hand.
"""

from __future__ import annotations

import importlib.resources
import string
from pathlib import Path

from meshwright.platform.demo.workloads import Workload
from meshwright.platform.up.layout import Layout


def template(name: str) -> string.Template:
    """Return a document of this package, unfilled."""
    return string.Template(importlib.resources.files(__package__).joinpath("objects", name).read_text())


def fill(folder: Path, name: str, **values: object) -> Path:
    """Fill one document and return the file."""
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / name
    path.write_text(template(name).substitute(values))
    return path


def application(folder: Path, layout: Layout, workloads: tuple[Workload, ...], *, outage: str = "deny") -> Path:
    """Write the namespace, the services and every workload into one file.

    `outage` (allow or deny) says what the sidecars do with requests while no mixer answers.
    """
    documents = [template("application.yaml").substitute(outage=outage)]
    documents += [
        template("workload.yaml").substitute(
            name=workload.name,
            app=workload.app,
            version=workload.version,
            port=workload.port.number,
            inbound=workload.inbound(layout),
            outbound=workload.outbound(layout),
        )
        for workload in workloads
    ]
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / "application.yaml"
    path.write_text("---\n".join(documents))
    return path
