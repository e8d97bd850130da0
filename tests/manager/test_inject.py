"""The injector: each `NAME.in.yaml` gives exactly `NAME.out.yaml`, and given that again changes nothing.

`pytest tests/manager/test_inject.py --update-golden` writes the files anew; read the difference before committing it.
"""

from __future__ import annotations

import base64
import copy
import json
import ssl
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.testing
import yaml
from hypothesis import given
from hypothesis import strategies as st

from meshwright.core import errors
from meshwright.core.identity import StaticIdentity, part_id
from meshwright.manager.inject import command, review, webhook
from meshwright.manager.inject.manifests import inject_manifest
from meshwright.manager.inject.options import Options
from meshwright.manager.inject.patch import patch
from meshwright.manager.inject.pod import inject
from pki import TRUST_DOMAIN, Pki

FOLDER = Path(__file__).parent / "inject"
CASES = sorted(path.name.removesuffix(".in.yaml") for path in FOLDER.glob("*.in.yaml"))
OPTIONS = Options("meshwright/sidecar:0.1.0")


def read(case: str, which: str = "in") -> Any:
    return yaml.safe_load((FOLDER / f"{case}.{which}.yaml").read_text())


@pytest.mark.parametrize("case", CASES)
def test_injection(case: str, pytestconfig: pytest.Config) -> None:
    """A pod always gets the same, and what it was made from stays as it is."""
    given_ = read(case)
    before = copy.deepcopy(given_)
    made = inject_manifest(given_, OPTIONS)
    assert given_ == before
    if pytestconfig.getoption("--update-golden"):
        (FOLDER / f"{case}.out.yaml").write_text(yaml.safe_dump(made, sort_keys=False, width=120))
    assert made == read(case, "out")


@pytest.mark.parametrize("case", CASES)
def test_injecting_again_changes_nothing(case: str) -> None:
    made = inject_manifest(read(case), OPTIONS)
    assert inject_manifest(made, OPTIONS) == made


def test_a_container_that_comes_later_is_seen_the_second_time() -> None:
    """Another webhook may add a container with probes after the first injection."""
    made = inject(read("pod"), OPTIONS)
    later = {"name": "later", "image": "later:1", "livenessProbe": {"httpGet": {"path": "/l", "port": 7000}}}
    made["spec"]["containers"].append(later)
    [proxy] = [c for c in inject(made, OPTIONS)["spec"]["initContainers"] if c["name"] == "meshwright-proxy"]
    probes = [argument for argument in proxy["args"] if argument.startswith("--probe=")]
    assert "--probe=later/livez=http://:7000/l" in probes
    assert "--probe=app/readyz=http://:8080/ready?deep=1" in probes


def test_a_pod_that_wants_no_sidecar_any_more_loses_it() -> None:
    made = inject(read("network-service-only") | {"metadata": {"name": "line"}}, OPTIONS)
    made["metadata"]["annotations"]["meshwright.io/inject"] = "false"
    clean = inject(made, OPTIONS)
    assert clean["spec"] == {"containers": [{"name": "app", "image": "line:1"}], "initContainers": [], "volumes": []}
    assert clean["metadata"]["labels"] == {}


