"""The five journeys, with real pods: configuration, identity, policy, telemetry, and a network service.

Nothing here has the node's network but the node's own parts; requests are made by pods of the application.
"""

from __future__ import annotations

import json
import secrets
import sys
from typing import Any

import pytest
from cryptography import x509
from tests.box import BoxError, until
from tests.images.build import name
from tests.kubernetes.application import NAMESPACE, WORKLOADS, Application, filled, spiffe_id
from tests.kubernetes.node.cluster import Cluster
from tests.kubernetes.release import Release

from meshwright.platform.demo.binomial import interval

pytestmark = pytest.mark.timeout(2400)  # the first one waits for images, node and installation

REQUESTS = 600
CONFIDENCE = 0.999999
CHANGE_SECONDS = 40.0  # that requests go on while configuration changes
QUOTA = 20
BURST = 3 * QUOTA
PROXY = "meshwright-proxy"
LINES = "lines"  # namespace of the network service's endpoint


def test_pods_get_a_proxy_and_the_nodes_network_is_nobodys(application: Application, cluster: Cluster) -> None:
    """The webhook gives each pod of the namespace a proxy; no pod of platform or application has the node's network."""
    for workload, *_ in WORKLOADS:
        pod = application.pod(workload)
        assert PROXY in [each["name"] for each in pod["spec"]["initContainers"]], workload
        ready = {each["name"]: each["ready"] for each in pod["status"]["initContainerStatuses"]}
        assert ready[PROXY], workload
    pods = cluster.get("pods", "--all-namespaces")["items"]
    assert [each["metadata"]["name"] for each in pods if each["spec"].get("hostNetwork")] == []


def test_a_traffic_split_of_the_cluster_does_what_it_says(application: Application) -> None:
    """Configuration: 90 to 10, then all to the second version while requests go on, none of which fails."""
    application.apply(filled("split", v1=90, v2=10))
    low, high = interval(REQUESTS, 0.1, CONFIDENCE)
    until("the split is in force", lambda: second_share(application, 60) < 0.3, 60)
    answers = application.ask("customer", "/", REQUESTS, 4)
    assert answers.statuses == {200: REQUESTS}, answers.bodies
    assert low <= answers.versions.get("v2", 0) <= high, answers.versions

    with application.asking("customer", "/", CHANGE_SECONDS) as during:
        application.apply(filled("split", v1=0, v2=100))
        until("the change is in force", lambda: second_share(application, 60) == 1, CHANGE_SECONDS)
    assert set(during[0].statuses) == {200}, during[0].bodies
    assert application.ask("customer", "/", 200, 4).versions == {"v2": 200}
    application.apply(filled("split", v1=50, v2=50))


def second_share(application: Application, requests: int) -> float:
    """Return the share of catalog's second version in a few requests."""
    answers = application.ask("mallory", "/", requests, 4)
    return answers.versions.get("v2", 0) / requests


def test_every_hop_is_mutual_tls_between_accounts(application: Application, cluster: Cluster) -> None:
    """Identity: each service is told who called, by certificates that rotate; plain text from outside is refused."""
    answer = application.ask("customer", "/").body()
    assert f"URI={spiffe_id('customer')}" in answer["caller"]
    assert f"URI={spiffe_id('shop')}" in answer["upstream"]["caller"]
    assert f"URI={spiffe_id('catalog')}" in answer["upstream"]["upstream"]["caller"]

    address = application.pod("stock")["status"]["podIP"]
    first = presented(cluster, address)
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == [spiffe_id("stock")]
    with pytest.raises(BoxError):
        cluster.box.run("curl", "--silent", "--show-error", "--max-time", "10", f"http://{address}:8080/healthz")
    until(
        "the certificate rotates", lambda: presented(cluster, address).serial_number != first.serial_number, 90, every=2
    )


def presented(cluster: Cluster, address: str) -> x509.Certificate:
    """Return the certificate that a pod's proxy shows to anybody who asks."""
    script = f"import ssl; print(ssl.get_server_certificate(({address!r}, 8080), timeout=10))"
    return x509.load_pem_x509_certificate(cluster.box.run(sys.executable, "-c", script).encode())


@pytest.fixture(scope="module")
def policy(application: Application) -> None:
    """Rules in the cluster, in force, and nobody passes without a decision."""
    application.on_policy_outage("deny")
    application.apply(filled("policy", quota=QUOTA, mallory=spiffe_id("mallory")))
    until("the rule is in force", lambda: 403 in application.ask("mallory", "/admin").statuses, 60)


@pytest.mark.usefixtures("policy")
def test_a_rule_refuses_one_caller_with_403(application: Application) -> None:
    """Policy: mallory and nobody else, there and nowhere else, and is told why."""
    refused = application.ask("mallory", "/admin", 10)
    assert refused.statuses == {403: 10}
    assert "mallory may not administer the shop" in refused.bodies[403]
    assert application.ask("customer", "/admin", 10).statuses == {200: 10}
    assert application.ask("mallory", "/", 10).statuses == {200: 10}


