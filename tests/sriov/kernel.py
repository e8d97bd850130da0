"""The guest's kernel: Debian's own package, taken apart without being installed, and kept under build/guest."""

from __future__ import annotations

import fcntl
import lzma
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

# Not -cloud: that flavour has no igb. The suite is backports, where .ci/install gets QEMU from.
_PACKAGE = re.compile(r"linux-image-6\.12\.(\d+)\+deb12-amd64")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


class MissingError(Exception):
    """Something that this machine lacks; the message says what and how to get it."""


@dataclass(frozen=True)
class Kernel:
    """An unpacked kernel package."""

    tree: Path

    @property
    def image(self) -> Path:
        (image,) = self.tree.glob("boot/vmlinuz-*")
        return image

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {_plain(path.name.partition(".")[0]): path for path in self.tree.glob("**/kernel/**/*.ko*")}

    def modules(self, *names: str) -> dict[str, bytes]:
        """Return these modules and all that they need, unpacked, in an order in which they load."""
        loaded: dict[str, bytes] = {}

        def add(name: str) -> None:
            if name in loaded:
                return
            packed = self._files[name].read_bytes()
            module = lzma.decompress(packed) if self._files[name].suffix == ".xz" else packed
            found = _DEPENDS.search(module)
            for needed in found[1].decode().split(",") if found else ():
                if needed:
                    add(_plain(needed))
            loaded[name] = module

        for name in names:
            add(_plain(name))
        return loaded


def fetched(cache: Path) -> Kernel:
    """Return the newest 6.12 kernel of backports, downloaded at the first time."""
    cache.mkdir(parents=True, exist_ok=True)
    with open(cache / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        tree = cache / "kernel"
        if not tree.exists():
            _fetch(cache, tree)
    return Kernel(tree)


def _fetch(cache: Path, tree: Path) -> None:
    if not shutil.which("apt-get"):
        raise MissingError("no apt-get: the guest's kernel is a Debian package (linux-image-6.12, bookworm-backports)")
    known = _run("apt-cache", "pkgnames", "linux-image-6.12.").split()
    names = sorted((name for name in known if _PACKAGE.fullmatch(name)), key=lambda name: int(_PACKAGE.match(name)[1]))
    if not names:
        raise MissingError("apt knows no linux-image-6.12 (run .ci/install, which adds bookworm-backports)")
    fresh = cache / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    _run("apt-get", "-qq", "download", names[-1], cwd=fresh)
    (package,) = fresh.glob("*.deb")
    _run("dpkg-deb", "-x", str(package), str(fresh))
    package.unlink()
    fresh.rename(tree)


def _run(*command: str, cwd: Path | None = None) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        raise MissingError(f"{' '.join(command)}: {done.stderr.strip()[-500:]}")
    return done.stdout


def _plain(name: str) -> str:
    return name.replace("-", "_")
