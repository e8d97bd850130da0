"""Clients and servers in other languages, built once into build/interop; a missing toolchain skips with its name."""

from __future__ import annotations

import asyncio
import fcntl
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILT = Path(__file__).parents[3] / "build" / "interop"
GRPC_GO = "google.golang.org/grpc/interop"
SECONDS = 60  # for one client to end


def go() -> Path:
    """Return the folder of grpc-go's `client` and `server`, and of our `cases` and `descriptors`."""
    with _locked("go", "go") as folder:
        _fetch("go", "mod", "download", cwd=HERE / "go")
        command = ["go", "build", "-trimpath", "-o", str(folder), f"{GRPC_GO}/client", f"{GRPC_GO}/server", "./..."]
        subprocess.run(command, cwd=HERE / "go", check=True)
        return folder


def node() -> Path:
    """Return the folder with node_modules and client.js."""
    with _locked("node", "node", "npm") as folder:
        for name in ("package.json", "package-lock.json", "client.js"):
            shutil.copyfile(HERE / "node" / name, folder / name)
        marker = folder / "installed"
        wanted = (folder / "package-lock.json").read_text()
        if not marker.exists() or marker.read_text() != wanted:
            _fetch("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", cwd=folder)
            marker.write_text(wanted)
        return folder


def java() -> Path:
    """Return the folder of grpc-java's interoperation tests and what they need."""
    with _locked("java", "java", "mvn") as folder:
        shutil.copyfile(HERE / "java" / "pom.xml", folder / "pom.xml")
        marker = folder / "copied"
        wanted = (folder / "pom.xml").read_text()
        if not marker.exists() or marker.read_text() != wanted:
            arguments = ["--batch-mode", "--quiet", "dependency:copy-dependencies", f"-DoutputDirectory={folder}/lib"]
            _fetch("mvn", *arguments, cwd=folder)
            marker.write_text(wanted)
        return folder / "lib"


async def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a client to its end and return what it printed; a failure shows it."""
    async with started(*command, cwd=cwd) as process:
        async with asyncio.timeout(SECONDS):
            printed, _ = await process.communicate()
        text = printed.decode(errors="replace")
        assert process.returncode == 0, f"{command[0]} ended with status {process.returncode}:\n{text}"
        return text


@asynccontextmanager
async def started(*command: str | Path, cwd: Path | None = None) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a program for the length of the context, its output and errors in one pipe."""
    words = [str(word) for word in command]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, cwd=cwd, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@contextmanager
def _locked(name: str, *programs: str) -> Iterator[Path]:
    """Make the folder of one toolchain, for one process at a time: pytest-xdist has several."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} isn't on this machine")
    folder = BUILT / name
    folder.mkdir(parents=True, exist_ok=True)
    with (BUILT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _fetch(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines() or ["nothing"]
        pytest.skip(f"{' '.join(command[:3])} can't fetch the dependencies: {said[-1]}")
