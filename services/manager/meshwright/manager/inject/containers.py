"""The containers and volumes that the injector adds.

One decision to know: all are init containers. Redirection runs to its end first; proxy and network service client are
native sidecars (restartPolicy Always), so the kubelet starts them before the application, waits until they are ready,
and ends them after it.
"""

from __future__ import annotations

from typing import Any

from meshwright.manager.inject.options import Options
from meshwright.manager.inject.probes import HEALTH_PORT
from meshwright.manager.inject.wishes import Wishes

REDIRECT, PROXY, NETWORK_SERVICE = "meshwright-redirect", "meshwright-proxy", "meshwright-network-service"
CONTAINERS = (REDIRECT, PROXY, NETWORK_SERVICE)
NODE, SCRATCH, LABELS = "meshwright-node", "meshwright-scratch", "meshwright-labels"
VOLUMES = (NODE, SCRATCH, LABELS)
USER = 1337

_SCRATCH_FOLDER, _LABELS_FOLDER = "/run/meshwright-sidecar", "/etc/meshwright-pod"
_READY_FILE = f"{_SCRATCH_FOLDER}/network-service"


def redirect(wishes: Wishes, options: Options) -> dict[str, Any]:
    """Send the pod's connections to its proxy. It has the one right that this takes, and ends before others start."""
    listed = {
        "exclude-outbound-ports": wishes.outbound_ports,
        "exclude-outbound-ranges": wishes.outbound_ranges,
        "exclude-inbound-ports": wishes.inbound_ports,
        "exclude-interfaces": wishes.interfaces,
    }
    excluded = [f"--{name}={','.join(map(str, values))}" for name, values in listed.items() if values]
    return _container(
        REDIRECT,
        ["redirect", *excluded],
        options,
        securityContext=_security(0, add=["NET_ADMIN"]),
        resources=_resources({"cpu": "10m", "memory": "32Mi"}, {"memory": "128Mi"}),
    )


def proxy(wishes: Wishes, probes: list[str], options: Options) -> dict[str, Any]:
    """Run Envoy, and answer the kubelet."""
    arguments = {
        "namespace": "$(POD_NAMESPACE)",
        "pod": "$(POD_NAME)",
        "address": "$(POD_IP)",
        "account": "$(POD_SERVICE_ACCOUNT)",
        "manager": options.part("manager", 15012),
        "mixer": options.part("mixer", 9091),
        "collector": options.part("collector", 4317),
        "trust-domain": options.trust_domain,
        "labels": f"{_LABELS_FOLDER}/labels",
    }
    # The kubelet replaces $(NAME) in arguments, and reads $$( as a plain $(.
    asked = [f"--probe={probe.replace('$(', '$$(')}" for probe in probes]
    return _container(
        PROXY,
        ["run", *(f"--{name}={value}" for name, value in arguments.items()), *asked],
        options,
        restartPolicy="Always",
        env=[
            _downward("POD_NAME", "metadata.name"),
            _downward("POD_NAMESPACE", "metadata.namespace"),
            _downward("POD_IP", "status.podIP"),
            _downward("POD_SERVICE_ACCOUNT", "spec.serviceAccountName"),
        ],
        securityContext=_security(USER),
        resources=_resources(
            {"cpu": "50m", "memory": "96Mi"} | dict(wishes.requests), {"memory": "512Mi"} | dict(wishes.limits)
        ),
        # Ready means configured: before that the application doesn't start.
        startupProbe={**_health("/readyz"), "periodSeconds": 1, "failureThreshold": 600, "timeoutSeconds": 5},
        readinessProbe={**_health("/readyz"), "periodSeconds": 10, "failureThreshold": 3, "timeoutSeconds": 5},
        volumeMounts=[
            _mount(NODE, "/run/meshwright", read_only=True),
            _mount(SCRATCH, _SCRATCH_FOLDER),
            _mount(LABELS, _LABELS_FOLDER, read_only=True),
        ],
    )


def network_service(wishes: Wishes, options: Options) -> dict[str, Any]:
    """Keep the pod connected to its network services."""
    arguments = ["--name=$(POD_NAME)", f"--trust-domain={options.trust_domain}", f"--ready-file={_READY_FILE}"]
    return _container(
        NETWORK_SERVICE,
        ["connect", *arguments, *wishes.network_services],
        options,
        restartPolicy="Always",
        env=[_downward("POD_NAME", "metadata.name")],
        securityContext=_security(USER),
        resources=_resources({"cpu": "10m", "memory": "64Mi"}, {"memory": "256Mi"}),
        startupProbe={
            "exec": {"command": ["/usr/bin/test", "-e", _READY_FILE]},
            "periodSeconds": 1,
            "failureThreshold": 600,
            "timeoutSeconds": 5,
        },
        volumeMounts=[_mount(NODE, "/run/meshwright", read_only=True), _mount(SCRATCH, _SCRATCH_FOLDER)],
    )


def volumes(*, labels: bool) -> list[dict[str, Any]]:
    """Return the node's sockets, memory for files that may not reach a disk, and the pod's labels."""
    found: list[dict[str, Any]] = [
        {"name": NODE, "hostPath": {"path": "/run/meshwright", "type": "Directory"}},
        {"name": SCRATCH, "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
    ]
    if labels:
        item = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
        found.append({"name": LABELS, "downwardAPI": {"items": [item]}})
    return found


def _container(name: str, arguments: list[str], options: Options, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": options.image, "imagePullPolicy": options.pull_policy, "args": arguments, **more}


def _security(user: int, add: list[str] | None = None) -> dict[str, Any]:
    return {
        "runAsUser": user,
        "runAsGroup": user,
        "runAsNonRoot": user != 0,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]} | ({"add": add} if add else {}),
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _resources(requests: dict[str, str], limits: dict[str, str]) -> dict[str, Any]:
    return {"requests": requests, "limits": limits}


def _health(path: str) -> dict[str, Any]:
    return {"httpGet": {"path": path, "port": HEALTH_PORT}}


def _downward(name: str, field: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": field}}}


def _mount(name: str, path: str, *, read_only: bool = False) -> dict[str, Any]:
    return {"name": name, "mountPath": path} | ({"readOnly": True} if read_only else {})
