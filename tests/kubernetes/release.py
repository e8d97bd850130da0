"""The platform in the cluster: what Helm installs, and the administrator's own pod, which asks its collector."""

from __future__ import annotations

import json
from typing import Any

import yaml
from tests.box import ROOT
from tests.kubernetes.node.cluster import Cluster

NAME = "meshwright"
NAMESPACE = "meshwright-system"
CHARTS = ROOT / "charts"
VALUES = ROOT / "tests" / "kubernetes" / "values.yaml"
SECONDS = 420
ADMINISTRATOR = "administrator"
_METRICS = "from meshwright.core.probe import ask; print(ask('unix:/run/health/health.sock', '/metrics')[1])"


class Release:
    """An installed release."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    def install(self) -> None:
        """Install the kinds, then the platform, and wait until all of it is ready."""
        self.cluster.helm("install", "meshwright-crds", CHARTS / "meshwright-crds", "--wait")
        self._helm("install", "--create-namespace")

    def upgrade(self, *values: str) -> None:
        """Upgrade to the same charts with further values."""
        self._helm("upgrade", *(f"--set={value}" for value in values))

    def test(self) -> str:
        """Run `helm test` and return its log."""
        namespace = f"--namespace={NAMESPACE}"
        return self.cluster.helm("test", NAME, namespace, "--logs", f"--timeout={SECONDS}s", seconds=SECONDS + 30)

    def uninstall(self) -> None:
        """Uninstall both charts."""
        words = ("--wait", f"--timeout={SECONDS}s")
        self.cluster.helm("uninstall", NAME, f"--namespace={NAMESPACE}", *words, seconds=SECONDS + 30)
        self.cluster.helm("uninstall", "meshwright-crds", *words, seconds=SECONDS + 30)

    def certificates(self) -> dict[str, Any]:
        """Return the infrastructure's Secrets: each name with what it holds."""
        secrets = self.cluster.get("secrets", f"--namespace={NAMESPACE}")["items"]
        return {each["metadata"]["name"]: each["data"] for each in secrets if each["type"] != "helm.sh/release.v1"}

    def quotas_decided_alone(self) -> int:
        """Return how often a replica of mixer didn't reach a quota's owner and granted by itself (ADR 9)."""
        selector = "--selector=app.kubernetes.io/component=mixer"
        found = 0
        for pod in self.cluster.get("pods", f"--namespace={NAMESPACE}", selector)["items"]:
            words = (
                "exec",
                f"--namespace={NAMESPACE}",
                pod["metadata"]["name"],
                "--container=mixer",
                "--",
                "python",
                "-c",
            )
            for line in self.cluster.kubectl(*words, _METRICS).splitlines():
                if line.startswith("meshwright_mixer_quota_owner_unreachable_total"):
                    found += int(float(line.split()[-1]))
        return found

    def find_trace(self, trace_id: str) -> list[dict[str, str]]:
        """Return the spans of a trace that the collector has."""
        script = (ROOT / "tests" / "kubernetes" / "find_trace.py").read_text()
        collector = f"meshwright-collector.{NAMESPACE}.svc:4317"
        words = ("python", "-", trace_id, collector, *self._begin_administrator())
        printed = self.cluster.kubectl(
            "exec", "--stdin", f"--namespace={NAMESPACE}", ADMINISTRATOR, "--", *words, text=script
        )
        found: list[dict[str, str]] = json.loads(printed)
        return found

    def _begin_administrator(self) -> list[str]:
        """Start the pod of the chart's own test, waiting instead of testing; return how it gets its identity."""
        hooks = self.cluster.helm("get", "hooks", NAME, f"--namespace={NAMESPACE}")
        (pod,) = (each for each in yaml.safe_load_all(hooks) if each and each["kind"] == "Pod")
        container = pod["spec"]["containers"][0]
        identity = [each for each in container.pop("args") if each.startswith(("--citadel", "--kubernetes", "--trust"))]
        container["command"] = ["sleep", "infinity"]
        del pod["spec"]["activeDeadlineSeconds"]
        pod["spec"]["terminationGracePeriodSeconds"] = 1
        pod["metadata"] = {"name": ADMINISTRATOR, "namespace": NAMESPACE}
        self.cluster.kubectl("apply", "--filename=-", text=yaml.safe_dump(pod))
        self.cluster.kubectl(
            "wait",
            "--for=condition=Ready",
            f"--namespace={NAMESPACE}",
            f"pod/{ADMINISTRATOR}",
            "--timeout=60s",
            seconds=70,
        )
        return identity

    def _helm(self, command: str, *words: str) -> None:
        chart = (NAME, CHARTS / "meshwright", f"--namespace={NAMESPACE}", f"--values={VALUES}")
        self.cluster.helm(command, *chart, *words, "--wait", f"--timeout={SECONDS}s", seconds=SECONDS + 30)
        # Of a DaemonSet on one node, Helm waits for none: one may be unavailable.
        nodes = ("rollout", "status", "daemonset/meshwright-node", f"--namespace={NAMESPACE}")
        self.cluster.kubectl(*nodes, f"--timeout={SECONDS}s", seconds=SECONDS + 30)
