"""What one wants to read when a test has failed: the cluster's objects, events and every container's log, in files."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.box import BoxError
from tests.kubernetes.node.cluster import Cluster


def report(cluster: Cluster) -> Path:
    """Write it beside the logs of the node's programs and return the folder."""
    folder = cluster.place.folder / "logs"
    shutil.rmtree(folder / "pods", ignore_errors=True)
    shutil.copytree(cluster.place.folder / "log" / "pods", folder / "pods", symlinks=True)
    questions = {
        "pods": ("get", "pods", "--all-namespaces", "--output=wide"),
        "described": ("describe", "pods", "--all-namespaces"),
        "events": ("get", "events", "--all-namespaces", "--sort-by=.lastTimestamp"),
    }
    for name, words in questions.items():
        try:
            (folder / f"{name}.txt").write_text(cluster.kubectl(*words))
        except BoxError as error:
            (folder / f"{name}.txt").write_text(str(error))
    return folder