def test_a_pod_that_keeps_its_network_service_only_is_no_proxys_any_more() -> None:
    made = inject(read("annotated"), OPTIONS)
    made["metadata"]["annotations"]["meshwright.io/inject"] = "false"
    again = inject(made, OPTIONS)
    assert [container["name"] for container in again["spec"]["initContainers"]] == ["meshwright-network-service"]
    assert "meshwright.io/injected" not in again["metadata"]["annotations"]
    assert again["metadata"]["labels"] == {"meshwright.io/mesh": "enabled"}


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        ("meshwright.io/inject", "yes", "write 'true' or 'false'"),
        ("meshwright.io/exclude-outbound-ports", "http", "isn't a port"),
        ("meshwright.io/exclude-inbound-ports", "70000", "isn't a port"),
        ("meshwright.io/exclude-outbound-ranges", "10.0.0.1/8", "host bits"),
        ("meshwright.io/sidecar-memory", "much", "isn't a quantity"),
        ("networkservicemesh.io", "private-line", "names no mechanism"),
        ("networkservicemesh.io", "kernel://private-line", "names no interface"),
        ("networkservicemesh.io", "memif://private-line/nsm-1", "kernel interfaces"),
        ("networkservicemesh.io", ",".join(["kernel://a/b"] * 9), "8 at most"),
    ],
)
def test_what_cannot_be_understood_is_refused(annotation: str, value: str, words: str) -> None:
    pod = {"metadata": {"annotations": {annotation: value}}, "spec": {"containers": [{"name": "a"}]}}
    with pytest.raises(errors.MeshwrightError, match=words):
        inject(pod, OPTIONS)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"containers": [{"name": "a", "securityContext": {"runAsUser": 1337}}]}, r"containers\[0\]"),
        ({"containers": [], "securityContext": {"runAsUser": 1337}}, "run as another user"),
        ({"containers": "many"}, "list of maps"),
    ],
)
def test_a_pod_that_would_get_around_the_mesh_is_refused(spec: dict[str, Any], words: str) -> None:
    with pytest.raises(errors.ConfigError, match=words):
        inject({"metadata": {}, "spec": spec}, OPTIONS)


def test_a_pod_on_its_nodes_network_gets_no_network_service() -> None:
    pod = read("network-service-only")
    pod["spec"]["hostNetwork"] = True
    with pytest.raises(errors.ConfigError, match="its connections are the node's"):
        inject(pod, OPTIONS)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet="ab/~", max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(_JSON, _JSON)
def test_a_patch_makes_one_document_from_another(before: Any, after: Any) -> None:
    """As RFC 6902 has it, with names escaped as RFC 6901 has it."""
    document = {"": copy.deepcopy(before)}
    for operation in patch(before, after):
        _apply(document, operation)
    assert document[""] == after


def _apply(document: dict[str, Any], operation: dict[str, Any]) -> None:
    names = [name.replace("~1", "/").replace("~0", "~") for name in operation["path"].split("/")]
    place: Any = document
    for name in names[:-1]:
        place = place[name]
    if operation["op"] == "remove":
        del place[names[-1]]
    else:
        assert (names[-1] in place) == (operation["op"] == "replace")
        place[names[-1]] = operation["value"]


def admission(pod: Any, **request: Any) -> dict[str, Any]:
    """What the API server sends."""
    kind = {"group": "", "version": "v1", "kind": "Pod"}
    return {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {"uid": "u-1", "kind": kind, "operation": "CREATE", "namespace": "shop", "object": pod, **request},
    }


def test_a_review_is_answered_with_the_patch() -> None:
    pod = read("pod")
    response = review.answer(admission(pod), OPTIONS)["response"]
    assert (response["uid"], response["allowed"], response["patchType"]) == ("u-1", True, "JSONPatch")
    document = {"": pod}
    for operation in json.loads(base64.b64decode(response["patch"])):
        _apply(document, operation)
    assert document[""] == read("pod", "out")


def test_a_review_of_what_needs_no_sidecar_lets_it_pass() -> None:
    for asked in (
        admission(read("pod", "out")),
        admission(None, kind={"group": "apps", "version": "v1", "kind": "Deployment"}),
        admission(read("pod"), operation="UPDATE"),
    ):
        assert review.answer(asked, OPTIONS)["response"] == {"uid": "u-1", "allowed": True}


def test_a_pod_that_cannot_be_injected_is_refused_and_never_let_through() -> None:
    pod = {"metadata": {"annotations": {"meshwright.io/exclude-inbound-ports": "x"}}, "spec": {"containers": []}}
    response = review.answer(admission(pod), OPTIONS)["response"]
    assert response["allowed"] is False
    assert "metadata.annotations.meshwright.io/exclude-inbound-ports" in response["status"]["message"]
    assert review.answer(admission(None), OPTIONS)["response"]["allowed"] is False


