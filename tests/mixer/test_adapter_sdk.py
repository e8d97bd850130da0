"""The adapter SDK as an author meets it: installed adapters are found, bad ones named, lives scoped."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from meshwright.mixer.adapter.v1 import discover
from meshwright.mixer.adapters import BUILT_IN
from meshwright.mixer.plugintest import log_entry, metric, running

PRINTER = """
from contextlib import asynccontextmanager

import pydantic


class Parameters(pydantic.BaseModel):
    prefix: str = ""


class Printer:
    name, templates, parameters = "NAME", frozenset({"logentry"}), Parameters
    lines = []

    @asynccontextmanager
    async def open(self, parameters, host):
        self.prefix = parameters.prefix
        yield self
        self.lines.append("closed")

    async def report(self, batch):
        self.lines += [f"{self.prefix}{dict(entry.variables)}" for entry in batch]


ADAPTER = Printer()
"""


def install(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, target: str) -> None:
    """What pip leaves of a package with an entry point."""
    (folder / f"{name}_adapter.py").write_text(PRINTER.replace("NAME", name))
    information = folder / f"{name}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[meshwright.adapters]\n{name} = {target}\n")
    monkeypatch.syspath_prepend(str(folder))


async def test_an_installed_adapter_is_found_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the built-in ones, by its entry point; its parameters are read as they stand in YAML."""
    install(tmp_path, monkeypatch, "printer", "printer_adapter:ADAPTER")
    adapters = discover(BUILT_IN).adapters
    assert {*adapters} >= {"opentelemetry", "printer"}
    printer = adapters["printer"]
    async with running(printer, {"prefix": "> "}) as handler:
        await handler.report([log_entry({"path": "/"})])
        with pytest.raises(AssertionError, match="doesn't take template metric"):
            await handler.report([metric(1, {})])
    assert printer.lines == ["> {'path': '/'}", "closed"]  # type: ignore[attr-defined]


def test_an_adapter_that_cannot_be_loaded_is_named_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken package takes no other adapter down."""
    install(tmp_path, monkeypatch, "absent", "absent_adapter:NOTHING")
    found = discover(BUILT_IN)
    assert "opentelemetry" in found.adapters
    assert "adapter 'absent'" in str(found.faults[0])


def test_what_is_no_adapter_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "wrong", "wrong_adapter:Parameters")
    assert "lacks a part" in str(discover(BUILT_IN).faults[0])


def test_the_first_of_two_adapters_of_one_name_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "opentelemetry", "opentelemetry_adapter:ADAPTER")
    found = discover(BUILT_IN)
    assert found.adapters["opentelemetry"] in BUILT_IN
    assert "two adapters are named 'opentelemetry'" in str(found.faults[0])


def test_installed_adapters_tell_where_they_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, monkeypatch, "printer", "printer_adapter:ADAPTER")
    source = discover(BUILT_IN).sources["printer"]
    assert (source.distribution, source.version, source.entry_point) == ("printer", "1.0", "printer_adapter:ADAPTER")


def test_the_sdk_needs_neither_servers_nor_the_native_module() -> None:
    """An author's machine has only the package and pydantic."""
    program = (
        "import sys\n"
        "for name in ('grpc', 'nats', 'google', 'meshwright.dataplane', 'meshwright.core', 'meshwright.api'):\n"
        "    sys.modules[name] = None\n"
        "import meshwright.mixer.adapter.v1, meshwright.mixer.plugintest\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)
