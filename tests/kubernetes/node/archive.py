"""An image of one program in a file, as `docker save` would write it, made without a daemon."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path


def of_program(path: Path, reference: str, program: Path) -> Path:
    """Write the image whose only file is a static program, which it runs."""
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    configuration = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Entrypoint": [f"/{program.name}"], "User": "65535:65535"},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = [{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]
    files = {"layer.tar": layer, "config.json": configuration, "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(_tar(files))
    return path


def _tar(files: dict[str, bytes], mode: int = 0o644) -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), mode
            archive.addfile(entry, io.BytesIO(content))
    return written.getvalue()
