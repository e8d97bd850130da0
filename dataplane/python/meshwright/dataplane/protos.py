"""A compiler of proto files: no protoc is needed where the native module is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from meshwright.dataplane import _native


def compile_protos(root: str, files: Mapping[str, str], includes: Sequence[str] = ()) -> bytes:
    """Compile file `root` into a FileDescriptorSet with all its imports, dependencies first; ValueError with the place.

    Imports are looked for in `files` (text by name), then in the folders `includes`; Google's own are always there.
    """
    return _native.compile_protos(root, dict(files), [*includes])
