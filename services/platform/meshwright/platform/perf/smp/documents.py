"""Files with SMP in them: a test to run, or what a run has found.

A test is a bare PerformanceTestConfig, or as mesheryctl has it: `test:` with the configuration and `mesh:` with the
mesh. What a run has found is one document with the keys test, results, mesh_config and environment, each of which is
SMP's own message; a bare PerformanceTestResult is read as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from meshwright.api.smp import smp_pb2 as smp
from meshwright.core.config import LIMITS, json_text, yaml_text
from meshwright.core.errors import ConfigError
from meshwright.platform.perf.smp import message, older

VERSION = "v0.0.1"


@dataclass(frozen=True, slots=True)
class Test:
    """A test, the mesh that its author meant (if named), and what a person should know of how it was read."""

    config: smp.PerformanceTestConfig
    mesh: smp.ServiceMesh | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Measured:
    """What a run has found."""

    results: tuple[smp.PerformanceTestResult, ...]
    test: smp.PerformanceTestConfig | None = None
    mesh_config: smp.ServiceMeshConfig | None = None
    environment: smp.EnvironmentConfig | None = None
    notes: tuple[str, ...] = field(default=(), compare=False)


def read_test(data: bytes, name: str) -> Test:
    """Read a test file; ConfigError names the file, the field and the remedy."""
    notes: list[str] = []
    value = _fields(data, name)
    if "test" in value or "mesh" in value:
        _only(value, {"test", "mesh"}, "a test file of mesheryctl")
        if value.get("test") is None:
            raise ConfigError("missing", field="test", remedy="write the test's configuration under test:")
        test = older.renamed(value["test"], notes.append, "test")
        mesh = value.get("mesh")
        return Test(
            message.read(smp.PerformanceTestConfig, test, "test"),
            message.read(smp.ServiceMesh, mesh, "mesh") if mesh is not None else None,
            tuple(notes),
        )
    return Test(message.read(smp.PerformanceTestConfig, older.renamed(value, notes.append)), None, tuple(notes))


def read_measured(data: bytes, name: str) -> Measured:
    """Read what a run has found."""
    notes: list[str] = []
    value = _fields(data, name)
    if "results" not in value:
        if older.is_first_result(value):
            value = older.first_result(value, notes.append)
        else:
            value = older.renamed(value, notes.append)
        result = message.read(smp.PerformanceTestResult, value)
        older.suspect_seconds(result.latencies_ms, notes.append, "")
        return Measured((result,), notes=tuple(notes))
    _only(value, {"test", "results", "mesh_config", "environment"}, "a document of results")
    value = older.renamed(value, notes.append)
    listed = value["results"]
    if not isinstance(listed, list) or not listed:
        raise ConfigError("no list of results", field="results", remedy="at least one PerformanceTestResult")
    results = tuple(
        message.read(smp.PerformanceTestResult, result, f"results[{index}]") for index, result in enumerate(listed)
    )
    for index, result in enumerate(results):
        older.suspect_seconds(result.latencies_ms, notes.append, f"results[{index}].")

    def part(kind: type[message.M], key: str) -> message.M | None:
        return message.read(kind, value[key], key) if value.get(key) is not None else None

    return Measured(
        results,
        part(smp.PerformanceTestConfig, "test"),
        part(smp.ServiceMeshConfig, "mesh_config"),
        part(smp.EnvironmentConfig, "environment"),
        tuple(notes),
    )


def plain(measured: Measured) -> dict[str, Any]:
    """Return what a run has found as plain values."""
    value: dict[str, Any] = {}
    if measured.test is not None:
        value["test"] = message.plain(measured.test)
    value["results"] = [message.plain(result) for result in measured.results]
    if measured.mesh_config is not None:
        value["mesh_config"] = message.plain(measured.mesh_config)
    if measured.environment is not None:
        value["environment"] = message.plain(measured.environment)
    return value


def text(value: Mapping[str, Any], form: str) -> str:
    """Return plain values as text, `form` being json or yaml."""
    if form == "json":
        return json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # Escaped beyond ASCII: PyYAML would write U+0085 as it is, and that is a line break when it is read again.
    return yaml.safe_dump(dict(value), sort_keys=False, width=120)


def _fields(data: bytes, name: str) -> Mapping[str, Any]:
    documents: list[Any]
    if name.endswith(".json") or data.lstrip()[:1] == b"{":
        try:
            documents = [json_text.parse(data.decode("utf-8-sig"), name, LIMITS)]
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name} isn't UTF-8 text", remedy="save the file as UTF-8") from error
    else:
        documents = [value for _, _, value in yaml_text.parse(data, name, LIMITS)]
    if len(documents) != 1 or not isinstance(documents[0], Mapping):
        raise ConfigError(f"{name} has {len(documents)} documents of fields", remedy="one is read from each file")
    return documents[0]


def _only(value: Mapping[str, Any], known: set[str], what: str) -> None:
    for key in value:
        if key not in known:
            raise ConfigError(
                f"unknown in {what}", field=str(key)[:100], remedy="known are " + ", ".join(sorted(known))
            )
