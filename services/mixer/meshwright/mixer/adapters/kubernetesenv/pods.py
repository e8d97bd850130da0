"""What is known of pods, by uid and by address: kept small, whatever the objects hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from meshwright.mixer.adapter.v1 import Address, Value

_UID = re.compile(r"(?:kubernetes://)?(?P<name>[^./]+(?:\.[^./]+)*)\.(?P<namespace>[^./]+)")
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class Workload:
    """What made a pod: a Deployment rather than its ReplicaSet."""

    name: str
    namespace: str
    owner: str

    @property
    def uid(self) -> str:
        """As Istio writes it."""
        return f"istio://{self.namespace}/workloads/{self.name}"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that has not ended."""

    name: str
    namespace: str
    labels: Mapping[str, str]
    account: str
    address: Address | None
    host: Address | None
    containers: Mapping[int, str]
    workload: Workload

    @property
    def uid(self) -> str:
        """As Istio writes it."""
        return f"kubernetes://{self.name}.{self.namespace}"

    def outputs(self, side: str, port: int = 0) -> dict[str, Value]:
        """The template's output for this side of a connection (source, destination); what isn't known is left out."""
        made: dict[str, Value | None] = {
            "pod_uid": self.uid,
            "pod_ip": self.address,
            "pod_name": self.name,
            "labels": self.labels,
            "namespace": self.namespace,
            "service_account_name": self.account or None,
            "host_ip": self.host,
            "workload_uid": self.workload.uid,
            "workload_name": self.workload.name,
            "workload_namespace": self.workload.namespace,
            "owner": self.workload.owner,
        }
        if side == "destination":
            made["container_name"] = self.containers.get(port)
        return {f"{side}_{name}": value for name, value in made.items() if value is not None}


def read(item: Mapping[str, Any]) -> Pod | None:
    """A pod of the API server's JSON; None when it has ended or is none."""
    metadata, spec, status = (item.get(part) or {} for part in ("metadata", "spec", "status"))
    name, namespace = metadata.get("name"), metadata.get("namespace")
    if not name or not namespace or status.get("phase") in _ENDED:
        return None
    labels = {key: str(value) for key, value in (metadata.get("labels") or {}).items()}
    is_on_host = bool(spec.get("hostNetwork"))  # its address is the node's, and many pods'
    return Pod(
        name=name,
        namespace=namespace,
        labels=labels,
        account=spec.get("serviceAccountName") or "",
        address=None if is_on_host else _address(status.get("podIP")),
        host=_address(status.get("hostIP")),
        containers={
            port["containerPort"]: container["name"]
            for container in spec.get("containers") or ()
            for port in container.get("ports") or ()
            if "containerPort" in port
        },
        workload=_workload(metadata, labels),
    )


class Pods:
    """All pods. `put` and `drop` as the cluster changes."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], Pod] = {}
        self._by_address: dict[Address, Pod] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def replace(self, pods: Mapping[tuple[str, str], Pod]) -> None:
        """Take what a new list has, and nothing else."""
        self._by_name = dict(pods)
        self._by_address = {pod.address: pod for pod in pods.values() if pod.address is not None}

    def put(self, pod: Pod) -> None:
        """Take a pod that is new or has changed."""
        self.drop(pod.namespace, pod.name)
        self._by_name[pod.namespace, pod.name] = pod
        if pod.address is not None:
            self._by_address[pod.address] = pod

    def drop(self, namespace: str, name: str) -> None:
        """Forget a pod; its address may be another's by now."""
        gone = self._by_name.pop((namespace, name), None)
        if gone is not None and gone.address is not None and self._by_address.get(gone.address) is gone:
            del self._by_address[gone.address]

    def find(self, uid: str, address: Address | None) -> Pod | None:
        """By uid (`kubernetes://NAME.NAMESPACE`), else by address; an IPv4 address in IPv6's form is the same."""
        match = _UID.fullmatch(uid) if uid else None
        if match and (found := self._by_name.get((match["namespace"], match["name"]))):
            return found
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            address = address.ipv4_mapped
        return self._by_address.get(address) if address is not None else None


def _address(text: Any) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text) if text else None
    except ValueError:
        return None


def _workload(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> Workload:
    name, namespace = str(metadata["name"]), str(metadata["namespace"])
    owner = next((each for each in metadata.get("ownerReferences") or () if each.get("controller")), None)
    if owner is None:
        return Workload(name, namespace, f"kubernetes://apis/v1/namespaces/{namespace}/pods/{name}")
    kind, version, made_by = owner["kind"], owner.get("apiVersion", "v1"), owner["name"]
    template = labels.get("pod-template-hash")
    if kind == "ReplicaSet" and template and made_by.endswith(f"-{template}"):
        kind, made_by = "Deployment", made_by.removesuffix(f"-{template}")
    path = f"kubernetes://apis/{version}/namespaces/{namespace}/{kind.lower()}s/{made_by}"
    return Workload(made_by, namespace, path)
