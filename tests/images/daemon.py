"""A Docker daemon of the tests' own, in a box: its rules for the network and its images touch nobody else's."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests import box
from tests.box import ROOT, Box

FOLDER = ROOT / "build" / "docker"
SECONDS = 900  # for a build on a busy machine


def missing() -> str | None:
    """Return why this machine can have no daemon of its own, or None."""
    return box.missing("dockerd", "docker", "containerd", "iptables")


class Daemon:
    """A daemon under way. Its images stay in the folder from run to run, as what the next build needs not do again."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self.address = f"unix://{box.folder / 'docker.sock'}"

    @classmethod
    def begin(cls, folder: Path = FOLDER, *, outlive: bool = False) -> Daemon:
        """Start the daemon; one that goes on in the folder is used as it is."""
        if going := Box.at(folder):
            return cls(going)
        box = Box.begin(folder, outlive=outlive)
        self = cls(box)
        (folder / "docker.sock").unlink(missing_ok=True)
        (folder / "daemon.json").write_text("{}")
        box.start(
            "dockerd",
            "dockerd",
            f"--config-file={folder / 'daemon.json'}",
            f"--host={self.address}",
            f"--data-root={folder / 'data'}",
            "--group=root",
        )
        box.ready("dockerd", lambda: self.docker("version"))
        return self

    @classmethod
    def end_at(cls, folder: Path = FOLDER) -> None:
        """End the daemon of a folder."""
        Box.end_at(folder)
        box.remove(folder)

    def end(self) -> None:
        """End it and all containers that it runs."""
        self.box.end()
        box.remove(self.box.folder)

    def docker(self, *words: object, seconds: float = SECONDS) -> str:
        """Run Docker's client and return what it printed."""
        program = shutil.which("docker")
        assert program is not None
        done = subprocess.run(
            [program, *map(str, words)], env=self.environment(), capture_output=True, text=True, timeout=seconds
        )
        if done.returncode:
            raise box.BoxError(f"docker {' '.join(map(str, words))[:200]}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def environment(self) -> dict[str, str]:
        """Return the environment in which clients find this daemon."""
        # The builder that every daemon and client have: without buildx, new clients refuse the other one.
        return {**os.environ, "DOCKER_HOST": self.address, "DOCKER_BUILDKIT": "0"}