def test_the_command_prints_injected_manifests(tmp_path: Path) -> None:
    """With the code of the webhook; a fault names the file, the object and the field."""
    runner = typer.testing.CliRunner()
    done = runner.invoke(command.app, ["-f", str(FOLDER / "pod.in.yaml"), "--image", "meshwright/sidecar:0.1.0"])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.stdout) == read("pod", "out")
    bad = tmp_path / "bad.yaml"
    pod = read("pod") | {"metadata": {"name": "bad", "annotations": {"meshwright.io/inject": "maybe"}}}
    bad.write_text(yaml.safe_dump(pod))
    done = runner.invoke(command.app, ["-f", str(bad)])
    assert done.exit_code == 78
    assert "bad.yaml" in done.stderr
    assert "metadata.annotations.meshwright.io/inject" in done.stderr


async def test_the_webhook_speaks_https_as_the_managers_service(pki: Pki) -> None:
    """With its own certificate, a new one when it rotates, and answers for whatever arrives."""
    name = "meshwright-manager.meshwright-system.svc"
    identity = StaticIdentity(pki.identity(part_id(TRUST_DOMAIN, "manager"), dns=[name]))
    trust = ssl.create_default_context(cadata=pki.bundle_pem.decode())
    async with webhook.webhook("127.0.0.1:0", identity, OPTIONS) as server:
        url = f"https://{server.address}"

        async def post(content: Any, path: str = "/inject") -> httpx.Response:
            async with httpx.AsyncClient(verify=trust, trust_env=False, timeout=20) as client:
                return await client.post(url + path, content=content, extensions={"sni_hostname": name})

        answer = await post(json.dumps(admission(read("pod"))))
        assert (answer.status_code, answer.json()["response"]["allowed"]) == (200, True)
        assert (await post(b"{")).status_code == 400
        assert (await post(b"[" * 100_000)).status_code == 400
        assert (await post(b"{}")).status_code == 400
        assert (await post(b" " * (webhook.MAX_BODY + 1))).status_code == 413
        assert (await post(b"", "/other")).status_code == 404

        old = {
            "apiVersion": "split.smi-spec.io/v1alpha1",
            "kind": "TrafficSplit",
            "metadata": {"name": "one", "uid": "7", "managedFields": [{}]},
            "spec": {"service": "root", "backends": [{"service": "a", "weight": "500m"}]},
            "status": {"conditions": []},
        }
        review = {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "ConversionReview",
            "request": {"uid": "1", "desiredAPIVersion": "split.smi-spec.io/v1alpha4", "objects": [old]},
        }
        answered = (await post(json.dumps(review), "/convert")).json()
        response = answered.pop("response")
        assert answered == {"apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview"}
        assert (response["uid"], response["result"]) == ("1", {"status": "Success"})
        [made] = response["convertedObjects"]
        assert made["spec"]["backends"] == [{"service": "a", "weight": 500}]
        assert (made["metadata"]["uid"], made["status"]) == ("7", old["status"])
        review["request"] |= {"desiredAPIVersion": old["apiVersion"], "objects": [made]}
        assert (await post(json.dumps(review), "/convert")).json()["response"]["convertedObjects"] == [old]
        review["request"] |= {"desiredAPIVersion": "split.smi-spec.io/v9"}
        failed = (await post(json.dumps(review), "/convert")).json()["response"]["result"]
        assert failed["status"] == "Failed"
        assert "TrafficSplit None/one" in failed["message"]
        assert (await post(b"[]", "/convert")).status_code == 400
        assert (await post(b"[" * 100_000, "/convert")).status_code == 400
        identity.replace(Pki().identity(part_id(TRUST_DOMAIN, "manager"), dns=[name]))
        with pytest.raises(httpx.ConnectError, match="certificate verify failed"):
            await post(b"{}")