@pytest.mark.usefixtures("policy")
def test_a_quota_holds_over_all_proxies_with_429(application: Application, release: Release) -> None:
    """Policy: of three times the quota at once, through both versions' proxies, the quota passes and no more.

    A replica of mixer that doesn't reach the quota's owner in time grants by itself, and counts that (ADR 9): it
    happens on machines where many other things run.
    """
    before = release.quotas_decided_alone()
    answers = application.ask("customer", "/limited", BURST, BURST)
    alone = release.quotas_decided_alone() - before
    assert sum(answers.statuses.values()) == BURST
    assert set(answers.statuses) == {200, 429}, answers.bodies
    assert QUOTA <= answers.statuses[200] <= QUOTA + alone
    assert set(answers.versions) >= {"v1", "v2"}, answers.versions


def test_one_request_is_one_trace(application: Application, release: Release) -> None:
    """Telemetry: the spans of all proxies on the way, and of mixer's decisions for them, are one trace."""
    trace = secrets.token_hex(16)
    answers = application.ask("customer", "/", traceparent=f"00-{trace}-{secrets.token_hex(8)}-01")
    assert answers.statuses == {200: 1}
    found: list[dict[str, str]] = []

    def whole() -> bool:
        found[:] = release.find_trace(trace)
        services = {span["service"] for span in found}
        hops = [any(hop in service for service in services) for hop in ("shop", "catalog", "stock")]
        checks = [span for span in found if span["service"] == "meshwright-mixer" and "Authorization" in span["name"]]
        return all(hops) and len(checks) >= len(hops)

    try:
        until("the whole trace has arrived", whole, 60, every=1)
    except BoxError:
        pytest.fail(f"only {json.dumps(found, indent=1)}")
    known = {span["span_id"] for span in found}
    orphans = [span for span in found if span["parent_span_id"] not in known]
    assert len(orphans) == 1, orphans  # the first: its parent is the traceparent that was sent


@pytest.mark.usefixtures("policy")
def test_two_pods_are_connected_by_a_network_service(application: Application, cluster: Cluster) -> None:
    """A pod asks by annotation and starts with the interface; who may not have it doesn't start; nothing is left."""
    images = {"demo": name("demo"), "sidecar": name("sidecar")}
    application.apply(filled("network-endpoint", **images))
    ready(cluster, "line", LINES)
    application.apply(filled("network-client", name="customer", **images))
    application.apply(filled("network-client", name="mallory", **images))
    ready(cluster, "customer-on-line")
    assert "nsm-1" in interfaces(cluster, "customer-on-line")
    near, far = addresses(cluster, "customer-on-line")
    script = f"import urllib.request as r; print(r.urlopen('http://{far}:8080/', timeout=10).read().decode())"
    said = json.loads(inside(cluster, "customer-on-line", "python", "-c", script))
    assert (said["service"], near.rpartition(".")[0]) == ("line", far.rpartition(".")[0])

    pod = cluster.get("pod", "mallory-on-line", f"--namespace={NAMESPACE}")
    assert not any(each.get("ready") for each in pod["status"].get("containerStatuses", [])), pod["status"]
    until("the refusal is told", lambda: "mallory may not have this private line" in client_log(cluster, "mallory"), 60)

    had = interfaces(cluster, "line", LINES)
    cluster.kubectl("delete", "pod", "customer-on-line", "mallory-on-line", f"--namespace={NAMESPACE}", seconds=120)
    until("the endpoint's interface is gone", lambda: len(interfaces(cluster, "line", LINES)) == len(had) - 1, 60)
    cluster.kubectl("delete", "namespace", LINES, seconds=120)


def ready(cluster: Cluster, pod: str, namespace: str = NAMESPACE) -> None:
    """Wait until a pod is ready."""
    words = ("wait", "--for=condition=Ready", f"--namespace={namespace}", f"pod/{pod}", "--timeout=120s")
    cluster.kubectl(*words, seconds=130)


def inside(cluster: Cluster, pod: str, *words: str, namespace: str = NAMESPACE) -> str:
    """Run a command in the application's container."""
    return cluster.kubectl("exec", f"--namespace={namespace}", pod, "--container=app", "--", *words)


def interfaces(cluster: Cluster, pod: str, namespace: str = NAMESPACE) -> list[str]:
    """Return the interfaces of a pod's network."""
    return inside(cluster, pod, "ls", "/sys/class/net", namespace=namespace).split()


def client_log(cluster: Cluster, who: str) -> str:
    """Return what the network service client of a pod has logged, in its last run and the one before."""
    words: tuple[Any, ...] = (
        "logs",
        f"--namespace={NAMESPACE}",
        f"{who}-on-line",
        "--container=meshwright-network-service",
    )
    log = cluster.kubectl(*words)
    try:
        return log + cluster.kubectl(*words, "--previous")
    except BoxError:  # there was no run before
        return log


def addresses(cluster: Cluster, pod: str) -> tuple[str, str]:
    """Return the two ends' addresses of a client's connection, as its client has logged them."""
    for line in client_log(cluster, pod.removesuffix("-on-line")).splitlines():
        if "network_service_connected" in line:
            said = json.loads(line)
            return said["addresses"][0].partition("/")[0], said["endpoint"][0].partition("/")[0]
    raise AssertionError("no connection was logged")
