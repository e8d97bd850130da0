"""Identity on a real cluster: every part by its account, every pod of the mesh by its own, and nobody else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.images.build import name
from tests.kubernetes.application import filled
from tests.kubernetes.node.cluster import Cluster
from tests.kubernetes.release import NAMESPACE, Release

pytestmark = pytest.mark.timeout(2400)  # the first one waits for images, node and installation
HERE = Path(__file__).parent
MEMBER = "spiffe://mesh.local/ns/identity/sa/member"
LOGIN = f"meshwright-citadel.{NAMESPACE}.svc:8061"
IN = "--namespace=identity"


@pytest.fixture(scope="module")
def pods(cluster: Cluster, release: Release) -> Iterator[Cluster]:
    """One pod of the mesh and one that isn't."""
    cluster.kubectl("apply", "--filename=-", text=filled("identity", image=name("demo")))
    waiting = ("wait", "--for=condition=Ready", IN, "pod/member", "pod/outsider", "--timeout=120s")
    cluster.kubectl(*waiting, seconds=130)
    yield cluster
    cluster.kubectl("delete", "namespace", "identity", "--wait=false")


def fetch(cluster: Cluster, pod: str, seconds: int, *words: str) -> Any:
    script = (HERE / "fetch_identity.py").read_text()
    command = ("exec", "--stdin", IN, pod, "--", "python", "-", seconds, *words)
    return json.loads(cluster.kubectl(*command, text=script, seconds=seconds + 30))


def log_in(cluster: Cluster, part: str, token: str) -> str:
    """Show a token to citadel from the manager's pod, which has the client side of the login port."""
    pod = ("deployment/meshwright-manager", "--container=manager")
    program = ("python", "-c", (HERE / "log_in.py").read_text(), LOGIN, "/etc/meshwright/login", part)
    command = ("exec", "--stdin", f"--namespace={NAMESPACE}", *pod, "--", *program)
    return cluster.kubectl(*command, text=token).strip()


def token(cluster: Cluster, namespace: str, account: str, *words: str) -> str:
    return cluster.kubectl("create", "token", f"--namespace={namespace}", account, *words).strip()


def test_every_part_has_its_identity_by_its_account(cluster: Cluster, release: Release) -> None:
    """As citadel's audit lines tell since it was installed: the account, and as what; the agent's names its node."""
    # Helm doesn't wait for the DaemonSet of one node.
    rollout = ("rollout", "status", "daemonset/meshwright-node", "--timeout=180s")
    cluster.kubectl(*rollout, f"--namespace={NAMESPACE}", seconds=190)
    citadel = ("--selector=app.kubernetes.io/component=citadel", "--container=citadel", "--tail=-1")
    lines = cluster.kubectl("logs", f"--namespace={NAMESPACE}", *citadel).splitlines()
    audit = [line for line in map(json.loads, filter(lambda line: line.startswith("{"), lines)) if line.get("audit")]
    issued = {
        (re.split(r"[/ ]", each["caller"])[1], each["spiffe_id"].rpartition(f"/ns/{NAMESPACE}/sa/")[2])
        for each in audit
        if each.get("via") == "kubernetes"
    }
    (node,) = cluster.get("nodes")["items"]
    assert issued >= {
        ("meshwright-manager", "manager"),
        ("meshwright-mixer", "mixer"),
        ("meshwright-nsm-registry", "nsm-registry"),
        ("meshwright-collector", "collector"),
        ("meshwright-node", "nsmgr"),
        ("meshwright-node", "forwarder"),
        ("meshwright-node", f"citadel-agent/node/{node['metadata']['name']}"),
    }


def test_a_pod_of_the_mesh_has_its_accounts_identity_and_it_rotates(pods: Cluster) -> None:
    """Without registration, over the node's socket, as another user than the agent; it lives for a minute here."""
    told = fetch(pods, "member", 120, "next")
    assert told["ids"] == [MEMBER]
    assert told["uid"] == 1337
    assert len(set(told["serials"])) == 2


def test_a_pod_outside_of_the_mesh_has_none(pods: Cluster) -> None:
    """Although it has the same account and reaches the same socket; the label makes it a member."""
    fetch(pods, "member", 60)
    assert fetch(pods, "outsider", 0)["refused"] == "no identity issued"
    pods.kubectl("label", IN, "pod", "outsider", "meshwright.io/mesh=enabled")
    assert fetch(pods, "outsider", 60)["ids"] == [MEMBER]
    pods.kubectl("label", IN, "pod", "outsider", "meshwright.io/mesh-")


@pytest.mark.parametrize(
    ("namespace", "account", "words", "part", "answer"),
    [
        ("identity", "member", ["--bound-object-kind=Pod", "--bound-object-name=member"], "nsmgr", "Forbidden: "),
        (NAMESPACE, "meshwright-node", [], "nsmgr", "Unauthorized: .*bound to no pod"),
    ],
    ids=["another account", "no pod"],
)
def test_tokens_of_others_are_refused(
    pods: Cluster, namespace: str, account: str, words: list[str], part: str, answer: str
) -> None:
    shown = token(pods, namespace, account, "--audience=meshwright-citadel", *words)
    assert re.match(answer, log_in(pods, part, shown))


def test_a_token_for_somebody_else_is_refused(pods: Cluster) -> None:
    """One of the right pod, for the API server's own audience: whoever was shown it can't log in with it."""
    selector = "--selector=app.kubernetes.io/component=manager"
    pod, *_ = pods.get("pods", f"--namespace={NAMESPACE}", selector)["items"]
    bound = ("--bound-object-kind=Pod", f"--bound-object-name={pod['metadata']['name']}")
    theirs = token(pods, NAMESPACE, "meshwright-manager", *bound)
    assert "doesn't take this token" in log_in(pods, "manager", theirs)
    ours = token(pods, NAMESPACE, "meshwright-manager", *bound, "--audience=meshwright-citadel")
    assert log_in(pods, "mixer", ours).startswith("Forbidden: ")
    assert log_in(pods, "manager", ours) == f"spiffe://mesh.local/ns/{NAMESPACE}/sa/manager"


def test_nobody_may_read_the_infrastructures_key(cluster: Cluster, release: Release) -> None:
    """Its Secret is the Job's, whose account is gone after it."""
    accounts = cluster.get("serviceaccounts", f"--namespace={NAMESPACE}")["items"]
    names = {each["metadata"]["name"] for each in accounts}
    assert "meshwright-bootstrap" not in names
    assert "meshwright-infrastructure-ca" in release.certificates()
    for account in sorted(names):
        user = f"--as=system:serviceaccount:{NAMESPACE}:{account}"
        review = ("auth", "can-i", "get", "secrets/meshwright-infrastructure-ca", f"--namespace={NAMESPACE}", user)
        answer = cluster.box.run("sh", "-c", '"$@" || true', "sh", *cluster.kubectl_command(*review)).strip()
        assert answer == "no", account
