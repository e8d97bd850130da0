"""One node, one installation and one application for all tests of a run; where one fails, their logs are named."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.images import daemon as daemons
from tests.images.build import build as build_images
from tests.images.daemon import Daemon
from tests.images.wheel import wheel
from tests.kubernetes import build
from tests.kubernetes.application import Application
from tests.kubernetes.node import cluster as clusters
from tests.kubernetes.node.cluster import Cluster
from tests.kubernetes.release import Release
from tests.kubernetes.report import report

FOLDER = build.FOLDER / "test"
# Set, the tests use the node of `python -m tests.kubernetes.node up` as it is, and the release that is on it.
GOING = "MESHWRIGHT_TEST_NODE"


@pytest.fixture(scope="session")
def images() -> Path:
    """The file with all images; the daemon that made it is needed no more."""
    if reason := daemons.missing():
        pytest.skip(reason)
    daemon = Daemon.begin()
    try:
        return build_images(daemon, wheel())
    finally:
        daemon.end()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A node of this run's own, with the platform's images."""
    if reason := clusters.missing():
        pytest.skip(reason)
    if going := os.environ.get(GOING) and Cluster.at():
        yield going
        return
    try:
        build.build()
    except build.MissingError as error:
        pytest.skip(str(error))
    images: Path = request.getfixturevalue("images")
    cluster = Cluster.begin(FOLDER)
    try:
        cluster.load(images)
        yield cluster
        if request.session.testsfailed:
            print(f"\nlogs of the node and its pods: {report(cluster)}")
    finally:
        cluster.end()


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Release:
    """The platform, installed and ready."""
    release = Release(cluster)
    if os.environ.get(GOING):
        return release
    try:
        release.install()
    except BaseException:
        print(f"\nlogs of the node and its pods: {report(cluster)}")
        raise
    return release


@pytest.fixture(scope="session")
def application(cluster: Cluster, release: Release) -> Application:
    """The application, each of its pods with a proxy."""
    application = Application(cluster)
    application.begin()
    return application
