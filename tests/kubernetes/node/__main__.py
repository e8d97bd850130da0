"""A node for trials, on this machine: python -m tests.kubernetes.node."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.box import BoxError
from tests.kubernetes.build import BuildError
from tests.kubernetes.node.cluster import Cluster, missing

USAGE = """usage: python -m tests.kubernetes.node COMMAND
  up                  bring a new node up; one that goes on is ended first
  down                end it
  kubectl WORD...     kubectl on it, as administrator
  helm WORD...        helm on it, as administrator
  load FILE...        import files of images (docker save)
  run WORD...         any program in the node's namespaces"""


def main(words: list[str]) -> int:
    """Run one command."""
    match words:
        case ["up"]:
            if reason := missing():
                print(reason, file=sys.stderr)
                return 69
            began = time.monotonic()
            cluster = Cluster.begin(outlive=True)
            print(f"up after {time.monotonic() - began:.1f} s; logs in {cluster.place.folder / 'logs'}")
            return 0
        case ["down"]:
            Cluster.end_at()
            return 0
    going = Cluster.at()
    if going is None:
        print("no node goes on: python -m tests.kubernetes.node up", file=sys.stderr)
        return 69
    command: list[object]
    match words:
        case ["kubectl", *rest]:
            command = going.kubectl_command(*rest)
        case ["helm", *rest]:
            command = going.helm_command(*rest)
        case ["run", *rest] if rest:
            command = list(rest)
        case ["load", *files] if files:
            for file in files:
                going.load(Path(file).resolve())
            return 0
        case _:
            print(USAGE, file=sys.stderr)
            return 64
    inside = going.box.command(*command)
    # nsenter would leave the folder that it was started in.
    return subprocess.run([inside[0], f"--wd={os.getcwd()}", *inside[1:]]).returncode


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (BoxError, BuildError) as error:
        sys.exit(str(error))
