"""Fixtures of the Check clients in other languages. Never in CI: `tox -e interop` where the toolchains are."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.compiler import plugin_pb2

sys.path.insert(0, str(Path(__file__).parents[1] / "mixer"))
sys.path.insert(0, str(Path(__file__).parents[1] / "dataplane" / "interop"))

import toolchains
from check_servers import engine_of
from rule_documents import denial, quota

from meshwright.dataplane.grpc import NativeServer
from meshwright.platform.cli import proto

HERE = Path(__file__).parent
BUILT = HERE.parents[1] / "build" / "interop"
PACKAGE = "meshwright.io/check/gen"
FILES = ("istio/mixer/v1/attributes.proto", "istio/mixer/v1/mixer.proto")


@pytest.fixture
async def address() -> AsyncIterator[str]:
    """The engine's own services, with a denial and a quota of ten; host:port."""
    engine = engine_of([*denial(), *quota(10, "60s")])
    server = NativeServer("127.0.0.1:0", None, native=[engine.services])
    try:
        yield await server.start()
    finally:
        await server.stop(0)
        engine.close()


@pytest.fixture(scope="session")
def go_client() -> Path:
    """The Go client, its stubs generated from the shipped descriptor set."""
    with _locked("check-go", "go") as folder:
        shutil.copytree(HERE / "go", folder, dirs_exist_ok=True)
        _fetch("go", "mod", "download", cwd=folder)
        _run("go", "build", "-o", "protoc-gen-go", "google.golang.org/protobuf/cmd/protoc-gen-go", cwd=folder)
        for name, content in _generated(folder / "protoc-gen-go").items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
        _run("go", "build", "-trimpath", "-o", "client", ".", cwd=folder)
        return folder / "client"


@pytest.fixture(scope="session")
def java_client() -> list[str]:
    """The Java client, which reads the shipped descriptor set; its command line."""
    jars = toolchains.java()
    with _locked("check-java", "javac") as folder:
        _run("javac", "-cp", f"{jars}/*", "-d", str(folder), str(HERE / "java" / "CheckClient.java"), cwd=folder)
    return [
        "java",
        "-cp",
        os.pathsep.join([str(folder), f"{jars}/*"]),
        "CheckClient",
        str(proto.folder() / proto.DESCRIPTORS),
    ]


def _generated(plugin: Path) -> dict[str, str]:
    """What protoc would have the plugin make: protoc's own part, parsing, was done when the set was made."""
    described = descriptor_pb2.FileDescriptorSet.FromString((proto.folder() / proto.DESCRIPTORS).read_bytes())
    request = plugin_pb2.CodeGeneratorRequest(
        file_to_generate=FILES,
        parameter=",".join(["module=meshwright.io/check", *(f"M{name}={PACKAGE}" for name in FILES)]),
        proto_file=_closure(described.file),
    )
    done = subprocess.run([plugin], input=request.SerializeToString(), capture_output=True, check=True)
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    assert not response.error, response.error
    return {file.name: file.content for file in response.file}


def _closure(files: Iterable[descriptor_pb2.FileDescriptorProto]) -> list[descriptor_pb2.FileDescriptorProto]:
    """What the files need: others have no Go package, which the plugin doesn't take."""
    by_name = {file.name: file for file in files}
    wanted, left = set[str](), [*FILES]
    while left:
        name = left.pop()
        if name not in wanted:
            wanted.add(name)
            left += by_name[name].dependency
    return [file for name, file in by_name.items() if name in wanted]


@contextmanager
def _locked(name: str, program: str) -> Iterator[Path]:
    if shutil.which(program) is None:
        pytest.skip(f"{program} isn't on this machine")
    folder = BUILT / name
    folder.mkdir(parents=True, exist_ok=True)
    with (BUILT / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def _run(*command: str | Path, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{command[0]}:\n{done.stdout}{done.stderr}"


def _fetch(*command: str, cwd: Path) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{' '.join(command)} can't fetch the dependencies: {done.stderr.strip().splitlines()[-1:]}")
