"""One distribution: wheel, sdist and editable install all carry packages, stubs and the extension, and start."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PARTS = ["manager", "mixer", "citadel", "citadel-agent", "nsm-registry", "nsmgr", "forwarder"]

pytestmark = pytest.mark.timeout(1500)  # Rust may be built from nothing here


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command; its output is the failure's message."""
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="session")
def python(tmp_path_factory: pytest.TempPathFactory, built: Path) -> Path:
    """The interpreter of a new environment that holds our requirements."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/pip", "install", "--quiet", next(built.glob("*.whl")))
    return folder / "bin/python"


def check_installed(python: Path, tmp_path: Path) -> None:
    """Start every command, load the extension and a stub, away from the checkout."""
    version = run(python.with_name("meshwright"), "version", cwd=tmp_path)
    assert "meshwright 0.1.0" in version
    for part in PARTS:
        assert "--listen" in run(python.with_name(f"meshwright-{part}"), "--help", cwd=tmp_path)
    run(
        python,
        "-c",
        "import meshwright.dataplane.forwarder, meshwright.dataplane.grpc, meshwright.dataplane.policy;"
        "from meshwright.api.envoy.service.discovery.v3 import ads_pb2_grpc;"
        "from meshwright.api.istio.mixer.v1 import mixer_pb2_grpc;"
        "from opentelemetry.proto.trace.v1 import trace_pb2",
        cwd=tmp_path,
    )


def test_the_wheel_is_for_every_supported_python_and_complete(built: Path) -> None:
    wheel = next(built.glob("*.whl"))
    assert "-cp311-abi3-linux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for expected in (
        "meshwright/dataplane/_native.abi3.so",
        "meshwright/dataplane/_native.pyi",
        "meshwright/api/config/v1/config_pb2.pyi",
        "meshwright/core/py.typed",
        "meshwright/nsm/py.typed",
        "meshwright/platform/cli/main.py",
    ):
        assert expected in names
    foreign = {name.split("/")[0] for name in names} - {"meshwright", "meshwright-0.1.0.dist-info"}
    assert foreign == set()
    assert "meshwright/__init__.py" not in names


def test_the_sdist_holds_sources_only(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    assert any(name.endswith("dataplane/Cargo.pins") for name in names)
    assert not [name for name in names if name.endswith((".so", "_pb2.py", ".lock")) or "/target/" in name]


def test_the_wheel_runs(python: Path, tmp_path: Path) -> None:
    check_installed(python, tmp_path)


def test_the_sdist_installs_and_runs(python: Path, built: Path, tmp_path: Path) -> None:
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "meshwright")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", next(built.glob("*.tar.gz")))
    check_installed(python, tmp_path)


def test_an_editable_install_runs(python: Path, tmp_path: Path) -> None:
    run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "meshwright")
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--editable", ROOT)
    check_installed(python, tmp_path)
    assert str(ROOT) in run(python, "-c", "import meshwright.core.errors as e; print(e.__file__)", cwd=tmp_path)


def test_no_registry_is_named_in_the_pins() -> None:
    for pins in [ROOT / "dataplane/Cargo.pins", *ROOT.glob("constraints*.txt")]:
        assert "://" not in pins.read_text()
