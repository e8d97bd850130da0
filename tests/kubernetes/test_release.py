"""The release: `helm test` passes, an upgrade makes no new authority and fails no request, nothing is left at the end.

After the journeys (by name), for the last test takes the platform away.
"""

from __future__ import annotations

import pytest
from tests.box import BoxError, until
from tests.kubernetes.application import Application
from tests.kubernetes.node.cluster import Cluster
from tests.kubernetes.release import NAMESPACE, Release

pytestmark = pytest.mark.timeout(2400)

UPGRADE_SECONDS = 90.0  # that requests go on
END_SECONDS = 120  # Helm doesn't wait for pods, which serve on for a while


# Deleting a definition deletes all objects of its kind, so an uninstalled chart leaves definitions, and the API server
# its services for their groups.
KEPT = (
    f"namespace/{NAMESPACE}",
    "customresourcedefinition.apiextensions.k8s.io/",
    "apiservice.apiregistration.k8s.io/",
)


def test_helm_test_passes(release: Release) -> None:
    """Every part is healthy, asked over mutual TLS, and one object goes the whole way."""
    said = release.test()
    assert "FAILED" not in said
    assert "passed  health of manager" in said


def test_an_upgrade_makes_no_new_authority_and_fails_no_request(release: Release, application: Application) -> None:
    """All parts are started anew, one after the other, while pods ask one another."""
    application.on_policy_outage("allow")
    before = release.certificates()
    assert {"meshwright-etcd-tls", "meshwright-nats-tls", "meshwright-seal-key"} <= set(before)
    with application.asking("customer", "/", UPGRADE_SECONDS) as during:
        release.upgrade("logLevel=warning")
    assert release.certificates() == before
    assert set(during[0].statuses) == {200}, during[0]


def test_after_uninstalling_nothing_is_left(release: Release, cluster: Cluster) -> None:
    """No object of the platform, namespaced or not, but its definitions: `keepOnUninstall` of the chart with them."""
    cluster.kubectl("delete", "namespace", "shop", "lines", "--ignore-not-found", seconds=180)
    pods = ("pod/administrator", "pod/meshwright-verify")
    cluster.kubectl("delete", *pods, f"--namespace={NAMESPACE}", "--ignore-not-found", seconds=60)
    release.uninstall()
    remaining: list[str] = []

    def gone() -> bool:
        own = left(cluster, f"--namespace={NAMESPACE}", namespaced=True)
        remaining[:] = [*own, *left(cluster, namespaced=False)]
        return not remaining

    try:
        until("nothing is left", gone, END_SECONDS, every=2)
    except BoxError:
        pytest.fail(f"left: {', '.join(remaining)}")


def left(cluster: Cluster, *where: str, namespaced: bool) -> list[str]:
    """Return the names of objects that are Meshwright's."""
    asked = ("api-resources", f"--namespaced={str(namespaced).lower()}", "--verbs=list", "--output=name")
    kinds = [kind for kind in cluster.kubectl(*asked).split() if not kind.startswith("events")]
    names = cluster.kubectl("get", ",".join(kinds), *where, "--output=name", "--ignore-not-found", seconds=120).split()
    return [name for name in names if "meshwright" in name and not name.startswith(KEPT)]
