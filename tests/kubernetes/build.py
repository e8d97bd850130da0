"""What a node runs, built from Go modules into build/kubernetes/bin: python -m tests.kubernetes.build.

Nothing is built again whose sources, versions and compiler are the same. One process builds, others wait for it: CI
starts this beside its first tests. Needs only Python's standard library.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent
FOLDER = Path(__file__).parents[2] / "build" / "kubernetes"
BIN = FOLDER / "bin"
KEY = FOLDER / "bin.key"

NODE_PROGRAMS = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet",
)  # fmt: skip
GO_PROGRAMS = {"kube": "./kube", "coredns": "./coredns", "helm": "helm.sh/helm/v3/cmd/helm"}


class BuildError(Exception):
    """A build failed; the message says which."""


class MissingError(BuildError):
    """This machine can't build; the message says what it lacks."""


def build() -> Path:
    """Return the folder of the programs, built if they aren't there."""
    if shutil.which("go") is None:
        raise MissingError("go isn't on this machine: install Go 1.24 or newer")
    with _alone():
        key = _key()
        if KEY.exists() and KEY.read_text() == key:
            return BIN
        BIN.mkdir(parents=True, exist_ok=True)
        KEY.unlink(missing_ok=True)
        for name, package in GO_PROGRAMS.items():
            _run("go", "build", *_flags(), "-o", BIN / name, package, cwd=HERE / "go")
        for name in NODE_PROGRAMS:
            link = BIN / name
            link.unlink(missing_ok=True)
            link.symlink_to("kube")
        KEY.write_text(key)
        return BIN


def version(module: str) -> str:
    """Return the version of a Go module that go.mod requires."""
    for line in (HERE / "go" / "go.mod").read_text().splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == module:
            return words[1]
    raise BuildError(f"{module} isn't in tests/kubernetes/go/go.mod")


def _flags() -> list[str]:
    """Kubernetes refuses to be without a version: the kubelet and helm compare it."""
    release = version("k8s.io/kubernetes")
    major, minor, _ = release.removeprefix("v").split(".")
    where = "k8s.io/component-base/version"
    names = {"gitVersion": release, "gitMajor": major, "gitMinor": minor}
    return [
        "-trimpath",
        "-ldflags",
        " ".join(["-s -w", *(f"-X {where}.{name}={value}" for name, value in names.items())]),
    ]


def _key() -> str:
    digest = hashlib.sha256(repr((_flags(), GO_PROGRAMS)).encode())
    for path in sorted((HERE / "go").rglob("*")):
        if path.is_file():
            digest.update(str(path.relative_to(HERE)).encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(subprocess.run(["go", "version"], check=True, capture_output=True).stdout)
    return digest.hexdigest()


def _run(*command: str | Path, cwd: Path) -> None:
    """Run a compiler with less right to the processor than tests that run beside it."""
    done = subprocess.run(
        ["nice", "-n", "10", *map(str, command)],
        cwd=cwd,
        env={**os.environ, "CGO_ENABLED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise BuildError(f"{' '.join(map(str, command))}\n{done.stdout[-4000:]}")


@contextmanager
def _alone() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "bin.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as error:
        sys.exit(str(error))
