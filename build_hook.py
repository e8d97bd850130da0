"""Build what the wheel needs beyond Python files: protobuf stubs and the Rust extension.

One decision to know: nothing generated is in git, and nothing of a third party is copied. Envoy's API comes from the
descriptors inside `xds-protos`, etcd's from those inside `etcd3`, both of which exist in the build environment only.
For work in a checkout: `python build_hook.py stubs` and `… native` do one half each, `… lock` writes Cargo.lock from
the pins in git, `… pins` takes the versions of Cargo.lock into git.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2
from hatchling.builders.hooks.plugin.interface import BuildHookInterface

API = "meshwright.api"
FOREIGN = ("google/", "opentelemetry/")  # their own distributions carry these modules
NOBODYS = "google/api/expr/"  # but for these, which Envoy's RBAC imports
EXTENSION = "_native.abi3.so"
REGISTRY = 'source = "registry"'  # how Cargo.pins says where a crate comes from


class BuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Hatchling's hook: runs for wheels and for editable installs."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Generate stubs and build the extension, and hand both to the wheel."""
        root = Path(self.root)
        generated = stubs(root)
        if version != "editable":
            build_data["force_include"][str(generated / "meshwright")] = "meshwright"
        if os.environ.get("MESHWRIGHT_NATIVE") == "0":  # e.g. a type check, which needs only the stubs
            return
        tag, library = native(root)
        if version == "editable":
            shutil.copy2(library, root / "dataplane/python/meshwright/dataplane" / EXTENSION)
        else:
            build_data["force_include"][str(library)] = f"meshwright/dataplane/{EXTENSION}"
        build_data["pure_python"] = False
        build_data["tag"] = tag


def stubs(root: Path) -> Path:
    """Write `meshwright.api` under build/gen and return that folder; readers see the old one or the new one, whole."""
    protos, generated = root / "proto", root / "build" / "gen"
    generated.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=generated.parent) as scratch:
        out = Path(scratch) / "gen" / Path(*API.split("."))
        out.mkdir(parents=True)
        compile_stubs(protos, out, Path(scratch) / "third-party.bin")
        previous = Path(scratch) / "previous"
        if generated.exists():
            generated.rename(previous)
        (Path(scratch) / "gen").rename(generated)
    return generated


def compile_stubs(protos: Path, out: Path, bundle: Path) -> None:
    """Run protoc over our own files and the third-party descriptors, and move every import under `meshwright.api`."""
    own = sorted(str(path.relative_to(protos)) for path in protos.rglob("*.proto"))
    third = [*xds_descriptors((protos / "xds.txt").read_text().split()), *etcd_descriptors()]
    bundle.write_bytes(descriptor_pb2.FileDescriptorSet(file=third).SerializeToString())
    names = [file.name for file in third if file.name.startswith(NOBODYS) or not file.name.startswith(FOREIGN)]
    services = [file.name for file in third if file.service and file.name in names]
    # The bundle as well, for our imports of google/rpc, whose files no package of the build environment carries.
    outs = (f"--python_out={out}", f"--pyi_out={out}", f"--grpc_python_out={out}")
    protoc(f"-I{protos}", f"--descriptor_set_in={bundle}", *outs, *own)
    protoc(f"--descriptor_set_in={bundle}", f"--python_out={out}", f"--pyi_out={out}", *names)
    protoc(f"--descriptor_set_in={bundle}", f"--grpc_python_out={out}", *services)
    # The public contract, for clients in other languages: our files, and one set with all that they import.
    contract = out / "contract"
    for name in own:
        (contract / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(protos / name, contract / name)
    (contract / "__init__.py").write_text('"""The proto files, and a FileDescriptorSet of them: meshwright.binpb."""\n')
    whole = f"--descriptor_set_out={contract / 'meshwright.binpb'}"
    protoc(f"-I{protos}", f"--descriptor_set_in={bundle}", "--include_imports", whole, *own)
    # Our own packages are named meshwright.*; without this they would land in meshwright.api.meshwright.*.
    for path in (out / "meshwright").iterdir():
        path.rename(out / path.name)
    (out / "meshwright").rmdir()
    found = {name.split("/")[0] for name in [*own, *names] if not name.startswith(NOBODYS)} - {"meshwright"}
    roots = "|".join([*sorted(found), NOBODYS.rstrip("/").replace("/", r"\.")])
    third_party = re.compile(rf"^(from|import) ({roots})(?=[._ ])", re.MULTILINE)
    ours = re.compile(r"^(from|import) meshwright\.", re.MULTILINE)
    for path in [*out.rglob("*.py"), *out.rglob("*.pyi")]:
        text = ours.sub(rf"\1 {API}.", path.read_text())
        path.write_text(third_party.sub(rf"\1 {API}.\2", text))


def protoc(*arguments: str) -> None:
    """Run the protoc of grpcio-tools with Google's well-known types on its path."""
    include = Path(importlib.import_module("grpc_tools").__file__ or "").parent / "_proto"
    google = Path(importlib.import_module("google.rpc").__path__[0]).parent.parent
    includes = [] if any(a.startswith("--descriptor_set_in") for a in arguments) else [f"-I{include}", f"-I{google}"]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *includes, *arguments], check=True)


