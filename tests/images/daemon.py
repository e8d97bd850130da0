"""A Docker daemon of the tests' own, in a box: its rules for the network and its images touch nobody else's."""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path
from typing import IO

from tests import box
from tests.box import ROOT, Box

FOLDER = ROOT / "build" / "docker"
SECONDS = 900  # for a build on a busy machine


def missing() -> str | None:
    """Return why this machine can have no daemon of its own, or None."""
    return box.missing("dockerd", "docker", "containerd", "iptables")


class Daemon:
    """A daemon under way. Its images stay in the folder from run to run, as what the next build needs not do again."""

    def __init__(self, box: Box, lock: IO[str]) -> None:
        self.box, self._lock = box, lock
        self.address = f"unix://{box.folder / 'docker.sock'}"

    @classmethod
    def begin(cls, folder: Path = FOLDER) -> Daemon:
        """Start the daemon; where another process uses the folder, when that one has ended."""
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        box = Box.begin(folder)
        self = cls(box, lock)
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

    def end(self) -> None:
        """End it and all containers that it runs."""
        self.box.end()
        box.remove(self.box.folder)
        self._lock.close()

    def docker(self, *words: object, seconds: float = SECONDS) -> str:
        """Run Docker's client and return what it printed."""
        done = self._run(*words, seconds=seconds)
        if done.returncode:
            raise box.BoxError(f"docker {' '.join(map(str, words))[:200]}: {(done.stdout + done.stderr)[-3000:]}")
        return done.stdout

    def logs(self, container: str) -> str:
        """Return what a container has written, errors included."""
        done = self._run("logs", container, seconds=box.SECONDS)
        return done.stdout + done.stderr

    def _run(self, *words: object, seconds: float) -> subprocess.CompletedProcess[str]:
        command = ["docker", *map(str, words)]
        return subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=seconds)

    def environment(self) -> dict[str, str]:
        """Return the environment in which clients find this daemon."""
        # The builder that every daemon and client have: without buildx, new clients refuse the other one.
        return {**os.environ, "DOCKER_HOST": self.address, "DOCKER_BUILDKIT": "0"}
