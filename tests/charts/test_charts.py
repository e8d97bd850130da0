"""What the chart gives a cluster: valid objects, and every container with the least of rights."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import kubernetes_validate
import pytest
import yaml

from meshwright.citadel.agent.settings import AgentSettings
from meshwright.citadel.settings import CitadelSettings
from meshwright.core import settings
from meshwright.dataplane.settings import Settings as ForwarderSettings
from meshwright.manager.settings import ManagerSettings
from meshwright.mixer.settings import MixerSettings
from meshwright.nsm_registry.manager.settings import Settings as NsmgrSettings
from meshwright.nsm_registry.settings import Settings as RegistrySettings
from meshwright.platform.collector.settings import CollectorSettings
from meshwright.platform.verify.settings import VerifySettings

from .conftest import CHARTS, NAMESPACE

VARIANTS = {
    "defaults": (),
    "trial": ("etcd.persistence.enabled=false", "nats.persistence.enabled=false", "image.pullPolicy=Never"),
    "bare": ("collector.enabled=false", "injection.enabled=false"),
    "removed": ("infrastructure.keepOnUninstall=false", "etcd.persistence.keepOnUninstall=false"),
    "large": (
        "manager.replicas=3", "mixer.replicas=4", "image.registry=registry.example.com:5000", "image.tag=1.2.3",
        "image.pullSecrets={first,second}", "etcd.persistence.storageClass=fast", "logLevel=debug",
        "controlPlane.nodeSelector.role=infra", "manager.settings.trace-sampling=10",
        "collector.forwardTo=https://otlp.example.com:4317",
    ),
}  # fmt: skip

# What runs with more than nothing, and why; docs/kubernetes.md says more.
RIGHTS = {
    ("node", "folders"): ({"CHOWN", "FOWNER"}, "the node's folders belong to root"),
    ("node", "forwarder"): ({"NET_ADMIN", "SYS_ADMIN"}, "interfaces in other pods' network namespaces"),
}
ASK_THE_API_SERVER = {"manager", "citadel", "bootstrap", "remove", "verify"}
SETTINGS = {
    "meshwright-manager": ManagerSettings,
    "meshwright-mixer": MixerSettings,
    "meshwright-citadel": CitadelSettings,
    "meshwright-citadel-agent": AgentSettings,
    "meshwright-nsm-registry": RegistrySettings,
    "meshwright-nsmgr": NsmgrSettings,
    "meshwright-forwarder": ForwarderSettings,
    "meshwright-collector": CollectorSettings,
    "meshwright-verify": VerifySettings,
}


@pytest.fixture(params=VARIANTS)
def documents(request, render):
    return render("meshwright", *VARIANTS[request.param])


@pytest.fixture
def defaults(render):
    return render("meshwright")


def name_of(document: dict[str, Any]) -> str:
    return f"{document['kind']} {document['metadata']['name']}"


def part_of(document: dict[str, Any]) -> str:
    return document["metadata"]["labels"]["app.kubernetes.io/component"]


def pods(documents: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the part and the pod's specification of everything that makes pods."""
    for document in documents:
        if document["kind"] == "Pod":
            yield part_of(document), document["spec"]
        elif "template" in document.get("spec", {}):
            yield part_of(document), document["spec"]["template"]["spec"]


def containers(pod: dict[str, Any]) -> list[dict[str, Any]]:
    return [*pod.get("initContainers", ()), *pod["containers"]]


@pytest.mark.parametrize("chart", ["meshwright", "meshwright-crds"])
def test_helm_finds_nothing_to_say(run_helm, chart):
    done = run_helm("lint", chart, "--strict")
    assert done.returncode == 0, done.stdout


def test_every_object_is_one_that_kubernetes_knows(documents):
    for document in documents:
        kubernetes_validate.validate(document, "1.34", strict=True)


@pytest.mark.parametrize("version", ["1.29", "1.37"])
def test_older_and_newer_kubernetes_know_them_too(defaults, version):
    for document in defaults:
        kubernetes_validate.validate(document, version, strict=True)


