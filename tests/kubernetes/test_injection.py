"""The injection webhook as the API server calls it, and what becomes of the kubelet's probes."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.box import BoxError
from tests.images.build import name
from tests.kubernetes.application import NAMESPACE, Application
from tests.kubernetes.node.cluster import Cluster

pytestmark = pytest.mark.timeout(2400)  # the first one waits for images, node and installation


def pod(who: str, annotations: dict[str, str], **container: Any) -> str:
    """Return a pod of the application's namespace."""
    app = {"name": "app", "image": name("demo"), "imagePullPolicy": "Never", **container}
    metadata = {"name": who, "namespace": NAMESPACE, "annotations": annotations}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [app]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


@pytest.mark.parametrize(
    ("annotations", "container", "field"),
    [
        (
            {"meshwright.io/exclude-inbound-ports": "http"},
            {},
            "metadata.annotations.meshwright.io/exclude-inbound-ports",
        ),
        ({"networkservicemesh.io": "private-line"}, {}, "network service"),
        ({}, {"securityContext": {"runAsUser": 1337}}, r"spec.containers\[0\].securityContext.runAsUser"),
    ],
)
def test_a_pod_that_cannot_be_injected_is_refused(
    application: Application, annotations: dict[str, str], container: dict[str, Any], field: str
) -> None:
    """The API server doesn't make it, and says which field is wrong."""
    with pytest.raises(BoxError, match=rf"injection\.meshwright\.io.*{field}"):
        application.apply(pod("refused", annotations, **container))


def test_a_pod_that_wants_no_proxy_gets_none(application: Application, cluster: Cluster) -> None:
    """And nothing else of it is changed."""
    application.apply(pod("without", {"meshwright.io/inject": "false"}, args=["--name=x", "--listen=0.0.0.0:8080"]))
    made = cluster.get("pod", "without", f"--namespace={NAMESPACE}")
    cluster.kubectl("delete", "pod", "without", f"--namespace={NAMESPACE}", seconds=60)
    assert "initContainers" not in made["spec"]
    assert "meshwright.io/mesh" not in made["metadata"].get("labels", {})


def test_probes_keep_working_although_the_port_takes_mutual_tls_only(
    application: Application, cluster: Cluster
) -> None:
    """The kubelet finds the application ready by asking the sidecar, which anybody may ask for that and no more."""
    stock = application.pod("stock")
    address, container = stock["status"]["podIP"], stock["spec"]["containers"][0]
    assert container["readinessProbe"]["httpGet"]["path"] == "/probe/app/readyz"
    assert stock["status"]["containerStatuses"][0]["ready"]
    curl = ("curl", "--silent", "--max-time", "20", "--output", "/dev/null", "--write-out", "%{http_code}")
    assert cluster.box.run(*curl, f"http://{address}:15020/probe/app/readyz", seconds=30) == "200"
    assert cluster.box.run(*curl, f"http://{address}:15020/admin", seconds=30) == "404"
    with pytest.raises(BoxError):
        cluster.box.run(*curl, f"http://{address}:8080/healthz", seconds=30)