def xds_descriptors(roots: list[str]) -> list[descriptor_pb2.FileDescriptorProto]:
    """Envoy's API with all it depends on, dependencies first, from the modules of xds-protos."""
    seen: dict[str, bytes] = {}

    def walk(file: Any) -> None:
        if file.name not in seen:
            for dependency in file.dependencies:
                walk(dependency)
            seen[file.name] = file.serialized_pb

    for name in roots:
        walk(importlib.import_module(name.removesuffix(".proto").replace("/", ".") + "_pb2").DESCRIPTOR)
    return [descriptor_pb2.FileDescriptorProto.FromString(blob) for blob in seen.values()]


def etcd_descriptors() -> Iterator[descriptor_pb2.FileDescriptorProto]:
    """etcd's API, read as text out of etcd3's generated modules: too old to import on a supported protobuf."""
    distribution = importlib.metadata.distribution("etcd3")
    for name in ("kv", "auth", "rpc"):
        source = Path(str(distribution.locate_file(f"etcd3/etcdrpc/{name}_pb2.py"))).read_text()
        blob = next(
            keyword.value
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "serialized_pb"
        )
        value = ast.literal_eval(blob.args[0] if isinstance(blob, ast.Call) else blob)
        file = descriptor_pb2.FileDescriptorProto.FromString(
            value if isinstance(value, bytes) else value.encode("latin1")
        )
        file.name = f"etcd/{file.name}"
        file.dependency[:] = [f"etcd/{dependency}" for dependency in file.dependency]
        yield file


def lock(workspace: Path) -> None:
    """Write Cargo.lock from Cargo.pins, which is the same file without the registry's address.

    One address per registry is all that differs, and cargo itself knows it.
    """
    pins, lockfile = workspace / "Cargo.pins", workspace / "Cargo.lock"
    if lockfile.exists() and lockfile.read_text().replace(registry(workspace), REGISTRY) == pins.read_text():
        return
    lockfile.write_text(pins.read_text().replace(REGISTRY, registry(workspace)))


def registry(workspace: Path) -> str:
    """Return what cargo calls the registry that our dependencies come from."""
    lockfile = workspace / "Cargo.lock"
    if not lockfile.exists():
        subprocess.run(["cargo", "generate-lockfile"], cwd=workspace, check=True)
    return next(line for line in lockfile.read_text().splitlines() if line.startswith('source = "registry+'))


def native(root: Path) -> tuple[str, Path]:
    """Build the Rust extension; return the wheel's platform tag and the library's path."""
    out = root / "build" / "native"
    lock(root / "dataplane")
    subprocess.run(
        [
            "maturin", "build", "--release", "--locked", "--auditwheel", "skip",
            "--manifest-path", str(root / "dataplane/crates/python/Cargo.toml"),
            "--interpreter", sys.executable, "--out", str(out),
        ],
        check=True,
    )  # fmt: skip
    wheel = max(out.glob("*.whl"), key=lambda path: path.stat().st_mtime)
    library = out / EXTENSION
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".so"))
        library.write_bytes(archive.read(member))
    return "-".join(wheel.stem.split("-")[-3:]), library


if __name__ == "__main__":
    here = Path(__file__).parent
    match sys.argv[1:]:
        case ["stubs"]:
            stubs(here)
        case ["lock"]:
            lock(here / "dataplane")
        case ["pins"]:
            pins = (here / "dataplane/Cargo.lock").read_text().replace(registry(here / "dataplane"), REGISTRY)
            (here / "dataplane/Cargo.pins").write_text(pins)
        case ["native"]:
            shutil.copy2(native(here)[1], here / "dataplane/python/meshwright/dataplane" / EXTENSION)
        case _:
            sys.exit("usage: python build_hook.py stubs|native|lock|pins")