def test_everything_lives_in_the_releases_namespace(documents):
    cluster = {"ClusterRole", "ClusterRoleBinding", "MutatingWebhookConfiguration"}
    for document in documents:
        expected = None if document["kind"] in cluster else NAMESPACE
        assert document["metadata"].get("namespace") == expected, name_of(document)


def test_every_object_says_what_it_belongs_to(documents):
    for document in documents:
        labels = document["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "meshwright"
        assert labels["app.kubernetes.io/component"]


def test_no_container_has_rights_without_a_reason(documents):
    for part, pod in pods(documents):
        for container in containers(pod):
            rights, where = container["securityContext"], (part, container["name"])
            added, _reason = RIGHTS.get(where, (set(), ""))
            assert rights["readOnlyRootFilesystem"] is True, where
            assert rights["allowPrivilegeEscalation"] is False, where
            assert not rights.get("privileged"), where
            assert rights["capabilities"]["drop"] == ["ALL"], where
            assert set(rights["capabilities"].get("add", ())) == added, where
            assert rights["runAsNonRoot"] is (where not in RIGHTS), where
            assert (rights["runAsUser"] == 0) is (where in RIGHTS), where


def test_only_the_nodes_pod_sees_the_node(documents):
    for part, pod in pods(documents):
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, part
        assert not pod.get("hostNetwork"), part
        assert not pod.get("hostIPC"), part
        assert bool(pod.get("hostPID")) is (part == "node"), part
        paths = [volume["hostPath"]["path"] for volume in pod["volumes"] if "hostPath" in volume]
        assert paths == (["/run/meshwright", "/var/lib/meshwright"] if part == "node" else []), part


def test_only_who_asks_the_api_server_gets_a_token_for_it(documents):
    for part, pod in pods(documents):
        assert pod["automountServiceAccountToken"] is (part in ASK_THE_API_SERVER), part


def test_mixer_may_read_pods_when_it_is_told_so_and_only_then(render, defaults):
    assert not [each for each in defaults if name_of(each).startswith("ClusterRole") and "mixer" in name_of(each)]
    documents = render("meshwright", "mixer.readPods=true")
    named = {name_of(each): each for each in documents}
    assert named["ClusterRole meshwright-mixer"]["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    ]
    assert "ClusterRoleBinding meshwright-mixer" in named
    (mixer,) = [pod for part, pod in pods(documents) if part == "mixer"]
    assert mixer["automountServiceAccountToken"] is True


def test_every_container_says_what_it_needs_and_has_a_limit(documents):
    for part, pod in pods(documents):
        for container in containers(pod):
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), (part, container["name"])
            assert "memory" in container["resources"]["limits"], (part, container["name"])


def test_every_container_that_stays_is_asked_for_its_health(documents):
    for document in documents:
        if document["kind"] not in ("Deployment", "StatefulSet", "DaemonSet"):
            continue
        for container in document["spec"]["template"]["spec"]["containers"]:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert "exec" in container[probe], (name_of(document), container["name"], probe)


def test_a_pod_that_others_call_serves_on_until_they_know_that_it_goes(documents):
    for document in documents:
        if document["kind"] == "Deployment" and part_of(document) != "collector":  # calls to it can wait
            pod = document["spec"]["template"]["spec"]
            (container,) = pod["containers"]
            _, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
            assert 10 <= int(seconds) < pod["terminationGracePeriodSeconds"] - 15, name_of(document)


def test_pods_are_selected_by_exactly_one_controller_and_services_name_their_ports(documents):
    controllers = [d for d in documents if d["kind"] in ("Deployment", "StatefulSet", "DaemonSet")]
    for document in documents:
        if document["kind"] == "Service":
            selector = document["spec"]["selector"]
        elif document["kind"] == "PodDisruptionBudget":
            selector = document["spec"]["selector"]["matchLabels"]
        else:
            continue
        fits = [
            controller
            for controller in controllers
            if selector.items() <= controller["spec"]["template"]["metadata"]["labels"].items()
        ]
        assert len(fits) == 1, name_of(document)
        assert fits[0]["spec"]["selector"]["matchLabels"].items() <= (
            fits[0]["spec"]["template"]["metadata"]["labels"].items()
        )
        ports = {
            port["name"]
            for container in fits[0]["spec"]["template"]["spec"]["containers"]
            for port in container.get("ports", ())
        }
        for port in document["spec"].get("ports", ()):
            assert port["targetPort"] in ports, (name_of(document), port["name"])


def test_every_account_and_volume_that_is_named_is_there(documents):
    accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
    for part, pod in pods(documents):
        assert pod["serviceAccountName"] in accounts, part
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in containers(pod):
            mounts = {mount["name"] for mount in container.get("volumeMounts", ())}
            claims = {"data"} if part in ("etcd", "nats") else set()
            assert mounts <= volumes | claims, (part, container["name"])


def test_every_part_takes_the_arguments_and_the_environment_that_it_is_given(documents, monkeypatch):
    """The parts' own settings judge them: an option that was renamed would fail in the cluster only."""
    seen = set()
    for part, pod in pods(documents):
        for container in containers(pod):
            if container["command"] not in [[name] for name in SETTINGS]:
                continue
            (command,) = container["command"]
            with monkeypatch.context() as patch:
                for variable in container.get("env", ()):
                    patch.setenv(variable["name"], variable.get("value", "10.0.0.7"))
                given = [re.sub(r"\$\(\w+\)", "10.0.0.7", argument) for argument in container["args"]]
                settings.load(SETTINGS[command], given)  # leaves with status 64 when one is wrong
            seen.add(part)
    assert seen >= {"manager", "mixer", "citadel", "nsm-registry", "node", "verify"}


def test_certificates_and_keys_are_nobodys_arguments(documents):
    for part, pod in pods(documents):
        for container in containers(pod):
            text = json.dumps([container["command"], container.get("args"), container.get("env")])
            assert "BEGIN" not in text, part
            assert "password" not in text.lower(), part


def test_rights_in_the_cluster_are_named_one_by_one(documents):
    for document in documents:
        for rule in document.get("rules", ()) if document["kind"] in ("Role", "ClusterRole") else ():
            for field in ("apiGroups", "resources", "verbs"):
                assert "*" not in rule[field], (name_of(document), rule)
            if "secrets" in rule["resources"]:
                assert name_of(document) in ("Role meshwright-bootstrap", "Role meshwright-remove")
                assert rule["verbs"] == ["create"] or rule["resourceNames"]
            if document["kind"] == "ClusterRole":
                writes = set(rule["verbs"]) - {"get", "list", "watch"}
                status = all(resource.endswith("/status") for resource in rule["resources"])
                assert not writes or status or rule.get("resourceNames") or rule["resources"] == ["tokenreviews"], rule


def test_the_infrastructure_ca_belongs_to_no_release(documents):
    """Helm would delete or overwrite what it owns; the Job makes Secrets that aren't there, and only those."""
    assert not [name_of(d) for d in documents if d["kind"] == "Secret"]
    (job,) = (d for d in documents if d["kind"] == "Job" and part_of(d) == "bootstrap")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


def test_keeping_the_state_is_the_default_and_removing_it_a_value(render):
    def jobs(*sets: str) -> set[str]:
        return {part_of(d) for d in render("meshwright", *sets) if d["kind"] == "Job"}

    def policies(*sets: str) -> set[str]:
        return {
            d["spec"]["persistentVolumeClaimRetentionPolicy"]["whenDeleted"]
            for d in render("meshwright", *sets)
            if d["kind"] == "StatefulSet"
        }

    assert (jobs(), policies()) == ({"bootstrap"}, {"Retain"})
    removing = (
        "infrastructure.keepOnUninstall=false",
        "etcd.persistence.keepOnUninstall=false",
        "nats.persistence.keepOnUninstall=false",
    )
    assert (jobs(*removing), policies(*removing)) == ({"bootstrap", "remove"}, {"Delete"})


def test_images_come_from_where_the_values_say(render):
    sets = (
        "image.registry=registry.example.com:5000",
        "image.repository=mesh",
        "image.tag=1.2.3",
        "image.pullPolicy=Always",
    )
    found = list(pods(render("meshwright", *sets, "image.pullSecrets={key}")))
    for part, pod in found:
        assert pod["imagePullSecrets"] == [{"name": "key"}], part
        for container in containers(pod):
            assert re.fullmatch(r"registry\.example\.com:5000/mesh/[a-z-]+:1\.2\.3", container["image"])
            assert container["imagePullPolicy"] == "Always"
    (manager,) = (pod["containers"][0] for part, pod in found if part == "manager")
    assert "--sidecar-image=registry.example.com:5000/mesh/sidecar:1.2.3" in manager["args"]


def test_the_chart_is_of_the_projects_version(defaults):
    project = re.search(r'^version = "(.+)"', (CHARTS.parent / "pyproject.toml").read_text(), re.MULTILINE)
    assert project
    for chart in ("meshwright", "meshwright-crds"):
        about = yaml.safe_load((CHARTS / chart / "Chart.yaml").read_text())
        assert (about["version"], about["appVersion"]) == (project[1], project[1])
    images = {container["image"] for _, pod in pods(defaults) for container in containers(pod)}
    assert {image.rpartition(":")[2] for image in images} == {project[1]}


def test_injection_is_asked_for_and_never_of_the_platform_itself(render):
    (hook,) = (d for d in render("meshwright") if d["kind"] == "MutatingWebhookConfiguration")
    (webhook,) = hook["webhooks"]
    wanted = webhook["namespaceSelector"]["matchExpressions"]
    assert {"key": "meshwright.io/injection", "operator": "In", "values": ["enabled"]} in wanted
    assert any(each["operator"] == "NotIn" and NAMESPACE in each["values"] for each in wanted)
    (service,) = (d for d in render("meshwright") if name_of(d) == "Service meshwright-manager")
    named = webhook["clientConfig"]["service"]
    assert (named["name"], named["namespace"]) == ("meshwright-manager", NAMESPACE)
    assert named["port"] in [port["port"] for port in service["spec"]["ports"]]
    off = render("meshwright", "injection.enabled=false")
    assert not [d for d in off if d["kind"] == "MutatingWebhookConfiguration"]
    assert "mutatingwebhookconfigurations" not in json.dumps(off)


@pytest.mark.parametrize(
    ("chart", "given", "says"),
    [
        ("meshwright", "manger.replicas=2", "additional properties 'manger' not allowed"),
        ("meshwright", "manager.replica=2", "additional properties 'replica' not allowed"),
        ("meshwright", "node.forwarder.resources.limit.memory=1Gi", "additional properties 'limit' not allowed"),
        ("meshwright", "image.pullPolicy=Sometimes", "must be one of 'Always', 'IfNotPresent', 'Never'"),
        ("meshwright", "mixer.replicas=0", "minimum"),
        ("meshwright", "logLevel=loud", "must be one of 'debug', 'info', 'warning', 'error'"),
        ("meshwright", "etcd.persistence.size=eight", "does not match pattern"),
        ("meshwright", "collector.forwardTo=otlp.example.com:4317", "does not match pattern"),
        ("meshwright-crds", "groups.smi=false", "additional properties 'smi' not allowed"),
    ],
)
def test_a_value_that_is_mistaken_is_refused_by_name(run_helm, chart, given, says):
    done = run_helm("template", chart, "--set", given)
    assert done.returncode != 0
    assert says in done.stderr


def _keys(tree: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(tree, dict) and tree and where[-1:] not in [("resources",), ("settings",)]:
        for key, below in tree.items():
            yield from _keys(below, (*where, key))
    else:
        yield where


@pytest.mark.parametrize("chart", ["meshwright", "meshwright-crds"])
def test_every_value_is_explained_and_has_a_schema(chart):
    text = (CHARTS / chart / "values.yaml").read_text()
    schema = json.loads((CHARTS / chart / "values.schema.json").read_text())

    def known(below: dict[str, Any], where: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
        if "properties" in below:
            for key, each in below["properties"].items():
                yield from known(each, (*where, key))
        else:
            yield where

    values = set(_keys(yaml.safe_load(text)))
    assert values == set(known(schema))
    comments = re.findall(r"^ *# -- .*\n(?: *# .*\n)* *([a-zA-Z]+):", text, re.MULTILINE)
    assert sorted(comments) == sorted(path[-1] for path in values)
