"""Reads configuration objects from files, folders and standard input; one fault refuses all that was read.

Errors name file, document, line and field. Folders are read with their subfolders in the order of names; names that
begin with a dot are left out (editors' files, and the links that Kubernetes keeps in mounted ConfigMaps).
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from meshwright.core.config import objects, yaml_text
from meshwright.core.config.errors import DocumentError
from meshwright.core.config.limits import LIMITS, Limits, size
from meshwright.core.config.objects import Key, Object

SUFFIXES = (".yaml", ".yml", ".json")


Known = dict[str, tuple[bytes, list[Object]]]
"""By file: the digest of what it held, and its objects."""


def read_documents(path: Path | str, *, limits: Limits = LIMITS, known: Known | None = None) -> list[Object]:
    """Read a file, a folder or, for ``-``, standard input; raises ConfigError only.

    Two objects of one key are refused, whichever files they are in. Files that hold what they held when `known` was
    filled aren't parsed again.
    """
    if str(path) == "-":
        return _distinct(parse(sys.stdin.buffer.read(limits.total_bytes + 1), "stdin", limits=limits))
    path = Path(path)
    read: list[Object] = []
    total = 0
    for file in files(path, limits=limits):
        data = _read(file, limits.total_bytes - total)
        total += len(data)
        if total > limits.total_bytes:
            raise DocumentError(
                f"more than {size(limits.total_bytes)} of configuration", source=str(path), remedy="read less at once"
            )
        read += _parse_once(data, str(file), limits, known)
        if len(read) > limits.documents:
            raise DocumentError(f"more than {limits.documents} documents", source=str(path), remedy="read less at once")
    return _distinct(read)


def parse(data: bytes, name: str, *, limits: Limits = LIMITS) -> list[Object]:
    """Parse the bytes of one file; `name` stands in errors and in `Object.source`, its ending says the format."""
    if len(data) > limits.total_bytes:
        raise DocumentError(f"more than {size(limits.total_bytes)}", source=name, remedy="split it into several files")
    return list(_objects(data, name, limits))


def _parse_once(data: bytes, name: str, limits: Limits, known: Known | None) -> list[Object]:
    if known is None:
        return parse(data, name, limits=limits)
    digest = hashlib.blake2b(data).digest()
    if known.get(name, (b"",))[0] != digest:
        known[name] = digest, parse(data, name, limits=limits)
    return known[name][1]


def files(path: Path, *, limits: Limits = LIMITS) -> list[Path]:
    """Return the files that `read_documents(path)` reads, in order."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            if stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):
                return [path]
            raise DocumentError("neither a file nor a folder", source=str(path))
        return sorted(_walk(path, limits))
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DocumentError(f"can't be read: {reason}", source=str(path), remedy="name a file or a folder") from error


def _walk(folder: Path, limits: Limits) -> Iterator[Path]:
    count = 0

    def refuse(error: OSError) -> None:
        raise error

    for root, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            file = Path(root, name)
            if name.startswith(".") or not name.endswith(SUFFIXES) or not file.is_file():
                continue
            count += 1
            if count > limits.files:
                raise DocumentError(f"more than {limits.files} files", source=str(folder), remedy="read less at once")
            yield file


def _read(file: Path, room: int) -> bytes:
    try:
        with file.open("rb") as stream:
            return stream.read(room + 1)
    except OSError as error:
        raise DocumentError(f"can't be read: {error.strerror}", source=str(file)) from error


def _objects(data: bytes, name: str, limits: Limits) -> Iterator[Object]:
    if not name.endswith(".json"):
        for source, line, value in yaml_text.parse(data, name, limits):
            yield objects.from_document(value, source, line=line, limits=limits)
        return
    source = f"{name}#1"
    if len(data) > limits.document_bytes:
        raise DocumentError(
            f"the document has {size(len(data))}; at most {size(limits.document_bytes)} are taken", source=source
        )
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError("not UTF-8 text", source=source, remedy="save the file as UTF-8") from error
    yield objects.from_json(text, source, limits=limits)


def _distinct(read: list[Object]) -> list[Object]:
    seen: dict[Key, str] = {}
    for object_ in read:
        if object_.key in seen:
            raise DocumentError(
                f"{object_.key} is already in {seen[object_.key]}", source=object_.source, remedy="keep one of them"
            )
        seen[object_.key] = object_.source
    return read
